"""Pod, and the reasons why a pod does not run."""

from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

import msgspec

from pilothouse.kube import ObjectMeta, Resource
from pilothouse.views.conditions import StatusCondition, condition_of

# The kubelet alternates between these two reasons while it retries. A condition should not alternate.
PULL_ERRORS = {"ErrImagePull": "ImagePullBackOff"}
# pkg/kubelet/images/types.go
IMAGE_REASONS = {
    "ImagePullBackOff",
    "ErrImageNeverPull",
    "ImageInspectError",
    "InvalidImageName",
    "RegistryUnavailable",
    "SignatureValidationFailed",
}
# The reasons of a container that is still starting (pkg/kubelet/kubelet_pods.go).
STARTING = {"", "ContainerCreating", "PodInitializing"}
CRASH = "CrashLoopBackOff"


class Problem(NamedTuple):
    """The reason why a pod or workload does not run.

    Attributes:
        reason: One word for programs. If possible, it is the one that Kubernetes uses: "ImagePullBackOff".
        message: A clause for people, without a full stop.
    """

    reason: str
    message: str


class ContainerWaiting(msgspec.Struct, frozen=True, gc=False):
    """The state of a container that has not started yet."""

    reason: str = ""
    message: str = ""


class ContainerRunning(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """The state of a running container."""

    started_at: datetime | None = None


class ContainerTerminated(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """The state of a container that has exited.

    Attributes:
        exit_code: The exit code.
        reason: The reason, such as Error or OOMKilled.
        message: The end of the termination message. It may contain secrets, so do not show it.
    """

    exit_code: int = 0
    reason: str = ""
    message: str = ""


class ContainerState(msgspec.Struct, frozen=True, gc=False):
    """The state of a container. At most one of the attributes is set. If none is, the state is unknown."""

    waiting: ContainerWaiting | None = None
    running: ContainerRunning | None = None
    terminated: ContainerTerminated | None = None


class ContainerStatus(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """The kubelet's report about a container.

    Attributes:
        name: The container's name.
        image: The image that it runs.
        ready: Whether the readiness probe succeeds. For an init container: whether it has succeeded.
        restart_count: The number of restarts.
        state: The current state.
        last_state: The state in which it last ended.
    """

    name: str = ""
    image: str = ""
    ready: bool = False
    restart_count: int = 0
    state: ContainerState = ContainerState()
    last_state: ContainerState = ContainerState()


class Container(msgspec.Struct, frozen=True, gc=False):
    """A container of a pod's spec."""

    name: str = ""
    image: str = ""


class ClaimSource(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """The PersistentVolumeClaim of a volume."""

    claim_name: str = ""


class Volume(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """A volume of a pod."""

    persistent_volume_claim: ClaimSource | None = None


class PodSpec(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """The specification of a pod.

    Attributes:
        node_name: The node that the pod is scheduled to.
        containers: The containers.
        volumes: The volumes.
    """

    node_name: str = ""
    containers: tuple[Container, ...] = ()
    volumes: tuple[Volume, ...] = ()


class PodStatus(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """The state of a pod.

    Attributes:
        phase: Pending, Running, Succeeded, Failed or Unknown.
        reason: The reason for the phase, such as Evicted.
        message: The reason for the phase, for people.
        pod_ip: The pod's address. Empty until it has one.
        conditions: PodScheduled, Initialized, ContainersReady and Ready.
        init_container_statuses: The statuses of the init containers.
        container_statuses: The statuses of the containers.
    """

    phase: str = ""
    reason: str = ""
    message: str = ""
    pod_ip: str = msgspec.field(default="", name="podIP")
    conditions: tuple[StatusCondition, ...] = ()
    init_container_statuses: tuple[ContainerStatus, ...] = ()
    container_statuses: tuple[ContainerStatus, ...] = ()


class Pod(msgspec.Struct, frozen=True, gc=False):
    """v1 Pod."""

    metadata: ObjectMeta = ObjectMeta()
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()

    @property
    def ready(self) -> bool:
        """Whether the condition Ready is True."""
        found = condition_of(self.status.conditions, "Ready")
        return found is not None and found.status == "True"

    @property
    def claims(self) -> tuple[str, ...]:
        """The names of the PersistentVolumeClaims that the pod uses."""
        sources = (volume.persistent_volume_claim for volume in self.spec.volumes)
        return tuple(source.claim_name for source in sources if source is not None)

    def problem(self) -> Problem | None:
        """Returns why the pod does not become ready, or None if it is ready, starting or terminating."""
        return next(self._problems(), None)

    def _problems(self) -> Iterator[Problem]:
        status, name = self.status, self.metadata.name
        if self.ready or self.metadata.deletion_timestamp is not None or status.phase == "Succeeded":
            return
        if status.phase == "Failed":
            why = status.message or "it has failed"
            yield Problem(status.reason or "PodFailed", f"Pod {name}: {why}")
        scheduled = condition_of(status.conditions, "PodScheduled")
        if scheduled is not None and scheduled.status == "False" and scheduled.reason != "SchedulerError":
            why = f": {scheduled.message}" if scheduled.message else ""
            yield Problem(scheduled.reason or "Unschedulable", f"Pod {name} cannot be scheduled{why}")
        for container in (*status.init_container_statuses, *status.container_statuses):
            if found := _problem_of(container, self.metadata):
                yield found


def _problem_of(container: ContainerStatus, pod: ObjectMeta) -> Problem | None:
    name = f"container {container.name} of Pod {pod.name}"
    waiting, terminated = container.state.waiting, container.state.terminated
    reason = PULL_ERRORS.get(waiting.reason, waiting.reason) if waiting else ""
    if waiting and reason in IMAGE_REASONS:
        why = f": {waiting.message}" if waiting.message else f" ({waiting.reason})"
        return Problem(reason, f"{name} cannot get its image {container.image}{why}")
    last = terminated or container.last_state.terminated
    # Between two crashes the container runs for a moment. The problem is still the same.
    if reason == CRASH or (last and last.exit_code and not container.ready and container.restart_count > 1):
        how = f": exit code {last.exit_code} ({last.reason or 'Error'})" if last else ""
        log = f"kubectl logs -n {pod.namespace} {pod.name} -c {container.name} --previous"
        return Problem(CRASH, f"{name} keeps exiting{how}; its log: {log}")
    if waiting and reason not in STARTING:
        return Problem(reason, f"{name} cannot start: {waiting.message or reason}")
    if terminated and terminated.exit_code:
        how = f"exit code {terminated.exit_code} ({terminated.reason or 'Error'})"
        return Problem(terminated.reason or "Error", f"{name} has exited: {how}")
    return None


POD: Resource[Pod] = Resource("", "v1", "Pod", "pods", Pod)
"""Pods."""
