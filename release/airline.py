"""The airline of the demo and the cluster tests: examples/booking_api as a Deployment, and its API key."""

from __future__ import annotations

import base64
import secrets

from devcluster import images
from devcluster.folders import CHECKOUT
from devcluster.kubectl import Kubectl
from release.documents import dump_all
from release.packages import NAMESPACE as OPERATORS
from release.packages import version

NAMESPACE = "airline"
_EXAMPLE = CHECKOUT / "examples" / "booking_api"
#: A resource that only OpenShift clusters have.
_OPENSHIFT = "securitycontextconstraints.security.openshift.io"
_RELEASED = f"quay.io/pilothouse/booking-api:v{version()}"
#: The Secret of the airline with its key, and the Secret of the operator with the same key.
_AIRLINES_SECRET, _OPERATORS_SECRET = "booking-api-key", "airline-api-key"


def image() -> str:
    """Builds and pushes the airline's image, and returns its reference with the digest."""
    return images.build(_EXAMPLE / "Dockerfile", CHECKOUT, "booking-api")


def deploy(kubectl: Kubectl, reference: str) -> None:
    """Deploys the airline from an image and waits for it. The API key is generated once per cluster."""
    folder = "openshift" if kubectl("get", "crd", _OPENSHIFT, "--ignore-not-found") else "deploy"
    manifests = kubectl("kustomize", str(_EXAMPLE / folder)).replace(_RELEASED, reference)
    key = api_key(kubectl) or secrets.token_urlsafe(24)
    kubectl.apply(dump_all([_namespace(NAMESPACE), _secret(NAMESPACE, _AIRLINES_SECRET, key)]))
    share_key(kubectl, OPERATORS)
    kubectl.apply(manifests)
    kubectl("rollout", "status", "deployment/booking-api", "-n", NAMESPACE, "--timeout=120s", timeout=130)


def share_key(kubectl: Kubectl, namespace: str) -> None:
    """Copies the airline's key into the Secret of the operator in a namespace; creates the namespace."""
    secret = _secret(namespace, _OPERATORS_SECRET, api_key(kubectl))
    kubectl.apply(dump_all([_namespace(namespace), secret]))


def api_key(kubectl: Kubectl) -> str:
    """Returns the airline's API key in this cluster; empty if there is none yet."""
    words = ("get", "secret", _AIRLINES_SECRET, "-n", NAMESPACE, "--ignore-not-found")
    return base64.b64decode(kubectl(*words, "-o", "jsonpath={.data.api-key}")).decode()


def _namespace(name: str) -> dict[str, object]:
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def _secret(namespace: str, name: str, key: str) -> dict[str, object]:
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"api-key": key}}
