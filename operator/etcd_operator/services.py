"""The manifests of the Services and of the PodDisruptionBudget, and the marks on the headless Service."""

from typing import Any

from etcd_operator.blueprint import PEER_PORT, Blueprint
from etcd_operator.etcd import CLIENT_PORT
from etcd_operator.model import Trace
from etcd_operator.seats import quorum
from etcd_operator.volumes import CLUSTER_ID, INCARNATION
from pilothouse import ObjectMeta

_CLIENT = {"name": "client", "port": CLIENT_PORT, "targetPort": CLIENT_PORT, "protocol": "TCP"}
_PEER = {"name": "peer", "port": PEER_PORT, "targetPort": PEER_PORT, "protocol": "TCP"}

# A budget for fewer voters would block every drain.
_SMALLEST = 3


def client_service(blueprint: Blueprint) -> dict[str, Any]:
    """Returns the Service for clients, which leads to the started voters that are ready."""
    settings = blueprint.spec.client_service
    return _object(
        blueprint,
        "v1",
        "Service",
        blueprint.client_service,
        {
            "type": str(settings.type),
            "selector": blueprint.serving_selector,
            "ports": [_CLIENT],
        },
        annotations=settings.annotations,
    )


def headless_service(blueprint: Blueprint) -> dict[str, Any]:
    """Returns the headless Service, which gives every pod its DNS name, whether it is ready or not."""
    return _object(
        blueprint,
        "v1",
        "Service",
        blueprint.name,
        {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": blueprint.selector,
            "ports": [_CLIENT, _PEER],
        },
    )


def mark_service(trace: Trace) -> dict[str, Any]:
    """Returns the merge patch that marks the headless Service. Applying its manifest keeps the marks."""
    return {
        "metadata": {
            "annotations": {INCARNATION: str(trace.incarnation), CLUSTER_ID: f"{trace.cluster_id:x}"}
        }
    }


def trace_of(metadata: ObjectMeta, uid: str) -> Trace | None:
    """Returns what the marks of a headless Service say.

    A mark that cannot be read counts as one, because it was written for a cluster.

    Args:
        metadata: The metadata of the Service.
        uid: The UID of the EtcdCluster.

    Returns:
        The marks. None: the Service belongs to another object.
    """
    if not any(each.uid == uid for each in metadata.owner_references):
        return None
    incarnation, cluster_id = (metadata.annotations.get(name, "") for name in (INCARNATION, CLUSTER_ID))
    try:
        return Trace(int(incarnation or "0"), int(cluster_id or "0", 16))
    except ValueError:
        return Trace(1)


def disruption_budget(blueprint: Blueprint, voters: int, strangers: int = 0) -> dict[str, Any] | None:
    """Returns the PodDisruptionBudget that keeps a quorum of the started voters.

    Args:
        blueprint: The cluster.
        voters: The number of the operator's voters, whose pods the budget selects.
        strangers: The number of voters that a user has added. They count for the quorum, but may be down. So
            the budget keeps a quorum of the other voters, or all if there are not enough.

    Returns:
        The manifest. None: there must be none, because of the spec or because there are too few voters.
    """
    if voters < _SMALLEST or not blueprint.spec.pod_disruption_budget:
        return None
    return _object(
        blueprint,
        "policy/v1",
        "PodDisruptionBudget",
        blueprint.name,
        {
            "minAvailable": min(quorum(voters + strangers), voters),
            "selector": {"matchLabels": blueprint.serving_selector},
        },
    )


def _object(
    blueprint: Blueprint,
    api_version: str,
    kind: str,
    name: str,
    spec: dict[str, Any],
    *,
    annotations: dict[str, str] | None = None,
) -> dict[str, Any]:
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": blueprint.namespace,
            "labels": blueprint.selector,
            **({"annotations": annotations} if annotations else {}),
        },
        "spec": spec,
    }
