"""Pod, and why one does not run."""

from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

import msgspec

from pilothouse.kube import ObjectMeta, Resource
from pilothouse.views.conditions import StatusCondition, condition_of

# The kubelet alternates between these two reasons while it retries; a condition must not alternate with it.
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
# A container that is only starting (pkg/kubelet/kubelet_pods.go).
STARTING = {"", "ContainerCreating", "PodInitializing"}
CRASH = "CrashLoopBackOff"


class Problem(NamedTuple):
    """Why something does not run.

    Attributes:
        reason: For machines, in Kubernetes' own words where it has some: "ImagePullBackOff".
        message: For people: a clause without a full stop.
    """

    reason: str
    message: str


class ContainerWaiting(msgspec.Struct, frozen=True, gc=False):
    """A container that does not run yet."""

    reason: str = ""
    message: str = ""


class ContainerRunning(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """A container that runs."""

    started_at: datetime | None = None


class ContainerTerminated(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """A container that has exited.

    Attributes:
        exit_code: Its exit code.
        reason: Why, such as Error or OOMKilled.
        message: The end of its termination message. It may hold secrets: do not show it.
    """

    exit_code: int = 0
    reason: str = ""
    message: str = ""


class ContainerState(msgspec.Struct, frozen=True, gc=False):
    """The state of a container: one of the three, or none when it is unknown."""

    waiting: ContainerWaiting | None = None
    running: ContainerRunning | None = None
    terminated: ContainerTerminated | None = None


class ContainerStatus(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """What the kubelet reports of a container.

    Attributes:
        name: Its name.
        image: The image that it runs.
        ready: Whether its readiness probe succeeds; of an init container: whether it has ended well.
        restart_count: How many times it was restarted.
        state: Its state.
        last_state: How it ended the last time.
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
    """What a pod runs.

    Attributes:
        node_name: The node that it is scheduled to.
        containers: Its containers.
        volumes: Its volumes.
    """

    node_name: str = ""
    containers: tuple[Container, ...] = ()
    volumes: tuple[Volume, ...] = ()


class PodStatus(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """How a pod is.

    Attributes:
        phase: Pending, Running, Succeeded, Failed or Unknown.
        reason: Why it is in that phase, such as Evicted.
        message: The same for people.
        pod_ip: Its address; empty until it has one.
        conditions: PodScheduled, Initialized, ContainersReady, Ready.
        init_container_statuses: Of its init containers.
        container_statuses: Of its containers.
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
        """Whether its condition Ready is True."""
        found = condition_of(self.status.conditions, "Ready")
        return found is not None and found.status == "True"

    @property
    def claims(self) -> tuple[str, ...]:
        """The names of its PersistentVolumeClaims."""
        sources = (volume.persistent_volume_claim for volume in self.spec.volumes)
        return tuple(source.claim_name for source in sources if source is not None)

    def problem(self) -> Problem | None:
        """Returns why the pod does not become ready; None when it is ready, ends, or is only starting."""
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
    # Between two crashes it runs for a moment: what it does then is no other state of affairs.
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
