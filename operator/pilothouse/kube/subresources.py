"""The subresources that are more than another part of an object: scale, eviction, log."""

from dataclasses import replace
from typing import Any

import msgspec

from pilothouse.kube.api import Api
from pilothouse.kube.objects import ObjectKey, ObjectMeta, PartialObjectMetadata
from pilothouse.kube.resource import Resource
from pilothouse.kube.transport import DEADLINE

PODS = Resource("", "v1", "Pod", "pods", PartialObjectMetadata)
# 1 MiB: an operator quotes the end of a log, it does not collect logs.
LOG_BYTES = 1024 * 1024


class ScaleSpec(msgspec.Struct, frozen=True, gc=False):
    """How many there should be."""

    replicas: int = 0


class ScaleStatus(msgspec.Struct, frozen=True, gc=False):
    """How many there are, and the label selector that finds them."""

    replicas: int = 0
    selector: str = ""


class Scale(msgspec.Struct, frozen=True, gc=False):
    """autoscaling/v1 Scale: how many replicas a thing of any kind should have, and has."""

    metadata: ObjectMeta
    spec: ScaleSpec = ScaleSpec()
    status: ScaleStatus = ScaleStatus()


def scale_of(resource: Resource[Any]) -> Resource[Scale]:
    """Return the resource whose objects are read through their `scale` subresource.

    ::

        deployments = scale_of(DEPLOYMENTS)
        scale = await client.get(deployments, key, subresource="scale")
        await client.patch(
            deployments, key, {"spec": {"replicas": 3}}, type=PatchType.MERGE, subresource="scale"
        )
    """
    return replace(resource, view=Scale)


async def evict(client: Api, pod: ObjectKey, *, uid: str = "", grace_seconds: int | None = None) -> None:
    """Ask a pod to go where its disruption budgets allow that. It is gone some time later.

    Args:
        client: speaks to the API server.
        pod: the pod.
        uid: this pod only, not another that has taken its name.
        grace_seconds: what it gets to end; None leaves it to the pod.

    Raises:
        TooManyRequests: a disruption budget does not allow it now; `causes` name it. Try again later.
        NotFound: there is no such pod.
        Conflict: the pod of that name has another uid; said after the 10 s for which the server tries.
    """
    options: dict[str, object] = {"preconditions": {"uid": uid}} if uid else {}
    if grace_seconds is not None:
        options["gracePeriodSeconds"] = grace_seconds
    body = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"namespace": pod.namespace, "name": pod.name},
        "deleteOptions": options,
    }
    await client.request("POST", PODS.path(*pod, "eviction"), body=body)


async def pod_log(
    client: Api,
    pod: ObjectKey,
    *,
    container: str = "",
    previous: bool = False,
    tail_lines: int | None = None,
    since_seconds: int | None = None,
    timestamps: bool = False,
    limit_bytes: int = LOG_BYTES,
    deadline: float = DEADLINE,
) -> str:
    """Return what a container has written so far.

    Args:
        client: speaks to the API server.
        pod: the pod.
        container: which one; may be empty for a pod that has one only.
        previous: of the run before the last restart.
        tail_lines: the last so many lines; None for all.
        since_seconds: what was written in the last so many seconds; None for all.
        timestamps: begin each line with its time.
        limit_bytes: the first so many bytes of what remains.
        deadline: seconds for the whole.

    Raises:
        BadRequest: the pod has several containers and none was named, or the container has not started.
        NotFound: there is no such pod.
    """
    params = {"limitBytes": str(limit_bytes)}
    if container:
        params["container"] = container
    if previous:
        params["previous"] = "true"
    if tail_lines is not None:
        params["tailLines"] = str(tail_lines)
    if since_seconds is not None:
        params["sinceSeconds"] = str(since_seconds)
    if timestamps:
        params["timestamps"] = "true"
    path = PODS.path(*pod, "log")
    answer = await client.request("GET", path, params=params, accept="text/plain, */*", deadline=deadline)
    return answer.decode(errors="replace")
