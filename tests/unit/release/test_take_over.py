"""`inv run --take-over`: what becomes of the Deployment in the cluster."""

import json
from pathlib import Path
from typing import Any

import pytest

from devcluster.kubectl import Kubectl
from devcluster.shell import ClusterError
from release.packages import find
from release.take_over import NOWHERE, REPLICAS, StandIn, standing_in

FLIGHTS = find("pilothouse-flights")


def deployment(replicas: int, namespace: str = "pilothouse", **annotations: str) -> dict[str, Any]:
    metadata = {"name": "pilothouse-flights", "namespace": namespace, "annotations": annotations}
    return {"metadata": metadata, "spec": {"replicas": replicas}}


class Cluster(Kubectl):
    """A kubectl that reaches the Deployments that it is given."""

    def __init__(self, *deployments: dict[str, Any]) -> None:
        super().__init__(Path("kubectl"), Path("config"))
        object.__setattr__(self, "deployments", list(deployments))
        object.__setattr__(self, "away", False)

    deployments: list[dict[str, Any]]
    away: bool

    def __call__(self, *words: str, stdin: str = "", timeout: float = 60.0) -> str:
        self._reached()
        assert words[0] == "patch"
        patch = json.loads(
            next(word for word in words if word.startswith("--patch=")).removeprefix("--patch=")
        )
        [found] = [each for each in self.deployments if each["metadata"]["namespace"] == words[3]]
        found["spec"].update(patch["spec"])
        for key, value in patch["metadata"]["annotations"].items():
            found["metadata"]["annotations"].pop(key, None)
            if value is not None:
                found["metadata"]["annotations"][key] = value
        return ""

    def read(self, *words: str, timeout: float = 60.0) -> dict[str, Any]:
        self._reached()
        return {"items": self.deployments}

    def _reached(self) -> None:
        if self.away:
            raise ClusterError("connection refused")


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


def test_a_deployment_is_paused_and_brought_back_whatever_happens() -> None:
    found = deployment(2)

    def interrupted() -> None:
        with standing_in(Cluster(found), FLIGHTS, take_over=True):
            assert found == deployment(0, **{REPLICAS: "2"})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert found == deployment(2)


def test_it_stays_paused_when_olm_installs_it_anew(capsys: pytest.CaptureFixture[str]) -> None:
    found = deployment(3)
    cluster = Cluster(found)
    with standing_in(cluster, FLIGHTS, take_over=True) as stand_in:
        cluster.deployments[:] = [anew := deployment(1)]
        stand_in.look()
        assert anew == deployment(0, **{REPLICAS: "3"})
    assert anew == deployment(3)
    assert "pilothouse/pilothouse-flights was brought back meanwhile" in capsys.readouterr().err


def test_one_that_an_earlier_take_over_has_left_is_brought_back_now() -> None:
    found = deployment(0, **{REPLICAS: "3"})
    with standing_in(Cluster(found), FLIGHTS, take_over=True):
        pass
    assert found == deployment(3)


@pytest.mark.parametrize("said", ["abc", "-2", ""])
def test_what_is_left_and_is_no_number_says_nothing(said: str) -> None:
    found = deployment(0, **{REPLICAS: said})
    with standing_in(Cluster(found), FLIGHTS, take_over=True):
        pass
    assert found == deployment(0, **{REPLICAS: said})


def test_what_is_left_counts_only_while_it_is_paused() -> None:
    found = deployment(3, **{REPLICAS: "1"})
    with standing_in(Cluster(found), FLIGHTS, take_over=True):
        pass
    assert found == deployment(3)


def test_two_do_not_take_over_at_once() -> None:
    found = deployment(1)
    cluster = Cluster(found)
    with (
        standing_in(cluster, FLIGHTS, take_over=True),
        pytest.raises(ClusterError, match=r"another ./inv run flights --take-over is at work"),
        standing_in(cluster, FLIGHTS, take_over=True),
    ):
        pass
    assert found == deployment(1)


def test_what_cannot_be_brought_back_is_told_with_the_remedy() -> None:
    cluster = Cluster(deployment(2))
    with (
        pytest.raises(ClusterError, match=r"left at 0 replicas.*refused.*scale .*flights --replicas=2$"),
        standing_in(cluster, FLIGHTS, take_over=True),
    ):
        object.__setattr__(cluster, "away", True)


def test_one_that_comes_after_it_was_uninstalled_has_a_number_of_its_own() -> None:
    cluster = Cluster(deployment(2))
    with standing_in(cluster, FLIGHTS, take_over=True) as stand_in:
        cluster.deployments.clear()
        stand_in.look()
        cluster.deployments.append(anew := deployment(1))
    assert anew == deployment(1)


def test_one_that_is_uninstalled_meanwhile_needs_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    cluster = Cluster(deployment(2))
    with standing_in(cluster, FLIGHTS, take_over=True):
        cluster.deployments.clear()
    assert "no longer installed" in capsys.readouterr().err


def test_the_lease_is_where_the_deployment_is_be_it_paused_or_not() -> None:
    cluster = Cluster()
    stand_in = StandIn(cluster, FLIGHTS, take_over=False)
    assert (stand_in.look(), stand_in.runs) == (NOWHERE, False)
    cluster.deployments[:] = [deployment(0)]
    assert (stand_in.look(), stand_in.runs) == ("pilothouse", False)
    cluster.deployments[:] = [deployment(0), deployment(1, "b")]
    assert (stand_in.look(), stand_in.runs) == ("b", True)
    cluster.deployments[:] = [deployment(1, "a"), deployment(1, "b")]
    with pytest.raises(ClusterError, match="more than once, in a, b"):
        stand_in.look()
