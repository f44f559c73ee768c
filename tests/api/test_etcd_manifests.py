"""The manifests of the etcd operator on a real API server, as `kubectl apply -k config/etcd` sends them."""

import json
from typing import Any

import pytest

from devcluster import toolchain
from devcluster.folders import CHECKOUT
from devcluster.kubectl import Kubectl
from pilothouse.kube import Client
from pilothouse.testing import ApiServer, eventually
from release.documents import dump, load
from tests.api.versions import ON_BOTH
from tests.etcd_howto import PAGES, manifests

pytestmark = ON_BOTH

NAME = "pilothouse-etcd"
FOLDER = CHECKOUT / "config" / "etcd"
GROUP = "etcd.database.coreos.com"


@pytest.fixture
def kubectl(api_server: ApiServer) -> Kubectl:
    """kubectl, after it has applied the manifests. It refuses a misspelt field."""
    found = Kubectl(toolchain.binary("kubectl"), api_server.kubeconfig())
    words = ("apply", "--server-side", "--force-conflicts", "--validate=strict")
    found(*words, "-k", str(FOLDER))
    found("wait", "--for=condition=Established", f"crd/etcdclusters.{GROUP}", "--timeout=60s")
    return found


def test_the_manifests_can_be_applied_without_server_side(kubectl: Kubectl) -> None:
    """Client-side apply keeps each manifest in an annotation, whose size is limited."""
    applied = kubectl("apply", "--dry-run=server", "-k", str(FOLDER))
    assert f"customresourcedefinition.apiextensions.k8s.io/etcdclusters.{GROUP}" in applied


def test_its_pods_may_live_in_a_restricted_namespace(kubectl: Kubectl) -> None:
    deployment: dict[str, Any] = kubectl.read("deployment", NAME, "-n", NAME)
    template = deployment["spec"]["template"]
    assert template["spec"]["containers"][0]["args"] == ["etcd_operator"]
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "probe", "labels": template["metadata"]["labels"]},
        # There is no controller that would make the service account's token.
        "spec": {**template["spec"], "automountServiceAccountToken": False},
    }
    assert "created" in kubectl("create", "--dry-run=server", "-n", NAME, "-f", "-", stdin=dump(pod))


async def test_the_samples_are_valid(kubectl: Kubectl, client: Client, namespace: str) -> None:
    path = f"/apis/{GROUP}/v1beta2/namespaces/{namespace}/etcdclusters"
    await eventually(lambda: client.request("GET", path), within=60)
    for name in load(FOLDER / "samples" / "kustomization.yaml")["resources"]:
        body = load(FOLDER / "samples" / name)
        params = {"dryRun": "All", "fieldValidation": "Strict"}
        stored = json.loads(await client.request("POST", path, params=params, body=body))
        assert stored["spec"] == body["spec"]


def test_the_manifests_in_the_howto_pages_are_valid(kubectl: Kubectl) -> None:
    found = [body for page in PAGES for body in manifests(page)]
    assert {each["kind"] for each in found} == {"EtcdCluster", "PersistentVolumeClaim", "Pod"}
    kubectl("label", "namespace", NAME, "pod-security.kubernetes.io/enforce=restricted", "--overwrite")
    for body in found:
        if body["kind"] == "Pod":
            # There is no controller that would make the service account `default`.
            body["spec"]["serviceAccountName"] = NAME
        words = ("create", "--dry-run=server", "--validate=strict", "-n", NAME, "-f", "-")
        assert "created" in kubectl(*words, stdin=dump(body))


RIGHTS = (
    ("list", GROUP, "etcdclusters", True),
    ("patch", GROUP, "etcdclusters/status", True),
    ("delete", GROUP, "etcdclusters", False),
    ("create", "", "pods", True),
    ("create", "", "pods/exec", False),
    ("delete", "", "persistentvolumeclaims", True),
    ("get", "", "secrets", True),
    ("list", "", "secrets", False),
    ("watch", "", "nodes", True),
    ("patch", "", "nodes", False),
    ("watch", "storage.k8s.io", "storageclasses", True),
)


async def test_the_operator_has_no_more_rights_than_it_needs(
    kubectl: Kubectl, client: Client, namespace: str
) -> None:
    async def allowed(verb: str, group: str, resource: str) -> bool:
        name, _, part = resource.partition("/")
        asked = {"namespace": namespace, "verb": verb, "group": group, "resource": name, "subresource": part}
        spec = {"user": f"system:serviceaccount:{NAME}:{NAME}", "resourceAttributes": asked}
        path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
        body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
        answer = json.loads(await client.request("POST", path, body=body))
        return bool(answer["status"]["allowed"])

    # The authorizer sees new roles and bindings a moment later.
    await eventually(lambda: allowed("watch", "storage.k8s.io", "storageclasses"), within=60)
    for verb, group, resource, expected in RIGHTS:
        assert await allowed(verb, group, resource) == expected, (verb, group, resource)
