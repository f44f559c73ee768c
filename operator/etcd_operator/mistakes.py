"""The mistakes in the spec of an EtcdCluster, each with its field, its value and a remedy. No I/O."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from etcd_operator.expansion import Expansion
from etcd_operator.model import Problem
from etcd_operator.options import SNAPSHOT_COUNT, overrides_snapshot_count
from etcd_operator.types import (
    BY_FIELD,
    LEAST_QUOTA,
    LEAST_STORAGE,
    MAX_NAME,
    MAX_SIZE,
    NAME_PATTERN,
    PREFIX,
    CompactionMode,
    EtcdClusterSpec,
    PodPolicy,
    StaticTLS,
    UpgradePolicy,
)
from etcd_operator.variables import BY_VALUE, why_reserved
from etcd_operator.versions import NEWEST, Minor, Version, is_downgrade, minors_between, path, unsupported
from etcd_operator.volumes import storage
from pilothouse.api import Quantity

_HOST = r"([a-zA-Z0-9][a-zA-Z0-9._-]*|\[[0-9a-fA-F:]+\])(:[0-9]+)?"
_IMAGE = re.compile(rf"({_HOST}/)?[a-z0-9][a-z0-9._-]*(/[a-z0-9][a-z0-9._-]*)*")
_OBJECT_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
_DURATION = re.compile(r"([0-9]+(h|m|s))+")
# Keys and values of labels, and keys of annotations (apimachinery, util/validation).
_LABEL = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_LABEL_VALUE = re.compile(rf"({_LABEL})?")
_LABEL_KEY = re.compile(rf"([a-z0-9]([-a-z0-9.]{{0,251}}[a-z0-9])?/)?{_LABEL}")
_DOMAIN = re.compile(r"(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)+")

_LEAST_QUOTA = Quantity.parse(LEAST_QUOTA)
_LEAST_VOLUME = Quantity.parse(LEAST_STORAGE)


class Mistake(NamedTuple):
    """A mistake in a spec.

    Attributes:
        field: The field, such as "spec.size".
        value: Its value.
        remedy: What is wrong or what to do, to be read after "spec.size is 0: ".
    """

    field: str
    value: object
    remedy: str

    def __str__(self) -> str:
        if self.value is None:
            return f"{self.field} is not set: {self.remedy}"
        value = repr(self.value) if isinstance(self.value, str) else str(self.value)
        return f"{self.field} is {value}: {self.remedy}"


def in_spec(spec: EtcdClusterSpec, name: str) -> Iterator[Mistake]:
    """Yields the mistakes that the object alone shows.

    Args:
        spec: The spec.
        name: The name of the object.
    """
    if not re.fullmatch(NAME_PATTERN, name):
        yield Mistake(
            "metadata.name",
            name,
            f"create the cluster with a name of at most {MAX_NAME} lower-case letters, digits and hyphens "
            "that begins with a letter",
        )
    if not 1 <= spec.size <= MAX_SIZE:
        yield Mistake("spec.size", spec.size, f"use 1 to {MAX_SIZE} members, for example 3")
    yield from _in_version(spec)
    if spec.repository and not _IMAGE.fullmatch(spec.repository):
        yield Mistake(
            "spec.repository",
            spec.repository,
            "use the name of an image without a tag or digest, for example quay.io/coreos/etcd",
        )
    yield from _in_volume(spec)
    yield from _in_options(spec)
    if spec.tls and spec.tls.static:
        yield from _in_tls(spec.tls.static)
    if spec.pod:
        yield from _in_pod(spec.pod)
        yield from _in_variables(spec, spec.pod)


def in_change(
    before: EtcdClusterSpec | None,
    spec: EtcdClusterSpec,
    current_version: str,
    expansion: Expansion,
    domain: str | None = None,
) -> Iterator[Mistake]:
    """Yields the mistakes of a change to a cluster that exists.

    Args:
        before: The last valid spec. None: it is not known.
        spec: The new spec, which has no mistakes of its own.
        current_version: The version that all members run. Empty: it is not known.
        expansion: What limits the size of the volumes.
        domain: The `ClusterDomain` that is recorded on the volumes, to which a spec can always return. None:
            it is not known.
    """
    current, target = version_of(current_version), version_of(spec.version)
    if current and target:
        yield from _in_upgrade(current, target, spec.upgrade_policy)
    if before is None:
        return
    yield from in_storage_change(before.storage.ephemeral, spec)
    if not before.storage.ephemeral and not spec.storage.ephemeral:
        yield from _in_class_change(before, spec)
        yield from _in_size_change(before, spec, expansion)
    yield from _in_tls_change(before, spec)
    old, new = (each.pod.cluster_domain if each.pod else "" for each in (before, spec))
    if new not in (old, domain):
        yield Mistake(
            "spec.pod.ClusterDomain",
            new,
            f"it cannot be changed, because the members know each other by it. Set it to "
            f"{old if domain is None else domain!r} again",
        )


def in_storage_change(before: bool, spec: EtcdClusterSpec) -> Iterator[Mistake]:
    """Yields the mistake of a change between volumes and emptyDir.

    Args:
        before: Whether the data of the members is in emptyDir.
        spec: The new spec.
    """
    if before != spec.storage.ephemeral:
        yield Mistake(
            "spec.storage.ephemeral",
            str(spec.storage.ephemeral).lower(),
            "it cannot be changed, because the members would lose their data. Change it back, or create "
            "another cluster and copy the data",
        )


def version_of(text: str) -> Version | None:
    """Returns a version as text. None: the text is empty or not a version."""
    try:
        return Version.parse(text)
    except ValueError:
        return None


def ignored_variables(spec: EtcdClusterSpec, version: Version) -> Iterator[Problem]:
    """Yields the variables that a version of etcd does not know any more, and silently ignores."""
    if version.minor < Minor(3, 7):
        return
    for name in _variables(spec):
        if name.startswith("ETCD_EXPERIMENTAL_"):
            yield Problem(
                "IgnoredVariable",
                f"spec.pod.etcdEnv sets {name}, which etcd {version} ignores. Use the variable without "
                "EXPERIMENTAL_, or ETCD_FEATURE_GATES.",
            )


def overridden_variables(spec: EtcdClusterSpec, version: Version) -> Iterator[Problem]:
    """Yields the variables whose values the operator replaces while members run a version."""
    value = _variables(spec).get("ETCD_SNAPSHOT_COUNT", "")
    if overrides_snapshot_count(version) and value not in ("", str(SNAPSHOT_COUNT)):
        yield Problem(
            "OverriddenVariable",
            f"spec.pod.etcdEnv sets ETCD_SNAPSHOT_COUNT to {value}, but the members use {SNAPSHOT_COUNT} "
            f"while they run etcd {version.minor}, so that 3.7 can read their logs. Remove the variable, or "
            "keep it for other versions.",
        )


def _variables(spec: EtcdClusterSpec) -> dict[str, str]:
    """Returns the values of `etcdEnv` by name. A variable with `valueFrom` has an empty one."""
    env = spec.pod.etcd_env if spec.pod else ()
    return {str(each.get("name", "")): str(each.get("value", "")) for each in env}


def _in_version(spec: EtcdClusterSpec) -> Iterator[Mistake]:
    if not spec.version:
        return
    version = version_of(spec.version)
    if version is None:
        yield Mistake("spec.version", spec.version, "use a version of three numbers, for example 3.6.14")
    elif why := unsupported(version):
        yield Mistake("spec.version", spec.version, why)


def _in_upgrade(current: Version, target: Version, policy: UpgradePolicy) -> Iterator[Mistake]:
    if is_downgrade(current, target):
        yield Mistake(
            "spec.version",
            str(target),
            f"the cluster runs {current}, and a downgrade is not supported. Set it to {current}. To go back, "
            "restore a backup into a new cluster",
        )
    elif policy is UpgradePolicy.ONE_MINOR and minors_between(current, target) > 1:
        first = next(each for each in path(current, target) if each.minor > current.minor)
        yield Mistake(
            "spec.version",
            str(target),
            f"the cluster runs {current}, and an upgrade must not skip a minor release. Set it to {first} "
            "first, or set spec.upgradePolicy to Automatic",
        )


def _in_volume(spec: EtcdClusterSpec) -> Iterator[Mistake]:
    claim = spec.pod.persistent_volume_claim_spec if spec.pod else None
    field = "spec.pod.persistentVolumeClaimSpec"
    if claim is None:
        return
    if spec.storage.ephemeral:
        yield Mistake("spec.storage.ephemeral", "true", f"remove it, or remove {field}")
        return
    for name in ("dataSource", "dataSourceRef", "volumeName"):
        if claim.get(name):
            yield Mistake(
                f"{field}.{name}",
                claim[name],
                "remove it: each member needs an empty volume of its own, which it fills from the other "
                "members",
            )
    if claim.get("volumeMode", "Filesystem") != "Filesystem":
        yield Mistake(f"{field}.volumeMode", claim["volumeMode"], "use Filesystem, or remove it")
    modes = claim.get("accessModes") or ["ReadWriteOnce"]
    if not {"ReadWriteOnce", "ReadWriteOncePod", "ReadWriteMany"} & set(modes):
        yield Mistake(f"{field}.accessModes", modes, "use ReadWriteOnce, because etcd writes to its volume")
    asked = ((claim.get("resources") or {}).get("requests") or {}).get("storage")
    if asked is None:
        return
    size = _quantity(asked)
    if size is None or size < _LEAST_VOLUME:
        yield Mistake(
            f"{field}.resources.requests.storage", asked, f"use at least {_LEAST_VOLUME}, for example 8Gi"
        )


def _in_class_change(before: EtcdClusterSpec, spec: EtcdClusterSpec) -> Iterator[Mistake]:
    old, new = _storage_class(before), _storage_class(spec)
    if storage(before) != storage(spec):
        again = f"Set it to {old!r} again" if old is not None else "Remove it"
        yield Mistake(
            "spec.pod.persistentVolumeClaimSpec.storageClassName",
            new,
            f"the class of existing volumes cannot be changed. {again}, or create another cluster and copy "
            "the data",
        )


def _in_size_change(
    before: EtcdClusterSpec, spec: EtcdClusterSpec, expansion: Expansion
) -> Iterator[Mistake]:
    """A size that no volume has reached, because the StorageClass refused it, can be taken back."""
    field, least = "spec.pod.persistentVolumeClaimSpec.resources.requests.storage", before.storage_bytes
    if expansion.largest is not None:
        least = min(least, expansion.largest)
    if spec.storage_bytes < least:
        remedy = f"a volume cannot shrink. Set it to at least {_binary(least)}"
        yield Mistake(field, _binary(spec.storage_bytes), remedy)
    elif expansion.rigid:
        yield Mistake(
            field,
            _binary(spec.storage_bytes),
            f"the StorageClass {expansion.rigid} does not allow volumes to grow. Set it to {_binary(least)} "
            "again, or set allowVolumeExpansion of the StorageClass to true",
        )


def _binary(size: int) -> str:
    return str(Quantity(size * 10**9, "binary"))


def _storage_class(spec: EtcdClusterSpec) -> str | None:
    claim = spec.pod.persistent_volume_claim_spec if spec.pod else None
    return claim.get("storageClassName") if claim else None


def _in_options(spec: EtcdClusterSpec) -> Iterator[Mistake]:
    quota = _quantity(spec.quota_backend_bytes)
    if quota is None or quota.nanos < 0 or (quota.nanos and quota < _LEAST_QUOTA):
        yield Mistake(
            "spec.quotaBackendBytes",
            spec.quota_backend_bytes,
            f"use at least {_LEAST_QUOTA}, for example 8Gi, or 0 for etcd's default",
        )
    compaction = spec.auto_compaction
    if not compaction.retention:
        return
    if compaction.mode is CompactionMode.REVISION:
        valid, example = compaction.retention.isdecimal(), "a number of revisions, for example 1000"
    else:
        valid = bool(_DURATION.fullmatch(compaction.retention)) or compaction.retention.isdecimal()
        example = "a time, for example 30m or 8h"
    if not valid:
        yield Mistake("spec.autoCompaction.retention", compaction.retention, f"use {example}")


def _in_tls(static: StaticTLS) -> Iterator[Mistake]:
    member = static.member
    server, peer = (member.server_secret, member.peer_secret) if member else ("", "")
    if static.operator_secret and not server:
        yield Mistake(
            "spec.TLS.static.member.serverSecret",
            None,
            "set it, because spec.TLS.static.operatorSecret is set: without it, the members do not use TLS",
        )
    if server and not static.operator_secret:
        yield Mistake(
            "spec.TLS.static.operatorSecret",
            None,
            "set it, because spec.TLS.static.member.serverSecret is set: without it, the operator cannot "
            "connect to the members",
        )
    for field, value in (
        ("spec.TLS.static.operatorSecret", static.operator_secret),
        ("spec.TLS.static.member.serverSecret", server),
        ("spec.TLS.static.member.peerSecret", peer),
    ):
        yield from _in_object_name(field, value, "a Secret")


def _in_tls_change(before: EtcdClusterSpec, spec: EtcdClusterSpec) -> Iterator[Mistake]:
    for field, what, old, new in (
        ("spec.TLS.static.operatorSecret", "of clients", before.client_tls, spec.client_tls),
        ("spec.TLS.static.member.peerSecret", "between members", before.peer_tls, spec.peer_tls),
    ):
        if bool(old) == bool(new):
            continue
        verb, undo = ("on", "Remove it") if new else ("off", f"Set it to {old!r} again")
        yield Mistake(
            field,
            new or None,
            f"TLS for the connections {what} cannot be turned {verb} while the cluster runs, because members "
            f"could no longer connect. {undo}, or create another cluster and copy the data",
        )


def _in_pod(pod: PodPolicy) -> Iterator[Mistake]:
    for field, pairs in (("labels", pod.labels), ("nodeSelector", pod.node_selector)):
        yield from _in_labels(f"spec.pod.{field}", pairs)
    yield from _in_keys("spec.pod.annotations", pod.annotations)
    for key, value in pod.labels.items():
        if key == "app" or key.startswith(("etcd_", PREFIX)):
            yield Mistake(f"spec.pod.labels[{key}]", value, "remove it: the label is reserved")
    for key, value in pod.annotations.items():
        if key == "etcd.version" or key.startswith(PREFIX):
            yield Mistake(f"spec.pod.annotations[{key}]", value, "remove it: the annotation is reserved")
    if pod.cluster_domain and not _DOMAIN.fullmatch(pod.cluster_domain):
        yield Mistake(
            "spec.pod.ClusterDomain",
            pod.cluster_domain,
            "use a DNS name with a leading dot, for example .cluster.local",
        )
    yield from _in_object_name("spec.pod.priorityClassName", pod.priority_class_name, "a PriorityClass")
    yield from _in_object_name("spec.pod.serviceAccountName", pod.service_account_name, "a ServiceAccount")
    yield from _in_resources(pod.resources)


def _in_labels(field: str, pairs: Mapping[str, str]) -> Iterator[Mistake]:
    yield from _in_keys(field, pairs)
    for key, value in pairs.items():
        if not _LABEL_VALUE.fullmatch(value):
            yield Mistake(
                f"{field}[{key}]", value, "use at most 63 letters, digits, hyphens, underscores and dots"
            )


def _in_keys(field: str, pairs: Mapping[str, str]) -> Iterator[Mistake]:
    for key in pairs:
        if not _LABEL_KEY.fullmatch(key):
            yield Mistake(field, key, "use a key such as example.com/team")


def _in_resources(resources: Mapping[str, Any]) -> Iterator[Mistake]:
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    negative = [
        Mistake(f"spec.pod.resources.{field}[{name}]", value, "use 0 or more")
        for field, values in (("limits", limits), ("requests", requests))
        for name, value in values.items()
        if (amount := _quantity(value)) is not None and amount < Quantity.parse("0")
    ]
    if negative:
        yield from negative
        return
    for name, asked in requests.items():
        if name not in limits:
            continue
        least, most = _quantity(asked), _quantity(limits[name])
        if least is not None and most is not None and least > most:
            yield Mistake(
                f"spec.pod.resources.requests[{name}]",
                asked,
                f"it is above the limit of {limits[name]}. Lower it, or raise the limit",
            )


def _in_variables(spec: EtcdClusterSpec, pod: PodPolicy) -> Iterator[Mistake]:
    version, seen = version_of(spec.version), set[str]()
    for index, variable in enumerate(pod.etcd_env):
        name = str(variable.get("name", ""))
        field = f"spec.pod.etcdEnv[{index}].name"
        if not name or "=" in name:
            yield Mistake(
                field, name, "use the name of an environment variable, for example ETCD_HEARTBEAT_INTERVAL"
            )
        elif name in seen:
            yield Mistake(field, name, "remove it: the variable is set twice")
        elif why := why_reserved(name):
            yield Mistake(field, name, f"remove it: {why}")
        elif name == "ETCD_ENABLE_V2" and (version is None or version.minor > min(NEWEST)):
            yield Mistake(field, name, "remove it: etcd 3.6 and later have no v2 API")
        elif (other := BY_FIELD.get(name)) and _is_set(spec, other):
            yield Mistake(field, name, f"remove it, or remove {other}, which sets the same option")
        elif name in BY_VALUE:
            yield from _in_option(f"spec.pod.etcdEnv[{index}]", name, variable)
        seen.add(name)


def _in_option(field: str, name: str, variable: Mapping[str, Any]) -> Iterator[Mistake]:
    """Yields the mistake of an option that the operator writes to an annotation, where nothing expands it."""
    why = f"the operator passes {name} on for each version of etcd, so it needs the value itself"
    if variable.get("valueFrom"):
        yield Mistake(f"{field}.valueFrom", variable["valueFrom"], f"remove it, and set value: {why}")
    elif "$(" in (value := str(variable.get("value", ""))):
        yield Mistake(f"{field}.value", value, f"write the value without references: {why}")


def _is_set(spec: EtcdClusterSpec, field: str) -> bool:
    if field == "spec.quotaBackendBytes":
        return str(spec.quota_backend_bytes) != "0"
    return bool(spec.auto_compaction.retention)


def _in_object_name(field: str, name: str, what: str) -> Iterator[Mistake]:
    if name and (len(name) > 253 or not _OBJECT_NAME.fullmatch(name)):
        yield Mistake(field, name, f"use the name of {what}: lower-case letters, digits, hyphens and dots")


def _quantity(text: Any) -> Quantity | None:
    try:
        return Quantity.parse(text)
    except ValueError:
        return None
