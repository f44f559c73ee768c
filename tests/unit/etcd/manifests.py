"""The manifests of some clusters, which golden/ holds for review.

After a deliberate change, write them again and review the difference::

    PYTHONPATH=operator:. .venv/bin/python -m tests.unit.etcd.manifests
"""

from pathlib import Path
from typing import Any

import msgspec
import yaml

from etcd_operator.blueprint import Blueprint
from etcd_operator.etcd import Member
from etcd_operator.model import Configuration, PodPlan
from etcd_operator.pods import member_pod
from etcd_operator.services import client_service, disruption_budget, headless_service
from etcd_operator.shape import image_of
from etcd_operator.types import EtcdClusterSpec
from etcd_operator.volumes import volume_claim
from pilothouse.packaging.documents import dump_all
from tests.coreos import SEED

GOLDEN = Path(__file__).with_name("golden")
UID = "6f2c9a9e-0d5b-4f0f-9c39-5f1f4d7d2c11"

SECURE: dict[str, Any] = yaml.safe_load(
    """
size: 5
version: 3.6.14
repository: registry.example.com/etcd
quotaBackendBytes: 8Gi
autoCompaction: {mode: revision, retention: "1000"}
clientService: {type: LoadBalancer, annotations: {example.com/pool: internal}}
TLS:
  static:
    member: {peerSecret: peers, serverSecret: servers}
    operatorSecret: operator
pod:
  ClusterDomain: .cluster.local
  labels: {team: storage, app: mine, etcd_node: mine}
  annotations: {example.com/scrape: "true", etcd.version: mine}
  nodeSelector: {disk: ssd}
  antiAffinity: true
  tolerations: [{key: dedicated, operator: Exists}]
  topologySpreadConstraints:
  - {maxSkew: 2, topologyKey: example.com/rack, whenUnsatisfiable: DoNotSchedule}
  resources: {requests: {cpu: 500m, memory: 512Mi}, limits: {memory: 2Gi}}
  priorityClassName: system-node-critical
  serviceAccountName: default
  persistentVolumeClaimSpec:
    storageClassName: fast
    resources: {requests: {storage: 20Gi}}
  etcdEnv:
  - {name: ETCD_HEARTBEAT_INTERVAL, value: "200"}
  - {name: ETCD_FEATURE_GATES, value: InitialCorruptCheck=true}
  - {name: ETCD_HEARTBEAT_INTERVAL, value: "300"}
"""
)

EPHEMERAL: dict[str, Any] = yaml.safe_load(
    """
size: 3
storage: {ephemeral: true}
podDisruptionBudget: false
pod:
  securityContext: {runAsUser: 1000, fsGroup: 1000}
  affinity: {nodeAffinity: {}}
"""
)


def blueprint(spec: dict[str, Any], name: str = "example", namespace: str = "default") -> Blueprint:
    """Returns a cluster with a spec as a user writes it."""
    return Blueprint(name, namespace, UID, 1, msgspec.convert(spec, EtcdClusterSpec))


def founding() -> list[dict[str, Any]]:
    """The cluster of the seed while it is founded."""
    cluster = blueprint(SEED["spec"], SEED["metadata"]["name"])
    names = [f"{cluster.name}-{suffix}" for suffix in ("aaaaa", "bbbbb", "ccccc")]
    plan = PodPlan(names[0], "3.5.0", Configuration.FOUNDING, peers=tuple(names))
    return _objects(cluster, plan, voters=3)


def secure() -> list[dict[str, Any]]:
    """A member that has started once, with all fields of the spec that shape its objects."""
    cluster = blueprint(SECURE)
    plan = PodPlan("example-aaaaa", "3.6.14", Configuration.POISONED, serving=True)
    return _objects(cluster, plan, voters=5)


def joining() -> list[dict[str, Any]]:
    """A member that joins a cluster with a member that a user has added."""
    cluster = blueprint(EPHEMERAL)
    plan = PodPlan("example-bbbbb", "3.7.1", Configuration.JOINING)
    members = (
        Member(0x1, "example-aaaaa", (cluster.peer_url("example-aaaaa"),), (), is_learner=False),
        Member(0x2F, "", ("http://10.0.0.7:2380", "http://10.0.0.8:2380"), (), is_learner=False),
    )
    return _objects(cluster, plan, members, voters=2)


CASES = {each.__name__: each for each in (founding, secure, joining)}


def written(objects: list[dict[str, Any]]) -> str:
    """Returns manifests as the text of a golden file."""
    return dump_all(objects)


def _objects(
    cluster: Blueprint, plan: PodPlan, members: tuple[Member, ...] = (), *, voters: int
) -> list[dict[str, Any]]:
    budget = disruption_budget(cluster, voters)
    pod = member_pod(
        cluster,
        plan,
        image=image_of(cluster.spec, plan.version),
        initial_cluster=cluster.joining(members, plan.name),
    )
    return [
        headless_service(cluster),
        client_service(cluster),
        *([budget] if budget else []),
        *([] if cluster.spec.storage.ephemeral else [volume_claim(cluster, plan.name)]),
        pod,
    ]


if __name__ == "__main__":
    for name, case in CASES.items():
        (GOLDEN / f"{name}.yaml").write_text(written(case()))
