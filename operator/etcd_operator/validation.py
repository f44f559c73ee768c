"""Decides which spec is in force: the object's own if it is valid, otherwise the last valid one. No I/O.

The CRD's rules refuse most mistakes, but not those of an object that was stored under another CRD, and not
those that depend on what runs.
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from etcd_operator import mistakes
from etcd_operator.expansion import Expansion
from etcd_operator.mistakes import Mistake
from etcd_operator.model import Desired, Problem, Record
from etcd_operator.shape import image_of, shape
from etcd_operator.types import (
    MAX_SIZE,
    EtcdCluster,
    EtcdClusterSpec,
    EtcdClusterStatus,
    Retention,
    UpgradePolicy,
)
from etcd_operator.versions import DEFAULT, NEWEST, Version, defect
from etcd_operator.volumes import EPHEMERAL, storage
from pilothouse.api import Quantity

# etcd's documentation suggests at most 8 GiB.
_LARGE_QUOTA = Quantity.parse("8Gi")


class Verdict(msgspec.Struct, frozen=True):
    """What is in force for an EtcdCluster.

    Attributes:
        desired: What the operator works towards. None: no valid spec is known, so it does nothing.
        spec: The spec that `desired` was made from, for what the plan does not decide, such as labels.
        mistakes: The mistakes in the object's spec. Empty: it is in force.
        warnings: What is accepted although it is not advisable.
        last_valid_spec: What to store in `status.lastValidSpec`.
    """

    desired: Desired | None
    spec: EtcdClusterSpec | None
    mistakes: tuple[Mistake | str, ...]
    warnings: tuple[Problem, ...]
    last_valid_spec: dict[str, Any]


def judge(
    cluster: EtcdCluster,
    record: Record,
    expansion: Expansion = Expansion(),  # noqa: B008
    domain: str | None = None,
    *,
    refusal: str = "",
) -> Verdict:
    """Returns what is in force for a cluster.

    Before `record.founded`, every valid spec is accepted, but a founding that has begun keeps its data where
    it is. Afterwards, it must also be reachable from the last valid one.

    Args:
        cluster: The object.
        record: The record in its status.
        expansion: What limits the size of its volumes.
        domain: The `ClusterDomain` that is recorded on its volumes. None: it is not known.
        refusal: Why the API server refuses pods of its spec, without the last full stop. "": it does not, or
            was not asked.
    """
    spec, status = cluster.spec, cluster.status
    before = last_valid_spec(status)
    found: list[Mistake | str] = [*mistakes.in_spec(spec, cluster.metadata.name)]
    if not found and record.founded:
        found += mistakes.in_change(before, spec, status.current_version, expansion, domain)
    elif not found and record.founding:
        found += mistakes.in_storage_change(record.founding.storage == EPHEMERAL, spec)
    if refusal:
        found.append(refusal)
    if not found:
        return Verdict(
            desired(spec, record, status.current_version),
            spec,
            (),
            tuple(_warnings(spec, record, status.current_version)),
            _encoded(spec),
        )
    if before is None:
        return Verdict(None, None, tuple(found), (), status.last_valid_spec)
    kept = _retained(before, spec)
    last = status.last_valid_spec if kept == before else _encoded(kept)
    # The user can pause the cluster although the spec has a mistake.
    before = msgspec.structs.replace(kept, paused=spec.paused)
    return Verdict(
        desired(before, record, status.current_version),
        before,
        tuple(found),
        tuple(_warnings(before, record, status.current_version)),
        last,
    )


def _retained(before: EtcdClusterSpec, spec: EtcdClusterSpec) -> EtcdClusterSpec:
    """Returns the last valid spec, with Retain where a spec with a mistake says so.

    Retain takes effect immediately, because a delay can lose data. Delete needs a valid spec.
    """
    asked, storage = spec.storage, before.storage
    if asked.when_deleted is Retention.RETAIN:
        storage = msgspec.structs.replace(storage, when_deleted=Retention.RETAIN)
    if asked.when_scaled is Retention.RETAIN:
        storage = msgspec.structs.replace(storage, when_scaled=Retention.RETAIN)
    return msgspec.structs.replace(before, storage=storage)


def last_valid_spec(status: EtcdClusterStatus) -> EtcdClusterSpec | None:
    """Returns the last valid spec in a status. None: there is none, or a user has damaged it.

    A spec stays in force although it would be a mistake for this release of the operator, for example because
    its version is no longer supported: otherwise nothing would heal the cluster.
    """
    if not status.last_valid_spec:
        return None
    try:
        spec = msgspec.convert(status.last_valid_spec, EtcdClusterSpec)
        if spec.version:
            Version.parse(spec.version)
        shape(spec)
        return spec if 1 <= spec.size <= MAX_SIZE and spec.storage_bytes > 0 else None
    except ValueError:  # also msgspec.ValidationError
        return None


def desired(spec: EtcdClusterSpec, record: Record, current_version: str) -> Desired:
    """Returns what the operator works towards, for a valid spec.

    Args:
        spec: The spec.
        record: The record in the status.
        current_version: `status.currentVersion`, the version that all members run.
    """
    version = chosen_version(spec, record, current_version)
    return Desired(
        size=spec.size,
        version=str(version),
        pinned=bool(spec.version),
        image=image_of(spec, str(version)),
        shape=shape(spec),
        storage=storage(spec),
        ephemeral=spec.storage.ephemeral,
        delete_scaled=spec.storage.when_scaled is Retention.DELETE,
        scheme=scheme(spec),
        domain=spec.pod.cluster_domain if spec.pod else "",
        automatic=spec.upgrade_policy is UpgradePolicy.AUTOMATIC,
        paused=spec.paused,
    )


def chosen_version(spec: EtcdClusterSpec, record: Record, current_version: str) -> Version:
    """Returns the version of a spec, or if it has none, the one that was chosen or that runs.

    So removing the version from a spec, or a new release of the operator, never upgrades a cluster.
    """
    if spec.version:
        return Version.parse(spec.version)
    known = [current_version if record.founded else "", record.version]
    # Of one release, the version that runs comes first.
    return max(filter(None, map(mistakes.version_of, known)), key=lambda each: each.age, default=DEFAULT)


def scheme(spec: EtcdClusterSpec) -> str:
    """Returns the schemes of the connections between members and of clients, such as "https/http"."""
    peer, client = ("https" if secret else "http" for secret in (spec.peer_tls, spec.client_tls))
    return f"{peer}/{client}"


def _warnings(spec: EtcdClusterSpec, record: Record, current_version: str) -> Iterator[Problem]:
    version = chosen_version(spec, record, current_version)
    if found := defect(version):
        newest = NEWEST.get(version.minor, DEFAULT)
        yield Problem(
            "KnownDefect",
            f"etcd {version} has a known defect: {found.what}. Set spec.version to {newest}.",
        )
    if spec.size % 2 == 0:
        yield Problem(
            "EvenSize",
            f"spec.size is {spec.size}: the cluster tolerates no more failures than with {spec.size - 1}. "
            f"Set it to {spec.size - 1} or {spec.size + 1}.",
        )
    if spec.storage.ephemeral:
        yield Problem(
            "EphemeralStorage",
            "spec.storage.ephemeral is true: a member loses its data with its pod, and the data of the "
            "cluster is lost with a majority of its pods.",
        )
    quota = Quantity.parse(spec.quota_backend_bytes)
    if quota > _LARGE_QUOTA:
        yield Problem(
            "LargeQuota",
            f"spec.quotaBackendBytes is {spec.quota_backend_bytes}: etcd is tested with up to 8Gi. Larger "
            "databases start slowly, and their members take longer to be replaced.",
        )
    if not spec.storage.ephemeral and quota.nanos and int(quota) >= spec.storage_bytes:
        yield Problem(
            "QuotaExceedsVolume",
            f"spec.quotaBackendBytes is {spec.quota_backend_bytes}, but each volume requests only "
            f"{Quantity(spec.storage_bytes * 10**9, 'binary')}: the volume can become full before etcd "
            "refuses writes. Lower the quota, or request more storage.",
        )
    yield from mistakes.ignored_variables(spec, version)
    yield from mistakes.overridden_variables(spec, version)


def _encoded(spec: EtcdClusterSpec) -> dict[str, Any]:
    """Returns a spec as JSON values, without the fields that have their defaults."""
    written: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(spec))
    return written
