"""The hash of what shapes a pod in a spec, and the image."""

import json
from hashlib import sha256

import msgspec

from etcd_operator.types import DEFAULT_REPOSITORY, EtcdClusterSpec, PodPolicy
from pilothouse.api import Quantity

# Fields of `pod` that are patched in place, belong to the volume, or are ignored.
_WITHOUT_EFFECT = (
    "labels",
    "annotations",
    "persistentVolumeClaimSpec",
    "busyboxImage",
    "DNSTimeoutInSecond",
)


def shape(spec: EtcdClusterSpec) -> str:
    """Returns the hash of the inputs that shape a pod. If it changes, the pod must be created again.

    It contains the image's repository and not its version, which is patched in place. The manifest is not
    hashed, so another release of the operator restarts nothing. For the same reason, a new field of the spec
    must not count while it has its default.
    """
    inputs = {
        "repository": spec.repository or DEFAULT_REPOSITORY,
        "pod": _pod(spec.pod or PodPolicy()),
        "tls": msgspec.to_builtins(spec.tls.static) if spec.tls and spec.tls.static else {},
        "quota": quota(spec),
        "compaction": msgspec.to_builtins(spec.auto_compaction),
        "ephemeral": spec.storage.ephemeral,
    }
    filled = {key: value for key, value in inputs.items() if value}
    return sha256(json.dumps(filled, sort_keys=True).encode()).hexdigest()[:16]


def quota(spec: EtcdClusterSpec) -> int:
    """Returns the largest size of the database in bytes. 0: etcd's default."""
    return int(Quantity.parse(spec.quota_backend_bytes))


def image_of(spec: EtcdClusterSpec, version: str) -> str:
    """Returns the image of a version, with a tag."""
    return f"{spec.repository or DEFAULT_REPOSITORY}:v{version}"


def _pod(pod: PodPolicy) -> dict[str, object]:
    fields: dict[str, object] = msgspec.to_builtins(pod)
    return {key: value for key, value in fields.items() if key not in _WITHOUT_EFFECT}
