"""Which installed versions are uninstalled before a Subscription, and which ones OLM upgrades."""

import json
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from devcluster.kubectl import Kubectl
from devcluster.shell import ClusterError
from release import install
from release.packages import PACKAGES

FLIGHTS = PACKAGES["pilothouse-flights"]
OURS, OTHER = "quay.io/pilothouse/pilothouse@sha256:1", "quay.io/pilothouse/pilothouse@sha256:2"


@dataclass
class Cluster:
    """A cluster with ClusterServiceVersions in the namespace of the operators.

    Attributes:
        images: The operator's image of each ClusterServiceVersion.
        phases: The phase of each ClusterServiceVersion that does not have the phase Succeeded.
        subscribed: The ClusterServiceVersion that the Subscription lists as installed.
        deleted: The objects that were deleted.
        applied: The kinds that were applied.
    """

    images: dict[str, str] = field(default_factory=dict)
    phases: dict[str, str] = field(default_factory=dict)
    subscribed: str = ""
    deleted: list[str] = field(default_factory=list)
    applied: list[str] = field(default_factory=list)

    def __call__(self, *words: str, **_: object) -> str:
        if words[0] == "delete":
            self.deleted.append(words[1])
            self.images.pop(words[1].removeprefix("csv/"), None)
        return self.subscribed if "jsonpath={.status.installedCSV}" in words else ""

    def read(self, *_: str) -> dict[str, Any]:
        return {"items": [self._csv(name, image) for name, image in self.images.items()]}

    def apply(self, manifests: str) -> None:
        self.applied += [line for line in manifests.splitlines() if line.startswith("kind: ")]

    def _csv(self, name: str, image: str) -> dict[str, Any]:
        pod = {"spec": {"containers": [{"image": image}]}}
        install = {"spec": {"deployments": [{"spec": {"template": pod}}]}}
        status = {"phase": self.phases.get(name, "Succeeded")}
        return {"metadata": {"name": name}, "spec": {"install": install}, "status": status}


def subscribe(cluster: Cluster) -> list[str]:
    """Subscribes to flights, and returns what was deleted before."""
    install.subscribe(cast("Kubectl", cluster), FLIGHTS, "quay.io/pilothouse/catalog@sha256:3", OURS)
    assert cluster.applied[-1] == "kind: Subscription"
    return cluster.deleted


SUBSCRIPTION = f"subscription.operators.coreos.com/{FLIGHTS.name}"
EARLIER = FLIGHTS.csv_of("0.1.0")
CURRENT = FLIGHTS.csv_name


@pytest.mark.parametrize(
    "images", [{}, {CURRENT: OURS}, {EARLIER: OTHER}, {EARLIER: OTHER, CURRENT: OURS}], ids=json.dumps
)
def test_olm_installs_keeps_or_upgrades_the_version(images: dict[str, str]) -> None:
    subscribed = next(iter(images), "")
    assert subscribe(Cluster(images, subscribed=subscribed)) == []


@pytest.mark.parametrize(
    "images",
    [{CURRENT: OTHER}, {EARLIER: OTHER, CURRENT: OTHER}, {FLIGHTS.csv_of("0.0.9"): OTHER}],
    ids=json.dumps,
)
def test_what_olm_does_not_replace_is_uninstalled(images: dict[str, str]) -> None:
    expected = [SUBSCRIPTION, *(f"csv/{name}" for name in images)]
    assert subscribe(Cluster(dict(images), subscribed=CURRENT)) == expected


@pytest.mark.parametrize("lost", [EARLIER, CURRENT])
def test_a_subscription_without_its_csv_is_created_again(lost: str) -> None:
    others = {"pilothouse-etcd.v0.2.0": OTHER}
    assert subscribe(Cluster(others, subscribed=lost)) == [SUBSCRIPTION]


def test_an_upgrade_is_complete_once_the_earlier_version_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install, "_PATIENCE", -1.0)
    cluster = Cluster({EARLIER: OTHER, CURRENT: OURS, "pilothouse-etcd.v0.2.0": OTHER})
    kubectl = cast("Kubectl", cluster)
    for number in ("", "0.1.0"):
        with pytest.raises(ClusterError, match="was not installed"):
            install.wait_succeeded(kubectl, FLIGHTS, number)
    del cluster.images[EARLIER]
    assert install.wait_succeeded(kubectl, FLIGHTS)["metadata"]["name"] == CURRENT
    cluster.phases[CURRENT] = "Installing"
    with pytest.raises(ClusterError, match=rf"{CURRENT} was not installed"):
        install.wait_succeeded(kubectl, FLIGHTS)
