"""Why a workload is not rolled out yet: its pods and their claims are read when that is asked."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from pilothouse.kube import Api, Forbidden, KubeError, NotFound, ObjectKey
from pilothouse.views import (
    PERSISTENT_VOLUME_CLAIM,
    POD,
    Deployment,
    PersistentVolumeClaim,
    Pod,
    Rollout,
    StatefulSet,
)

# The reason of one pod is told; the others of a workload are rarely held up by something else.
CLAIMS = 3


async def explained(api: Api, workload: Deployment | StatefulSet) -> Rollout:
    """How far the rollout of a workload is, and why it is not done.

    A watch on all pods of a cluster would cost more than a request for some of them while a rollout lasts. A
    failure of these requests is not one of the rollout.
    """
    progress = workload.rolled_out()
    selector = str(workload.spec.selector)
    if progress.done or not selector:
        return progress
    try:
        pods = await _pods(api, workload.metadata.namespace, selector)
        claims = await _claims(api, [pod for pod in pods if workload.owns(pod)])
    except Forbidden as error:
        return replace(progress, message=f"{progress.message} The operator cannot find out why: {error}")
    except KubeError:
        return progress
    return workload.rolled_out(pods, claims)


async def _pods(api: Api, namespace: str, selector: str) -> Sequence[Pod]:
    async for page in api.pages(POD, namespace=namespace, label_selector=selector):
        return page.items  # Of thousands, the first few hundred tell enough.
    return ()


async def _claims(api: Api, pods: Iterable[Pod]) -> Sequence[PersistentVolumeClaim]:
    """The claims of the pods that cannot be scheduled."""
    keys = {
        ObjectKey(pod.metadata.namespace, name)
        for pod in pods
        if (problem := pod.problem()) and problem.reason == "Unschedulable"
        for name in pod.claims
    }
    found = []
    for key in sorted(keys)[:CLAIMS]:
        try:
            found.append(await api.get(PERSISTENT_VOLUME_CLAIM, key))
        except NotFound:
            continue
    return found
