"""Reads the pods of a cluster: what `pod_metadata` wrote, and what the kubelet and the scheduler report."""

import re
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from etcd_operator.blueprint import SERVING, Blueprint
from etcd_operator.labels import lacks_label
from etcd_operator.model import Configuration, Failure, PodState, Signal
from etcd_operator.pod_metadata import (
    CONTAINER,
    IMAGE,
    INITIAL_CLUSTER,
    INITIAL_STATE,
    SHAPE,
    VERSION,
    awaits_restart,
    container_status,
)
from etcd_operator.types import ETCD_CLUSTER
from etcd_operator.views import ContainerStatus, EndpointSlice, Node, Pod, condition, has_ended
from pilothouse.views import ContainerTerminated

# etcd: hasLocalMember in server/config/config.go. It is about an empty volume, because etcd checks the
# initial cluster only if there is no write-ahead log.
_REFUSED_EMPTY = "couldn't find local name"

# etcd: bootstrapExistingClusterNoWAL in server/etcdserver/bootstrap.go. The members have answered, and their
# list is not that of the pod's initial cluster.
_UNLISTED = "error validating peerURLs"

# How the last lines of etcd's log look if its data is damaged. The kubelet keeps 2 KiB of them, which can be
# less than the stack of a panic. The first two lines are about the write-ahead log: without it, 3.5 and 3.6
# have no ID of the member, and 3.7 has no metadata. The third is about snapshots and the database.
_DAMAGED = re.compile(
    r"crc mismatch|max entry size limit|raft log corrupted"
    r"|panic: cannot use none as id|nil pointer dereference[^{}]*?etcdserver\.bootstrap\("
    r"|failed to recover v3 backend|bbolt\.\(\*(DB\)\.freepages|Tx\)\.)|bbolt/internal/common\.\(\*Page\)\."
)

# How long a pod may be unscheduled, or may wait for its volume, before that is a failure. A new local volume
# takes 3 to 4 s.
PENDING_GRACE: Final = timedelta(seconds=20)

HELD_GRACE: Final = timedelta(seconds=10)
"""How long finalizers may keep a pod that has ended, before that is a problem."""

# Between two crashes a container runs for a moment. One that has run longer is starting slowly.
_MOMENT = timedelta(seconds=60)

# The reasons of a waiting container that is still starting (pkg/kubelet/kubelet_pods.go).
_STARTING = ("", "ContainerCreating", "PodInitializing")
_BACK_OFF = "CrashLoopBackOff"

# The reasons that are about the image (pkg/kubelet/images/types.go and k8s.io/cri-api/pkg/errors). The
# others are about the rest of the container, such as a missing Secret of a variable.
_IMAGE = (
    "ErrImagePull",
    "ImagePullBackOff",
    "ImageInspectError",
    "ErrImageNeverPull",
    "InvalidImageName",
    "RegistryUnavailable",
    "SignatureValidationFailed",
)

# The kubelet alternates between these while it retries. A condition must not alternate.
_PULL_ERROR = re.compile(r'^Back-off pulling image "[^"]*"(: ErrImagePull: )?')


class _Trouble(NamedTuple):
    failure: Failure
    since: datetime | None
    detail: str
    damaged: bool = False


def pod_state(
    blueprint: Blueprint,
    pod: Pod,
    images: Callable[[str], str],
    *,
    now: datetime,
    addressed: bool = False,
    node: Signal = Signal.HEALTHY,
) -> PodState:
    """Returns the state of a pod.

    Args:
        blueprint: The cluster.
        pod: The pod.
        images: Returns the operator's image of a version.
        now: The current time.
        addressed: Whether its address is in the EndpointSlice; see `addressed_uids`.
        node: The state of its node; see `node_signal`.
    """
    metadata = pod.metadata
    deleting = metadata.deletion_timestamp is not None
    trouble = None if deleting else _trouble(pod, now)
    image, version, asked = _image(pod), _version(pod), metadata.annotations.get(IMAGE, "")
    return PodState(
        name=metadata.name,
        uid=metadata.uid,
        owner=_owner(pod),
        image=image,
        version=version,
        other_image=asked not in ("", images(version)),
        patched=awaits_restart(metadata.annotations, pod.status, image),
        shape=metadata.annotations.get(SHAPE, ""),
        configuration=_configuration(pod),
        peers=_peers(blueprint, pod),
        serving=metadata.labels.get(SERVING) == "true" and not lacks_label(metadata, blueprint.name),
        addressed=addressed,
        ran=_ran(pod),
        ready=condition(pod.status.conditions, "Ready").status == "True",
        deleting=deleting,
        held=_held(pod, now),
        unlisted=_unlisted(pod),
        failure=trouble.failure if trouble else None,
        damaged=trouble is not None and trouble.damaged,
        failing_since=trouble.since if trouble else None,
        created=metadata.creation_timestamp,
        first_start=_first_start(pod),
        unready_since=unready_since(pod),
        detail=trouble.detail if trouble else "",
        node=node,
        node_name=pod.spec.node_name,
        unlabelled=lacks_label(metadata, blueprint.name),
    )


def _held(pod: Pod, now: datetime) -> tuple[str, ...]:
    """Returns the finalizers of a Terminating pod of which the kubelet has nothing left to stop."""
    since = unready_since(pod)
    stopped = has_ended(pod) or not pod.spec.node_name
    if pod.metadata.deletion_timestamp is None or not stopped or since is None or now - since < HELD_GRACE:
        return ()
    return pod.metadata.finalizers


def addressed_uids(slices: Iterable[EndpointSlice]) -> frozenset[str]:
    """Returns the UIDs of the pods whose addresses are in the slices of the headless Service."""
    return frozenset(
        endpoint.target_ref.uid
        for each in slices
        for endpoint in each.endpoints or ()
        if endpoint.addresses and endpoint.target_ref and endpoint.target_ref.kind == "Pod"
    )


def node_signal(node: Node | None) -> Signal:
    """Returns the state of a node. None: the operator cannot read it.

    A node whose condition Ready is Unknown does not report. Its containers may run.
    """
    status = condition(node.status.conditions, "Ready").status if node else ""
    return {"True": Signal.HEALTHY, "False": Signal.UNHEALTHY}.get(status, Signal.UNKNOWN)


def _owner(pod: Pod) -> str:
    kind = ETCD_CLUSTER.resource.kind
    owners = (each for each in pod.metadata.owner_references if each.controller and each.kind == kind)
    return next((each.uid for each in owners), "")


def _image(pod: Pod) -> str:
    return next((each.image for each in pod.spec.containers if each.name == CONTAINER), "")


def _version(pod: Pod) -> str:
    """Returns the annotation that is patched together with the image, unless the image has another tag.

    An image of the operator's settings may have any tag, or a digest alone. A webhook may replace the
    registry.
    """
    annotations = pod.metadata.annotations
    tag, asked = _tag(_image(pod)), _tag(annotations.get(IMAGE, ""))
    annotated = annotations.get(VERSION, "")
    return annotated if annotated and tag in ("", asked) else tag.lstrip("v")


def _tag(image: str) -> str:
    """Returns the tag of an image. Empty: it has none."""
    name, _, tag = image.partition("@")[0].rpartition(":")
    return tag if name and "/" not in tag else ""


def _configuration(pod: Pod) -> Configuration:
    """Returns what the annotations configure.

    If they are missing, etcd refuses to start. JOINING makes the plan write them again.
    """
    annotations = pod.metadata.annotations
    members = _members(pod)
    if members and pod.metadata.name not in members:
        return Configuration.POISONED
    if members and annotations.get(INITIAL_STATE) == "new":
        return Configuration.FOUNDING
    return Configuration.JOINING


def _members(pod: Pod) -> dict[str, str]:
    """Returns the peer URLs in the annotation by the members' names."""
    text = pod.metadata.annotations.get(INITIAL_CLUSTER, "")
    pairs = (each.partition("=") for each in text.split(",") if each)
    return {name: url for name, _, url in pairs}


def _peers(blueprint: Blueprint, pod: Pod) -> frozenset[str]:
    return frozenset(blueprint.seat(url) for url in _members(pod).values())


def _ran(pod: Pod) -> bool:
    """Whether etcd may have run: not if it has no node, or if the kubelet reports that none has started."""
    if not pod.spec.node_name:
        return False
    container = container_status(pod.status)
    if container is None:
        return True
    waits = container.state.waiting is not None and container.last_state.terminated is None
    return not (waits and container.restart_count == 0 and not container.container_id)


def _first_start(pod: Pod) -> datetime | None:
    container = container_status(pod.status)
    if container is None or container.restart_count or container.state.running is None:
        return None
    return container.state.running.started_at


def _unlisted(pod: Pod) -> bool:
    container = container_status(pod.status)
    last = container.last_state.terminated if container and _backs_off(container) else None
    return last is not None and _UNLISTED in last.message


def _backs_off(container: ContainerStatus) -> bool:
    """Whether the kubelet delays the next start of a container that has exited."""
    return container.state.waiting is not None and container.state.waiting.reason == _BACK_OFF


def _trouble(pod: Pod, now: datetime) -> _Trouble | None:
    container = container_status(pod.status)
    if has_ended(pod):
        return _Trouble(Failure.ENDED, unready_since(pod), _end(pod))
    if condition(pod.status.conditions, "Ready").status == "True":
        return None
    if container is None or not _ran(pod):
        return _not_created(pod, container, now)
    waiting = container.state.waiting
    if waiting and waiting.reason not in (*_STARTING, _BACK_OFF):
        return _refused_container(pod, waiting.reason, waiting.message)
    return _crashed(pod, container, now)


def _end(pod: Pod) -> str:
    """Returns why the pod has ended, such as `Evicted: The node was low on resource: memory`."""
    words = [each.rstrip(" .") for each in (pod.status.reason, pod.status.message) if each]
    return ": ".join(words) or f"its phase is {pod.status.phase}"


def _not_created(pod: Pod, container: ContainerStatus | None, now: datetime) -> _Trouble | None:
    waiting = container.state.waiting if container else None
    if waiting and waiting.reason not in _STARTING:
        return _refused_container(pod, waiting.reason, waiting.message)
    scheduled = condition(pod.status.conditions, "PodScheduled")
    since = scheduled.last_transition_time or pod.metadata.creation_timestamp
    if since is not None and now - since < PENDING_GRACE:
        return None
    detail = "its volumes are not mounted, or its network is not ready; see `kubectl describe pod`"
    if not pod.spec.node_name:
        detail = scheduled.message or "it is not scheduled"
    return _Trouble(Failure.PENDING, since, detail)


def _refused_container(pod: Pod, reason: str, message: str) -> _Trouble:
    reason = "ImagePullBackOff" if reason == "ErrImagePull" else reason
    message = _PULL_ERROR.sub("", message)
    failure = Failure.IMAGE if reason in _IMAGE else Failure.CONTAINER
    return _Trouble(failure, unready_since(pod), f"{reason}: {message}" if message else reason)


def _crashed(pod: Pod, container: ContainerStatus, now: datetime) -> _Trouble | None:
    last = container.state.terminated or container.last_state.terminated
    running = container.state.running
    if last is None or (running and (running.started_at is None or now - running.started_at > _MOMENT)):
        return None
    since = unready_since(pod)
    if not last.exit_code and _lacks_image(pod, container):
        detail = (
            f"the kubelet could not start the image {_image(pod)}, and waits before it retries; see `kubectl "
            "describe pod`"
        )
        return _Trouble(Failure.IMAGE, since, detail)
    if _REFUSED_EMPTY in last.message:
        return _Trouble(Failure.REFUSED_EMPTY, since, "etcd refuses to start, because its volume is empty")
    if _backs_off(container) or (last.exit_code and container.restart_count > 1):
        return _Trouble(Failure.CRASH, since, _exit(pod, last), names_damage(last.message))
    return None


def _lacks_image(pod: Pod, container: ContainerStatus) -> bool:
    """Whether the kubelet has stopped the container for a patched image, and delays the start of that image.

    It delays a start only after it has tried one: it counts the delays of each image separately (doBackOff in
    pkg/kubelet/kuberuntime). So the first start of the image has failed.
    """
    return _backs_off(container) and awaits_restart(pod.metadata.annotations, pod.status, _image(pod))


def names_damage(words: str) -> bool:
    """Whether the last lines of etcd's log show that its data is damaged.

    The spec cannot be the reason then. If they show something else, the data can be damaged nevertheless.
    """
    return bool(_DAMAGED.search(words))


def _exit(pod: Pod, last: ContainerTerminated) -> str:
    log = f"kubectl logs -n {pod.metadata.namespace} {pod.metadata.name} --previous"
    return f"etcd exits with code {last.exit_code} ({last.reason or 'Error'}); its log: {log}"


def unready_since(pod: Pod) -> datetime | None:
    """Returns since when a pod is not Ready. None: it is Ready."""
    ready = condition(pod.status.conditions, "Ready")
    if ready.status == "True":
        return None
    return ready.last_transition_time or pod.metadata.creation_timestamp
