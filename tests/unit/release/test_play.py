"""`inv play`: how it finds the operator and its pod, and its errors."""

from pathlib import Path
from typing import Any

import pytest

from devcluster.kubectl import Kubectl
from devcluster.shell import ClusterError, CommandError
from pilothouse.packaging.scaffold import TEMPLATE
from release import play
from release.packages import find
from release.projects import load

FLIGHTS = find("pilothouse-flights")
RUNNING = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}


def pod(name: str, *, ready: bool = True, namespace: str = "pilothouse", **metadata: str) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": namespace, **metadata},
        "status": {"phase": "Running", "containerStatuses": [{"state": RUNNING, "ready": ready}]},
    }


def starting(name: str) -> dict[str, Any]:
    made = pod(name)
    waiting = {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}
    made["status"]["containerStatuses"] = [{"state": waiting, "ready": False}]
    return made


def chosen(monkeypatch: pytest.MonkeyPatch, *pods: dict[str, Any], namespace: str = "") -> str:
    monkeypatch.setattr(Kubectl, "read", lambda self, *words: {"items": list(pods)})
    kubectl = Kubectl(Path("kubectl"), Path("config"))
    return str(play.pod_of(kubectl, FLIGHTS, namespace)["metadata"]["name"])


@pytest.mark.parametrize(
    "word", ["FlightTicket", "flightticket", "flighttickets", "ft", "flighttickets.flights.com"]
)
def test_a_kind_is_found_by_every_name_that_kubectl_accepts(word: str) -> None:
    package, kind = play.of_kind(word)
    assert (package, kind.resource.kind) == (FLIGHTS, "FlightTicket")


def test_an_unknown_kind_names_the_known_ones() -> None:
    with pytest.raises(
        ClusterError,
        match=r"no operator of this checkout has the kind 'pod'\. The kinds are: EtcdCluster, FlightTicket",
    ):
        play.of_kind("pod")


def test_a_project_has_only_its_own_kinds() -> None:
    package, kind = play.of_kind("greetings", str(TEMPLATE))
    assert (package.module, kind.resource.kind) == ("greeter_operator", "Greeting")
    with pytest.raises(
        ClusterError, match=r"no operator in .*greeter has the kind 'ft'\. The kinds are: Greeting$"
    ):
        play.of_kind("ft", str(TEMPLATE))
    with pytest.raises(
        ClusterError, match=r"kinds are: EtcdCluster, FlightTicket\. For an operator .* use --project"
    ):
        play.of_kind("greeting")


def test_a_project_is_explained_by_its_own_sources(capfd: pytest.CaptureFixture[str]) -> None:
    assert play.explain("greeting", "text", str(TEMPLATE)) == 0
    assert "1. the ConfigMap holds the message" in capfd.readouterr().out


def test_a_ready_pod_is_preferred_to_a_running_and_a_terminating_one(monkeypatch: pytest.MonkeyPatch) -> None:
    leaving = pod("leaving", deletionTimestamp="2026-01-01T00:00:00Z")
    assert chosen(monkeypatch, leaving, starting("new"), pod("runs", ready=False), pod("ready")) == "ready"


def test_a_pod_that_is_not_ready_is_used_with_a_note(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert chosen(monkeypatch, starting("new"), pod("runs", ready=False)) == "runs"
    assert "no pod of pilothouse-flights is Ready, using a running one" in capsys.readouterr().err


def test_without_a_running_pod_the_error_has_reasons_and_fixes(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ClusterError, match=r"new: ImagePullBackOff no such image.*\./inv run flights"):
        chosen(monkeypatch, starting("new"))
    with pytest.raises(ClusterError, match=r"no running pod \(there are no pods\)"):
        chosen(monkeypatch)
    remedies = r"kubectl apply --server-side -k \S+/greeter/config\), .*\(\./inv run \S+/greeter\)$"
    with pytest.raises(ClusterError, match=remedies):
        play.pod_of(Kubectl(Path("kubectl"), Path("config")), load(TEMPLATE), "")


def test_with_two_installations_the_user_must_choose(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ClusterError, match=r"Choose one of a, b with --operator-namespace"):
        chosen(monkeypatch, pod("one", namespace="b"), pod("two", namespace="a"))


def test_without_permission_for_all_namespaces_the_user_must_name_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def forbidden(self: Kubectl, *words: str) -> dict[str, Any]:
        raise CommandError("pods is forbidden: User cannot list resource")

    monkeypatch.setattr(Kubectl, "read", forbidden)
    with pytest.raises(ClusterError, match=r"have no permission to list .* Use --operator-namespace"):
        play.pod_of(Kubectl(Path("kubectl"), Path("config")), FLIGHTS, "")
