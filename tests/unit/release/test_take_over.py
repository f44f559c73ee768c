"""`inv run --take-over`: the Deployment in the cluster is paused and restored."""

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
    """A stand-in for kubectl that knows the given Deployments."""

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


def test_a_deployment_is_paused_and_restored_even_after_an_error() -> None:
    found = deployment(2)

    def interrupted() -> None:
        with standing_in(Cluster(found), FLIGHTS, take_over=True):
            assert found == deployment(0, **{REPLICAS: "2"})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert found == deployment(2)


def test_it_is_paused_again_if_olm_scales_it_up(capsys: pytest.CaptureFixture[str]) -> None:
    found = deployment(3)
    cluster = Cluster(found)
    with standing_in(cluster, FLIGHTS, take_over=True) as stand_in:
        cluster.deployments[:] = [second := deployment(1)]
        stand_in.check()
        assert second == deployment(0, **{REPLICAS: "3"})
    assert second == deployment(3)
    assert "pilothouse/pilothouse-flights had been scaled up again; paused it" in capsys.readouterr().err


def test_a_deployment_left_paused_by_an_interrupted_take_over_is_restored() -> None:
    found = deployment(0, **{REPLICAS: "3"})
    with standing_in(Cluster(found), FLIGHTS, take_over=True):
        pass
    assert found == deployment(3)


@pytest.mark.parametrize("said", ["abc", "-2", ""])
def test_an_invalid_annotation_is_ignored(said: str) -> None:
    found = deployment(0, **{REPLICAS: said})
    with standing_in(Cluster(found), FLIGHTS, take_over=True):
        pass
    assert found == deployment(0, **{REPLICAS: said})


def test_the_annotation_is_used_only_while_the_deployment_is_paused() -> None:
    found = deployment(3, **{REPLICAS: "1"})
    with standing_in(Cluster(found), FLIGHTS, take_over=True):
        pass
    assert found == deployment(3)


def test_only_one_process_takes_over_at_a_time() -> None:
    found = deployment(1)
    cluster = Cluster(found)
    with (
        standing_in(cluster, FLIGHTS, take_over=True),
        pytest.raises(ClusterError, match=r"another ./inv run flights --take-over is running"),
        standing_in(cluster, FLIGHTS, take_over=True),
    ):
        pass
    assert found == deployment(1)


def test_a_failed_restore_is_reported_with_the_command_for_it() -> None:
    cluster = Cluster(deployment(2))
    with (
        pytest.raises(
            ClusterError, match=r"still at 0 replicas.*refused.*Restore it: .*scale .*flights --replicas=2$"
        ),
        standing_in(cluster, FLIGHTS, take_over=True),
    ):
        object.__setattr__(cluster, "away", True)


def test_a_deployment_installed_later_keeps_its_own_replicas() -> None:
    cluster = Cluster(deployment(2))
    with standing_in(cluster, FLIGHTS, take_over=True) as stand_in:
        cluster.deployments.clear()
        stand_in.check()
        cluster.deployments.append(second := deployment(1))
    assert second == deployment(1)


def test_a_deployment_that_was_uninstalled_is_not_restored(capsys: pytest.CaptureFixture[str]) -> None:
    cluster = Cluster(deployment(2))
    with standing_in(cluster, FLIGHTS, take_over=True):
        cluster.deployments.clear()
    assert "no longer installed" in capsys.readouterr().err


def test_the_lease_is_in_the_namespace_of_the_deployment_paused_or_not() -> None:
    cluster = Cluster()
    stand_in = StandIn(cluster, FLIGHTS, take_over=False)
    assert (stand_in.check(), stand_in.runs) == (NOWHERE, False)
    cluster.deployments[:] = [deployment(0)]
    assert (stand_in.check(), stand_in.runs) == ("pilothouse", False)
    cluster.deployments[:] = [deployment(0), deployment(1, "b")]
    assert (stand_in.check(), stand_in.runs) == ("b", True)
    cluster.deployments[:] = [deployment(1, "a"), deployment(1, "b")]
    with pytest.raises(ClusterError, match="in several namespaces: a, b"):
        stand_in.check()
