"""Views of built-in kinds with the fields that the etcd operator reads.

`PERSISTENT_VOLUME_CLAIM`, `SECRET` and `SERVICE` are those of `pilothouse`.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

import msgspec

from pilothouse import ObjectMeta, Resource
from pilothouse.views import Container, ContainerState


class TimedCondition(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """A condition of a built-in kind, with the time since when its status has been the same."""

    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""
    last_transition_time: datetime | None = None


def condition(conditions: Iterable[TimedCondition], type: str) -> TimedCondition:  # noqa: A002
    """Returns the condition of a type. Its status is empty if there is none."""
    return next((each for each in conditions if each.type == type), TimedCondition(type))


class ContainerStatus(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """The kubelet's report about a container.

    Attributes:
        name: The container's name.
        container_id: The ID of the container that was created last. Empty: none was.
        restart_count: The number of restarts.
        state: The current state.
        last_state: The state in which it last ended.
    """

    name: str = ""
    container_id: str = msgspec.field(default="", name="containerID")
    restart_count: int = 0
    state: ContainerState = ContainerState()
    last_state: ContainerState = ContainerState()


class PodSpec(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """The node of a pod, and its containers."""

    node_name: str = ""
    containers: tuple[Container, ...] = ()


class PodStatus(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """The state of a pod."""

    phase: str = ""
    reason: str = ""
    message: str = ""
    pod_ip: str = msgspec.field(default="", name="podIP")
    conditions: tuple[TimedCondition, ...] = ()
    container_statuses: tuple[ContainerStatus, ...] = ()


class Pod(msgspec.Struct, frozen=True, gc=False):
    """v1 Pod."""

    metadata: ObjectMeta = ObjectMeta()
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()


def has_ended(pod: Pod) -> bool:
    """Whether all containers have ended, and the kubelet never starts them again.

    Kubernetes may already have removed the address of such a pod.
    """
    return pod.status.phase in ("Failed", "Succeeded")


class LivePodSpec(msgspec.Struct, frozen=True):
    """The containers of a pod, with all of their fields."""

    containers: tuple[dict[str, Any], ...] = ()


class LivePod(msgspec.Struct, frozen=True):
    """v1 Pod, for a patch that repeats its containers. Read it from the API server."""

    metadata: ObjectMeta = ObjectMeta()
    spec: LivePodSpec = LivePodSpec()
    status: PodStatus = PodStatus()


class TargetReference(msgspec.Struct, frozen=True, gc=False):
    """The pod behind an address."""

    kind: str = ""
    name: str = ""
    uid: str = ""


class SliceEndpoint(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """The addresses of one pod."""

    addresses: tuple[str, ...] = ()
    target_ref: TargetReference | None = None


class EndpointSlice(msgspec.Struct, frozen=True, gc=False):
    """discovery.k8s.io/v1 EndpointSlice."""

    metadata: ObjectMeta = ObjectMeta()
    endpoints: tuple[SliceEndpoint, ...] | None = None


class StorageClass(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """storage.k8s.io/v1 StorageClass."""

    metadata: ObjectMeta = ObjectMeta()
    allow_volume_expansion: bool = False

    @property
    def is_default(self) -> bool:
        """Whether it is used for claims without a class."""
        return self.metadata.annotations.get("storageclass.kubernetes.io/is-default-class") == "true"


class NodeStatus(msgspec.Struct, frozen=True, gc=False):
    """The conditions of a node."""

    conditions: tuple[TimedCondition, ...] = ()


class Node(msgspec.Struct, frozen=True, gc=False):
    """v1 Node."""

    metadata: ObjectMeta = ObjectMeta()
    status: NodeStatus = NodeStatus()


class DisruptionBudgetSpec(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """How many pods must stay. Another client may have set a percentage."""

    min_available: int | str | None = None


class PodDisruptionBudget(msgspec.Struct, frozen=True, gc=False):
    """policy/v1 PodDisruptionBudget."""

    metadata: ObjectMeta = ObjectMeta()
    spec: DisruptionBudgetSpec = DisruptionBudgetSpec()


POD: Resource[Pod] = Resource("", "v1", "Pod", "pods", Pod)
LIVE_POD: Resource[LivePod] = Resource("", "v1", "Pod", "pods", LivePod)
ENDPOINT_SLICE: Resource[EndpointSlice] = Resource(
    "discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", EndpointSlice
)
STORAGE_CLASS: Resource[StorageClass] = Resource(
    "storage.k8s.io", "v1", "StorageClass", "storageclasses", StorageClass, namespaced=False
)
NODE: Resource[Node] = Resource("", "v1", "Node", "nodes", Node, namespaced=False)
POD_DISRUPTION_BUDGET: Resource[PodDisruptionBudget] = Resource(
    "policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", PodDisruptionBudget
)
