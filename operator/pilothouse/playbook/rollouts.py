"""Finds out why a workload is not rolled out, from its pods and their claims."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

from pilothouse.kube import Api, Forbidden, KubeError, NotFound, ObjectKey
from pilothouse.playbook.arguments import shown
from pilothouse.playbook.awaited import PlaybookError
from pilothouse.telemetry import now
from pilothouse.views import (
    PERSISTENT_VOLUME_CLAIM,
    POD,
    Deployment,
    PersistentVolumeClaim,
    Pod,
    Rollout,
    StatefulSet,
)

# Seconds. Younger pods may still be starting: the first attempt to pull an image takes some seconds to fail.
STARTING = 30.0
# Seconds until the next check while a pod is starting.
STARTING_FALLBACK = 5.0
# The number of claims to read. Only one problem is shown, and most pods of a workload have the same one.
CLAIMS = 3


def require_workload(workload: object) -> None:
    """Refuses a value that is not a workload as a module returned it.

    Raises:
        PlaybookError: The text names the value.
    """
    if not isinstance(workload, Deployment | StatefulSet):
        raise PlaybookError(
            f"play.wait_for_rollout: the workload is {shown(workload)}, but must be a Deployment or a "
            "StatefulSet of pilothouse.views: pass what play.apply(DEPLOYMENT, ...) returned"
        )


class Explained(NamedTuple):
    """A rollout, with what its pods show.

    Attributes:
        rollout: The progress of the rollout, and why it has not finished.
        starting: Whether a young pod is not ready for no known reason, which it may show soon.
    """

    rollout: Rollout
    starting: bool = False


async def explained(api: Api, workload: Deployment | StatefulSet) -> Explained:
    """Returns the progress of a rollout, and why it has not finished.

    The pods are read from the API server only during a rollout, because a watch of all pods would cost more.
    If these requests fail, the rollout does not fail.
    """
    progress = workload.rolled_out()
    selector = str(workload.spec.selector)
    if progress.done or not selector:
        return Explained(progress)
    try:
        pods = await _pods(api, workload.metadata.namespace, selector)
        own = [pod for pod in pods if workload.owns(pod)]
        claims = await _claims(api, own)
    except Forbidden as error:
        why = f"{progress.message} The operator cannot find out why: {error}"
        return Explained(replace(progress, message=why))
    except KubeError:
        return Explained(progress)
    return Explained(workload.rolled_out(own, claims), any(map(_is_starting, own)))


def _is_starting(pod: Pod) -> bool:
    created = pod.metadata.creation_timestamp
    if created is None or pod.ready or pod.problem() is not None:
        return False
    return (now() - created).total_seconds() < STARTING


async def _pods(api: Api, namespace: str, selector: str) -> Sequence[Pod]:
    async for page in api.pages(POD, namespace=namespace, label_selector=selector):
        return page.items  # The first page is enough, even for thousands of pods.
    return ()


async def _claims(api: Api, pods: Iterable[Pod]) -> Sequence[PersistentVolumeClaim]:
    """Reads the claims of the pods that cannot be scheduled."""
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
