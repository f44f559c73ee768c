"""`inv run`: what becomes of the operator in the cluster, and when the one here starts anew."""

import os
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from devcluster.folders import CHECKOUT
from devcluster.kubectl import Kubectl
from devcluster.shell import ClusterError
from release import host
from release.new import TEMPLATE
from release.packages import find

KUBECTL = Kubectl(Path("kubectl"), Path("config"))


def deployment(replicas: int, namespace: str = "pilothouse", **annotations: str) -> dict[str, Any]:
    metadata = {"name": "pilothouse-flights", "namespace": namespace, "annotations": annotations}
    return {"metadata": metadata, "spec": {"replicas": replicas}}


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What kubectl was told."""
    told: list[str] = []

    def call(self: Kubectl, *words: str) -> str:
        told.append(" ".join(words))
        return ""

    monkeypatch.setattr(Kubectl, "__call__", call)
    return told


def test_a_deployment_is_paused_and_brought_back_whatever_happens(commands: list[str]) -> None:
    def interrupted() -> None:
        with host._paused(KUBECTL, deployment(2)):
            assert commands[-1] == "scale deployment/pilothouse-flights -n pilothouse --replicas=0"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert "scale deployment/pilothouse-flights -n pilothouse --replicas=2" in commands


def test_one_that_an_earlier_run_could_not_bring_back_is_brought_back_now(commands: list[str]) -> None:
    left = deployment(0, **{host._REPLICAS: "3"})
    with host._paused(KUBECTL, left):
        pass
    assert "scale deployment/pilothouse-flights -n pilothouse --replicas=3" in commands


def test_a_deployment_that_does_not_run_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    flights = find("pilothouse-flights")
    found: list[dict[str, Any]] = [deployment(0)]
    monkeypatch.setattr(Kubectl, "read", lambda self, *words: {"items": found})
    assert host._deployment(KUBECTL, flights) is None
    found[:] = [deployment(0), deployment(1, "b")]
    chosen = host._deployment(KUBECTL, flights)
    assert chosen is not None
    assert chosen["metadata"]["namespace"] == "b"
    found[:] = [deployment(1, "a"), deployment(1, "b")]
    with pytest.raises(ClusterError, match="more than once, in a, b"):
        host._deployment(KUBECTL, flights)


def test_without_an_airline_in_the_cluster_one_is_started_here_and_takes_the_key(
    commands: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    with host._airline(KUBECTL) as told:
        key = Path(told["AIRLINE_API_KEY_FILE"])
        assert key.stat().st_mode & 0o077 == 0
        request = urllib.request.Request(
            f"{told['AIRLINE_URL']}/bookings", headers={"X-API-Key": key.read_text()}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert answer.status == 200
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(request, timeout=10)


def test_an_unknown_operator_names_the_known_ones() -> None:
    with pytest.raises(ClusterError, match="there is no operator 'etc'; there are: flights"):
        host.run("etc")


def test_a_project_is_run_with_its_own_sources_and_the_runtime() -> None:
    found = host._package(str(TEMPLATE))
    assert (found.module, found.source) == ("greeter_operator", TEMPLATE)
    assert found.python_path == f"{CHECKOUT / 'operator'}{os.pathsep}{TEMPLATE}"


def test_a_project_needs_its_kinds_in_the_cluster(commands: list[str]) -> None:
    crds = TEMPLATE / "config" / "crd"
    with pytest.raises(
        ClusterError, match=f"does not know greetings.demo.pilothouse.dev: kubectl apply -k {crds}"
    ):
        host._require_kinds(KUBECTL, host._package(str(TEMPLATE)))


def test_a_change_of_a_source_starts_it_anew_and_ctrl_c_ends_it_in_order(tmp_path: Path) -> None:
    sources, log = tmp_path / "sources", tmp_path / "log"
    sources.mkdir()
    (sources / "a.py").write_text("")
    program = (
        "import signal, sys\n"
        "log = open(sys.argv[1], 'a', buffering=1)\n"
        "def end(*_):\n"
        "    print('ended', file=log)\n"
        "    sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "print('started', file=log)\n"
        "signal.pause()\n"
    )

    def lines() -> list[str]:
        return log.read_text().split() if log.exists() else []

    def person() -> None:
        _until(lambda: lines() == ["started"])
        (sources / "b.py").write_text("x = 1")
        _until(lambda: lines() == ["started", "ended", "started"])
        os.kill(os.getpid(), 15)

    thread = threading.Thread(target=person)
    thread.start()
    with host._interrupted_by_sigterm():
        host._reloading([sys.executable, "-c", program, str(log)], dict(os.environ), sources)
    thread.join()
    assert lines() == ["started", "ended", "started", "ended"]


def _until(condition: Any) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
