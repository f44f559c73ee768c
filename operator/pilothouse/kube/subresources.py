"""The subresources scale, eviction and log, which have types or formats of their own."""

from dataclasses import replace
from typing import Any

import msgspec

from pilothouse.kube.api import Api
from pilothouse.kube.objects import ObjectKey, ObjectMeta, PartialObjectMetadata
from pilothouse.kube.resource import Resource, require_flags
from pilothouse.kube.transport import DEADLINE

PODS = Resource("", "v1", "Pod", "pods", PartialObjectMetadata)
# 1 MiB. An operator quotes the end of a log, but does not collect logs.
LOG_BYTES = 1024 * 1024


class ScaleSpec(msgspec.Struct, frozen=True, gc=False):
    """The desired number of replicas."""

    replicas: int = 0


class ScaleStatus(msgspec.Struct, frozen=True, gc=False):
    """The current number of replicas, and the label selector of their pods."""

    replicas: int = 0
    selector: str = ""


class Scale(msgspec.Struct, frozen=True, gc=False):
    """autoscaling/v1 Scale: the desired and current number of replicas of an object of any kind."""

    metadata: ObjectMeta
    spec: ScaleSpec = ScaleSpec()
    status: ScaleStatus = ScaleStatus()


def scale_of(resource: Resource[Any]) -> Resource[Scale]:
    """Returns the resource for reading and changing the subresource `scale` of a kind.

    ::

        deployments = scale_of(DEPLOYMENTS)
        scale = await client.get(deployments, key, subresource="scale")
        await client.patch(
            deployments, key, {"spec": {"replicas": 3}}, type=PatchType.MERGE, subresource="scale"
        )
    """
    return replace(resource, view=Scale)


async def evict(client: Api, pod: ObjectKey, *, uid: str = "", grace_seconds: int | None = None) -> None:
    """Evicts a pod if its disruption budgets allow it. The pod terminates afterwards.

    Args:
        client: The client for the API server.
        pod: The pod's namespace and name.
        uid: The pod's UID. If it is given, another pod of the same name is not evicted.
        grace_seconds: The grace period in seconds. None: the pod's own.

    Raises:
        TooManyRequests: A disruption budget does not allow the eviction now. `causes` names it. Retry later.
        NotFound: The pod does not exist.
        Conflict: The pod of this name has another UID. The API server retries for 10 s before it reports it.
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
    """Returns the log of a container.

    Args:
        client: The client for the API server.
        pod: The pod's namespace and name.
        container: The container's name. It may be empty if the pod has only one container.
        previous: Whether to read the log of the run before the last restart.
        tail_lines: The number of lines from the end of the log. None: all.
        since_seconds: The age of the oldest line, in seconds. None: all lines.
        timestamps: Whether each line begins with its time.
        limit_bytes: The maximum size, in bytes. The rest of the log is cut off.
        deadline: The timeout in seconds.

    Raises:
        BadRequest: The pod has several containers and none was named, or the container has not started.
        NotFound: The pod does not exist.
        TypeError: A flag is not True or False.
    """
    require_flags("pod_log", previous=previous, timestamps=timestamps)
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
