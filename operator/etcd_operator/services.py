"""The manifests of the Services and of the PodDisruptionBudget of a cluster."""

from typing import Any

from etcd_operator.blueprint import PEER_PORT, Blueprint
from etcd_operator.etcd import CLIENT_PORT
from etcd_operator.seats import quorum

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


def disruption_budget(blueprint: Blueprint, voters: int) -> dict[str, Any] | None:
    """Returns the PodDisruptionBudget that keeps a quorum of the started voters.

    Args:
        blueprint: The cluster.
        voters: The number of voters.

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
            "minAvailable": quorum(voters),
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
