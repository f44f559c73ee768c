"""The operator's permissions in config/ and in the bundle: no wildcards, none unused."""

from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from devcluster.folders import CHECKOUT
from release.documents import load
from release.packages import PACKAGES, Package

_OWN = {"get", "list", "watch", "create", "patch", "delete"}
_READ = {"get", "list", "watch"}
_COMMON = {
    ("coordination.k8s.io", "leases"): {"create", "get", "patch"},
    ("events.k8s.io", "events"): {"create", "patch"},
}
MAY = {
    "pilothouse-flights": {
        **_COMMON,
        ("flights.com", "flighttickets"): {"get", "list", "watch", "patch"},
        ("flights.com", "flighttickets/status"): {"patch"},
    },
    "pilothouse-etcd": {
        **_COMMON,
        ("etcd.database.coreos.com", "etcdclusters"): {"get", "list", "watch", "patch"},
        ("etcd.database.coreos.com", "etcdclusters/status"): {"patch"},
        ("etcd.database.coreos.com", "etcdclusters/finalizers"): {"update"},
        ("", "pods"): _OWN,
        ("", "persistentvolumeclaims"): _OWN,
        ("", "services"): _OWN,
        ("", "secrets"): {"get"},
        ("policy", "poddisruptionbudgets"): _OWN,
        ("discovery.k8s.io", "endpointslices"): _READ,
    },
}
MAY_IN_CLUSTER = {
    "pilothouse-flights": {},
    "pilothouse-etcd": {("", "nodes"): _READ, ("storage.k8s.io", "storageclasses"): _READ},
}
BOTH = pytest.mark.parametrize("package", PACKAGES.values(), ids=list(PACKAGES))


def rules() -> Iterator[Any]:
    for path in (*(CHECKOUT / "config").rglob("*.yaml"), *(CHECKOUT / "bundle").rglob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            if document.get("kind") in ("Role", "ClusterRole"):
                yield from (pytest.param(rule, id=path.name) for rule in document["rules"])


@pytest.mark.parametrize("rule", list(rules()))
def test_no_rule_has_a_wildcard(rule: dict[str, list[str]]) -> None:
    assert not any("*" in word for words in rule.values() for word in words)


def granted(package: Package, part: str) -> dict[tuple[str, str], set[str]]:
    """The rights in a part of a package's ClusterServiceVersion, by group and resource."""
    found: dict[tuple[str, str], set[str]] = {}
    for entry in install(package).get(part, ()):
        for rule in entry["rules"]:
            for group in rule["apiGroups"]:
                for resource in rule["resources"]:
                    found.setdefault((group, resource), set()).update(rule["verbs"])
    return found


def install(package: Package) -> Any:
    csv = load(package.bundle / "manifests" / f"{package.name}.clusterserviceversion.yaml")
    return csv["spec"]["install"]["spec"]


@BOTH
def test_the_bundle_grants_only_used_permissions(package: Package) -> None:
    assert granted(package, "permissions") == MAY[package.name]
    assert granted(package, "clusterPermissions") == MAY_IN_CLUSTER[package.name]


@BOTH
def test_leases_with_other_names_cannot_be_changed(package: Package) -> None:
    (entry,) = install(package)["permissions"]
    leases = [rule for rule in entry["rules"] if rule["resources"] == ["leases"]]
    assert [rule["verbs"] for rule in leases if not rule.get("resourceNames")] == [["create"]]
    assert {name for rule in leases for name in rule.get("resourceNames", ())} == {package.name}
