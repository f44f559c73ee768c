"""Properties of a ClusterServiceVersion that reviewers check and operator-sdk does not."""

import base64
import gzip
import json
import re
from datetime import datetime
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from devcluster.folders import CHECKOUT
from devcluster.toolchain import TOOLS
from release.documents import load
from release.packages import PACKAGES, Package, version
from tests import coreos

# OLM stores an unpacked bundle in one ConfigMap. operator-framework/api warns from 85 % of 1 MiB.
SIZE_LIMIT = 0.85 * (1 << 20)
DIGEST = re.compile(r"quay\.io/(pilothouse|coreos)/[a-z0-9-]+@sha256:[0-9a-f]{64}")


@pytest.fixture(params=list(PACKAGES.values()), ids=list(PACKAGES))
def package(request: pytest.FixtureRequest) -> Package:
    found: Package = request.param
    return found


@pytest.fixture
def csv(package: Package) -> dict[str, Any]:
    return load(package.bundle / "manifests" / f"{package.name}.clusterserviceversion.yaml")


@pytest.fixture
def pod(csv: dict[str, Any]) -> dict[str, Any]:
    (deployment,) = csv["spec"]["install"]["spec"]["deployments"]
    found: dict[str, Any] = deployment["spec"]["template"]["spec"]
    return found


def test_is_named_after_its_package_and_version(package: Package, csv: dict[str, Any]) -> None:
    assert csv["metadata"]["name"] == f"{package.name}.v{version()}"
    assert len(csv["metadata"]["name"]) <= 63
    assert csv["spec"]["version"] == version()


def test_requires_the_oldest_kubernetes_that_the_tests_run_on(csv: dict[str, Any]) -> None:
    claimed, tested = csv["spec"]["minKubeVersion"], TOOLS["kubernetes-oldest"].version
    assert claimed == re.sub(r"v(\d+\.\d+)\.\d+", r"\1.0", tested)


def test_the_readme_names_the_kubernetes_versions_that_the_tests_run_on() -> None:
    """Fails when another version is pinned and the table in README.md is not updated."""
    oldest, newest = (TOOLS[name].version.lstrip("v") for name in ("kubernetes-oldest", "kubernetes"))
    readme = (CHECKOUT / "README.md").read_text()
    assert f"| tests | Kubernetes {oldest} | Kubernetes {newest} |" in readme


def test_has_the_metadata_of_a_catalog_entry(csv: dict[str, Any]) -> None:
    annotations = csv["metadata"]["annotations"]
    assert annotations["capabilities"] in {
        "Basic Install",
        "Seamless Upgrades",
        "Full Lifecycle",
        "Deep Insights",
        "Auto Pilot",
    }
    for name in ("categories", "containerImage", "repository", "support", "description"):
        assert len(annotations[name]) >= 3
    assert datetime.fromisoformat(annotations["createdAt"]).tzinfo
    features = {
        name: value
        for name, value in annotations.items()
        if name.startswith("features.operators.openshift.io/")
    }
    assert len(features) == 7
    assert set(features.values()) <= {"true", "false"}


def test_is_spelt_in_ascii_and_in_the_right_case(package: Package, csv: dict[str, Any]) -> None:
    for path in package.bundle.rglob("*.yaml"):
        assert path.read_text().isascii(), (
            f"{path.name}: a typographic quote passes every tool and means nothing"
        )
    known = {
        *(
            "apiservicedefinitions",
            "customresourcedefinitions",
            "description",
            "displayName",
            "icon",
            "install",
        ),
        *("installModes", "keywords", "links", "maintainers", "maturity", "minKubeVersion", "provider"),
        *("relatedImages", "version"),
    }
    assert csv["spec"].keys() <= known


def test_every_image_is_named_by_digest_and_listed(csv: dict[str, Any], pod: dict[str, Any]) -> None:
    images = [container["image"] for container in pod["containers"]]
    assert all(DIGEST.fullmatch(image) for image in images)
    variables = pod["containers"][0]["env"]
    images += [each["value"] for each in variables if each["name"].startswith("RELATED_IMAGE_")]
    assert all(DIGEST.fullmatch(image) for image in images)
    assert {entry["image"] for entry in csv["spec"]["relatedImages"]} == set(images)
    assert csv["metadata"]["annotations"]["containerImage"] == images[0]


def test_pods_are_restricted(pod: dict[str, Any]) -> None:
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in pod["containers"]:
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False
        assert security["readOnlyRootFilesystem"] is True
        assert security["capabilities"] == {"drop": ["ALL"]}


def test_pods_are_bounded_and_probed(pod: dict[str, Any]) -> None:
    for container in pod["containers"]:
        assert container["resources"]["limits"] == {"cpu": "500m", "memory": "128Mi"}
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        assert ports["health"] == 8081
        assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "health"}
        assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "health"}


def test_pods_are_labelled_with_the_package(package: Package, csv: dict[str, Any]) -> None:
    (deployment,) = csv["spec"]["install"]["spec"]["deployments"]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["name"] == package.name
    assert labels["app.kubernetes.io/name"] == package.name


def test_watches_the_namespaces_of_the_operator_group(csv: dict[str, Any], pod: dict[str, Any]) -> None:
    assert [mode["type"] for mode in csv["spec"]["installModes"] if mode["supported"]] == [
        "OwnNamespace",
        "SingleNamespace",
        "MultiNamespace",
        "AllNamespaces",
    ]
    (variable,) = [e for e in pod["containers"][0]["env"] if e["name"] == "WATCH_NAMESPACE"]
    assert variable["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.annotations['olm.targetNamespaces']"


def test_only_rights_on_cluster_scoped_objects_are_those_of_the_whole_cluster(csv: dict[str, Any]) -> None:
    """OLM binds `permissions` only in the namespaces of the OperatorGroup."""
    for granted in csv["spec"]["install"]["spec"].get("clusterPermissions", ()):
        for rule in granted["rules"]:
            assert set(rule["resources"]) <= {"nodes", "storageclasses"}
            assert set(rule["verbs"]) == {"get", "list", "watch"}


def test_every_owned_kind_is_explained_and_has_an_example(package: Package, csv: dict[str, Any]) -> None:
    examples = {
        example["kind"]: example for example in json.loads(csv["metadata"]["annotations"]["alm-examples"])
    }
    described = json.loads(csv["metadata"]["annotations"]["alm-examples-metadata"])
    owned = csv["spec"]["customresourcedefinitions"]["owned"]
    assert [entry["kind"] for entry in owned] == [kind.resource.kind for kind in package.kinds]
    for entry in owned:
        example = examples[entry["kind"]]
        assert example["metadata"]["name"] in described
        assert entry["displayName"]
        assert entry["description"]
        assert entry["resources"]
        assert example["spec"].keys() <= {descriptor["path"] for descriptor in entry["specDescriptors"]}
        assert {"phase", "conditions"} <= {descriptor["path"] for descriptor in entry["statusDescriptors"]}
        for descriptor in (*entry["specDescriptors"], *entry["statusDescriptors"]):
            assert all(x.startswith("urn:alm:descriptor:") for x in descriptor["x-descriptors"])


def test_has_one_drawn_icon(csv: dict[str, Any]) -> None:
    (icon,) = csv["spec"]["icon"]
    assert icon["mediatype"] == "image/svg+xml"
    assert ElementTree.fromstring(base64.b64decode(icon["base64data"])).tag.endswith("svg")  # noqa: S314 - our own


def test_suggests_a_namespace_that_admits_its_pods(csv: dict[str, Any]) -> None:
    template = json.loads(csv["metadata"]["annotations"]["operatorframework.io/suggested-namespace-template"])
    assert template["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert (
        template["metadata"]["name"]
        == csv["metadata"]["annotations"]["operatorframework.io/suggested-namespace"]
    )


def test_fits_into_the_config_map_of_olm(package: Package) -> None:
    files = [path for path in package.bundle.rglob("*.yaml") if path.parent.name in ("manifests", "metadata")]
    size = sum(len(base64.b64encode(gzip.compress(path.read_bytes()))) for path in files)
    assert 0 < size < SIZE_LIMIT


def test_holds_one_object_a_file_and_only_kinds_that_olm_installs(package: Package) -> None:
    kinds = []
    for path in (package.bundle / "manifests").iterdir():
        (document,) = yaml.safe_load_all(path.read_text())
        kinds.append(document["kind"])
        assert "namespace" not in document["metadata"] or document["metadata"]["namespace"] == "placeholder"
    assert sorted(kinds) == [
        "ClusterRole",
        "ClusterRole",
        "ClusterServiceVersion",
        "CustomResourceDefinition",
    ]


def test_can_be_installed_by_olm_v1_too(package: Package, csv: dict[str, Any]) -> None:
    # operator-controller refuses bundles with dependencies and those that cannot watch all namespaces.
    assert not (package.bundle / "metadata" / "dependencies.yaml").exists()
    assert "required" not in csv["spec"]["customresourcedefinitions"]
    assert {"type": "AllNamespaces", "supported": True} in csv["spec"]["installModes"]


def test_the_first_example_is_the_manifest_that_users_have() -> None:
    """Consoles offer the first example."""
    package = PACKAGES["pilothouse-etcd"]
    csv = load(package.bundle / "manifests" / f"{package.name}.clusterserviceversion.yaml")
    assert json.loads(csv["metadata"]["annotations"]["alm-examples"])[0] == coreos.SEED
