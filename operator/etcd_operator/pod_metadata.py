"""The annotations and labels of a member's pod, and the merge patches (RFC 7386) that change them.

`states` reads them again.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from etcd_operator.blueprint import PEER_PORT, SERVING, InitialCluster
from etcd_operator.model import Configuration
from etcd_operator.options import option_annotations
from etcd_operator.types import PREFIX, EtcdClusterSpec, PodPolicy
from etcd_operator.views import ContainerStatus, LivePod, PodStatus

CONTAINER = "etcd"
VERSION = "etcd.version"
"""The annotation of the coreos operator that has the version."""

IMAGE = f"{PREFIX}image"
"""The annotation with the image that the operator asked for. A webhook may have replaced it in the spec."""

PATCHED = f"{PREFIX}patched-container"
"""The annotation with the ID of the container that ran when the image was patched, and with its image."""

SHAPE = f"{PREFIX}shape"
INITIAL_CLUSTER = f"{PREFIX}initial-cluster"
INITIAL_STATE = f"{PREFIX}initial-cluster-state"
USER_LABELS = f"{PREFIX}user-labels"
"""The annotation with the keys of the labels that come from the spec, to remove them later."""
USER_ANNOTATIONS = f"{PREFIX}user-annotations"

POISON = f"the-volume-must-not-be-empty=http://poison.invalid:{PEER_PORT}"
"""An initial cluster without the member itself. On an empty volume etcd refuses to start with it."""


def flip() -> dict[str, Any]:
    """Returns the patch that configures a pod as POISONED."""
    return _annotated(configured(Configuration.POISONED, ()))


def rejoin(initial_cluster: InitialCluster) -> dict[str, Any]:
    """Returns the patch that configures a pod as JOINING, with the members of `Blueprint.joining`."""
    return _annotated(configured(Configuration.JOINING, initial_cluster))


def serve() -> dict[str, Any]:
    """Returns the patch that adds a pod to the client Service."""
    return {"metadata": {"labels": {SERVING: "true"}}}


def unserve() -> dict[str, Any]:
    """Returns the patch that removes a pod from the client Service."""
    return {"metadata": {"labels": {SERVING: None}}}


def patch_image(spec: EtcdClusterSpec, live: LivePod, version: str, image: str) -> dict[str, Any]:
    """Returns the patch of the image, and of the annotations that belong to the version.

    A merge patch replaces the whole list of containers, so the others are repeated as they are.

    Args:
        spec: The valid spec.
        live: The pod, as the API server has it now.
        version: The version of the image.
        image: The image.
    """
    containers = [
        {**each, "image": image} if each.get("name") == CONTAINER else each for each in live.spec.containers
    ]
    before = next(
        (each.get("image", "") for each in live.spec.containers if each.get("name") == CONTAINER), ""
    )
    patched = f"{_container_id(live.status)} {before}"
    annotations = {**version_annotations(spec, version, image), PATCHED: patched}
    return {**_annotated(annotations), "spec": {"containers": containers}}


def awaits_restart(annotations: Mapping[str, str], status: PodStatus, image: str) -> bool:
    """Returns whether the image was patched, and the kubelet has not replaced the container yet.

    Args:
        annotations: The pod's annotations.
        status: The pod's status.
        image: The image in the pod's spec. If the patch has not changed it, nothing restarts.
    """
    container, _, before = annotations.get(PATCHED, "").partition(" ")
    return container != "" and container == _container_id(status) and before != image


def container_status(status: PodStatus) -> ContainerStatus | None:
    """Returns the status of the container of etcd. None: the kubelet has not reported one yet."""
    return next((each for each in status.container_statuses if each.name == CONTAINER), None)


def _container_id(status: PodStatus) -> str:
    """Returns the ID of the container of etcd. Empty: the kubelet has not created one yet."""
    container = container_status(status)
    return container.container_id if container else ""


def decorate(
    labels: Mapping[str, str],
    annotations: Mapping[str, str],
    spec: EtcdClusterSpec,
    own: Mapping[str, str],
) -> dict[str, Any]:
    """Returns the patch that brings its labels, and the annotations of the spec, to a running pod.

    Args:
        labels: The pod's labels.
        annotations: The pod's annotations.
        spec: The valid spec.
        own: The labels of the operator, by which the Services select the pod.

    Returns:
        The patch. Empty: nothing differs.
    """
    pod = spec.pod or PodPolicy()
    wanted_annotations = user_annotations(pod)
    wanted_labels = {**user_labels(pod), **own}
    gone_labels = {*_keys(annotations.get(USER_LABELS, ""))} - wanted_labels.keys()
    gone_annotations = {*_keys(annotations.get(USER_ANNOTATIONS, ""))} - wanted_annotations.keys()
    changed = {
        "labels": _changes(labels, wanted_labels, gone_labels),
        "annotations": _changes(annotations, wanted_annotations, gone_annotations),
    }
    metadata = {key: value for key, value in changed.items() if value}
    return {"metadata": metadata} if metadata else {}


def version_annotations(spec: EtcdClusterSpec, version: str, image: str) -> dict[str, str]:
    """Returns the annotations that belong to an image and its version; see `option_annotations`."""
    return {VERSION: version, IMAGE: image, **option_annotations(spec, version)}


def _changes(
    current: Mapping[str, str], wanted: Mapping[str, str], gone: Iterable[str]
) -> dict[str, str | None]:
    changes: dict[str, str | None] = {key: None for key in sorted(gone) if key in current}
    changes |= {key: value for key, value in wanted.items() if current.get(key) != value}
    return changes


def _annotated(annotations: Mapping[str, str]) -> dict[str, Any]:
    return {"metadata": {"annotations": dict(annotations)}}


def configured(configuration: Configuration, members: InitialCluster) -> dict[str, str]:
    """Returns the annotations of a configuration. POISONED has no members."""
    if configuration is Configuration.POISONED:
        return {INITIAL_STATE: "existing", INITIAL_CLUSTER: POISON}
    state = "new" if configuration is Configuration.FOUNDING else "existing"
    return {INITIAL_STATE: state, INITIAL_CLUSTER: ",".join(f"{name}={url}" for name, url in members)}


def user_labels(pod: PodPolicy) -> dict[str, str]:
    """Returns the labels of the spec."""
    reserved = ("etcd_", PREFIX)
    return {key: pod.labels[key] for key in pod.labels if key != "app" and not key.startswith(reserved)}


def user_annotations(pod: PodPolicy) -> dict[str, str]:
    """Returns the annotations of the spec, and those that record which keys come from the spec."""
    users = {
        key: value for key, value in pod.annotations.items() if key != VERSION and not key.startswith(PREFIX)
    }
    return {
        **users,
        USER_LABELS: ",".join(sorted(user_labels(pod))),
        USER_ANNOTATIONS: ",".join(sorted(users)),
    }


def _keys(text: str) -> Iterator[str]:
    return (each for each in text.split(",") if each)
