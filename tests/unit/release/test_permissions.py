"""The operator's permissions in config/ and in the bundle: no wildcards, none unused."""

from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from devcluster.folders import CHECKOUT
from release.documents import load
from release.packages import PACKAGES

MAY = {
    ("coordination.k8s.io", "leases"): {"create", "get", "patch"},
    ("flights.com", "flighttickets"): {"get", "list", "watch", "patch"},
    ("flights.com", "flighttickets/status"): {"patch"},
    ("events.k8s.io", "events"): {"create", "patch"},
}


def rules() -> Iterator[Any]:
    for path in (*(CHECKOUT / "config").rglob("*.yaml"), *(CHECKOUT / "bundle").rglob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            if document.get("kind") in ("Role", "ClusterRole"):
                yield from (pytest.param(rule, id=path.name) for rule in document["rules"])


@pytest.mark.parametrize("rule", list(rules()))
def test_no_rule_has_a_wildcard(rule: dict[str, list[str]]) -> None:
    assert not any("*" in word for words in rule.values() for word in words)


def test_the_bundle_grants_only_used_permissions() -> None:
    package = PACKAGES["pilothouse-flights"]
    csv = load(package.bundle / "manifests" / f"{package.name}.clusterserviceversion.yaml")
    (granted,) = csv["spec"]["install"]["spec"]["permissions"]
    found: dict[tuple[str, str], set[str]] = {}
    for rule in granted["rules"]:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                found.setdefault((group, resource), set()).update(rule["verbs"])
    assert found == MAY


def test_leases_with_other_names_cannot_be_changed() -> None:
    package = PACKAGES["pilothouse-flights"]
    csv = load(package.bundle / "manifests" / f"{package.name}.clusterserviceversion.yaml")
    leases = [
        r for r in csv["spec"]["install"]["spec"]["permissions"][0]["rules"] if r["resources"] == ["leases"]
    ]
    assert [rule["verbs"] for rule in leases if not rule.get("resourceNames")] == [["create"]]
    assert {name for rule in leases for name in rule.get("resourceNames", ())} == {package.name}
