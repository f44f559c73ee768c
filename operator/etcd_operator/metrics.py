"""The metrics of each EtcdCluster."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field

from prometheus_client import Counter, Gauge

from etcd_operator.model import Decision, Observation
from etcd_operator.seats import Cluster
from pilothouse import ObjectKey
from pilothouse.telemetry import REGISTRY

_LABELS = ("namespace", "name")


def _gauge(name: str, text: str, *labels: str) -> Gauge:
    return Gauge(name, text, (*_LABELS, *labels), registry=REGISTRY)


MEMBERS = _gauge("etcd_cluster_members", "Voters of an EtcdCluster, as etcd lists them.")
READY = _gauge("etcd_cluster_members_ready", "Voters of an EtcdCluster that serve.")
HAS_LEADER = _gauge("etcd_cluster_has_leader", "1 if the members of an EtcdCluster have a leader, else 0.")
LEADER_CHANGES = Counter(
    "etcd_cluster_leader_changes_total",
    "Changes of the leader of an EtcdCluster that this process of the operator has seen.",
    _LABELS,
    registry=REGISTRY,
)
DB_SIZE = _gauge("etcd_cluster_db_size_bytes", "Size of the largest database of a member, in bytes.")
STEP = _gauge("etcd_cluster_step_seconds", "Duration of the last step, by its reason, in seconds.", "reason")
_SIMPLE = (MEMBERS, READY, HAS_LEADER, LEADER_CHANGES, DB_SIZE)


@dataclass
class _Known:
    """What the process remembers about a cluster between two reconciles."""

    leader: int = 0
    reason: str = ""
    since: float = field(default_factory=lambda: asyncio.get_running_loop().time())
    shown: str = ""


class ClusterMetrics:
    """Sets the metrics of the clusters that exist."""

    def __init__(self) -> None:
        self._known: dict[ObjectKey, _Known] = {}

    def note(self, key: ObjectKey, observation: Observation, decision: Decision) -> None:
        """Sets the metrics of a cluster after an observation."""
        cluster, known = Cluster(observation), self._known.setdefault(key, _Known())
        self._note_leader(key, known, cluster.leader_id)
        self._note_step(key, known, decision.reason)
        sizes = [each.endpoint.db_size for each in cluster.voters]
        founded = observation.record.founded
        MEMBERS.labels(*key).set(cluster.count if founded else 0)
        READY.labels(*key).set(cluster.healthy_without() if founded else 0)
        HAS_LEADER.labels(*key).set(1 if cluster.leader_id else 0)
        DB_SIZE.labels(*key).set(max(sizes, default=0))

    def forget(self, key: ObjectKey) -> None:
        """Removes the metrics of a cluster that no longer exists."""
        known = self._known.pop(key, None)
        for each in _SIMPLE:
            _remove(each, *key)
        if known is not None and known.shown:
            _remove(STEP, *key, known.shown)

    def _note_leader(self, key: ObjectKey, known: _Known, leader: int) -> None:
        changes = LEADER_CHANGES.labels(*key)  # It exists from now on, so that rate() sees the first change.
        if leader and known.leader and leader != known.leader:
            changes.inc()
        known.leader = leader or known.leader

    def _note_step(self, key: ObjectKey, known: _Known, reason: str) -> None:
        if reason == known.reason:
            return
        now = asyncio.get_running_loop().time()
        if known.reason:
            if known.shown and known.shown != known.reason:
                _remove(STEP, *key, known.shown)
            STEP.labels(*key, known.reason).set(now - known.since)
            known.shown = known.reason
        known.reason, known.since = reason, now


def _remove(metric: Counter | Gauge, *labels: str) -> None:
    with suppress(KeyError):
        metric.remove(*labels)
