"""The command line: its output, its exit codes and its error messages."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from pilothouse.cli import command_line as cli
from pilothouse.kube import ClientConfig, ObjectKey, Unreachable
from pilothouse.playbook import PAUSED, Watch
from pilothouse.process import Environment
from pilothouse.testing import ModelApi
from tests.unit.playbook.airline import FINALIZER, Airline, playbook
from tests.unit.tickets import TICKET

Run = Callable[..., int]


class ModelClient:
    """A stand-in for `Client`: an async context manager around the model."""

    def __init__(self, api: ModelApi) -> None:
        self._api = api

    async def __aenter__(self) -> ModelApi:
        return self._api

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


@pytest.fixture
def run(api: ModelApi, airline: Airline, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Returns a function that runs the command line of a ticket operator and returns the exit code."""
    config = ClientConfig(server="http://model", namespace="default")
    monkeypatch.setattr(ClientConfig, "load", lambda: config)
    monkeypatch.setattr(cli, "Client", lambda config, user_agent: ModelClient(api))

    @asynccontextmanager
    async def watches(variables: Mapping[str, str]) -> AsyncIterator[Sequence[Watch]]:
        Environment(variables).text("AIRLINE")
        yield [Watch(TICKET, playbook(airline))]

    def run(*argv: str, **variables: str) -> int:
        given = {"AIRLINE": "a", "LEADER_ELECT": "true", **variables}
        return cli.main("tickets", watches, argv, variables=given)

    return run


def test_check_shows_all_changes_and_makes_none(
    api: ModelApi, airline: Airline, ticket: ObjectKey, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    before = dict(api.read(TICKET, ticket))
    assert run("play", "ticket/my-ticket", "--check", "--diff") == 2
    said = capsys.readouterr().out
    assert "PLAY [Ticket default/my-ticket] check mode, nothing is changed ***" in said
    assert "TASK [seats are booked] ***" in said
    assert "changed: book seats (" in said
    assert "\n    + 2 seats\n" in said
    assert f"finalizer + {FINALIZER}\n" in said
    assert 'status.phase: "Booked"' in said
    assert "Ticket default/my-ticket : ok=2 changed=1 skipped=0" in said
    assert [call.verb for call in api.calls] == ["get"]
    assert (airline.effects, api.read(TICKET, ticket)) == ([], before)


def test_without_diff_only_the_outcome_is_shown(
    ticket: ObjectKey, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("play", "tickets.tests.dev/default/my-ticket", "--check") == 2
    said = capsys.readouterr().out
    assert "changed: book seats" in said
    assert "+ 2 seats" not in said
    assert "status." not in said


def test_a_play_is_made_and_the_next_check_finds_nothing_to_change(
    api: ModelApi, airline: Airline, ticket: ObjectKey, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("play", "Ticket/my-ticket") == 0
    assert airline.effects == ["book"]
    assert api.read(TICKET, ticket)["status"]["phase"] == "Booked"
    assert run("play", "Ticket/my-ticket", "--check") == 0
    assert "Nothing to change." in capsys.readouterr().out


def test_without_elections_no_lease_protects_a_play(
    api: ModelApi, airline: Airline, ticket: ObjectKey, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("play", "Ticket/my-ticket", LEADER_ELECT="false") == 1
    assert capsys.readouterr().err.startswith("tickets: LEADER_ELECT is false, ")
    assert (airline.effects, api.writes) == ([], [])
    assert run("play", "Ticket/my-ticket", "--check", LEADER_ELECT="false") == 2


def test_a_failed_task_is_shown_and_is_exit_code_1(
    api: ModelApi, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    api.put(TICKET, "large", spec={"seats": 11})
    assert run("play", "Ticket/large", "--check", "--output", "json") == 1
    document = json.loads(capsys.readouterr().out)
    assert document["failure"] == {
        "reason": "TooManySeats",
        "message": "11 seats: ask for 10 at most.",
        "permanent": True,
    }
    assert [(each["task"], each["state"]) for each in document["tasks"]] == [("spec is sound", "failed")]
    assert (document["kind"], document["namespace"], document["name"], document["check"]) == (
        "Ticket",
        "default",
        "large",
        True,
    )
    assert document["status"]["phase"] == "Failed"


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (
            ("play", "flight/x"),
            "tickets: this operator does not watch the kind 'flight'. Its kinds: Ticket\n",
        ),
        (
            ("play", "ticket"),
            "tickets: 'ticket' is not an object. Use KIND/NAMESPACE/NAME, or KIND/NAME for the namespace of "
            "your context or a cluster-scoped kind.\n",
        ),
        (("play", "ticket/a/b/c"), "tickets: 'ticket/a/b/c' is not an object"),
        (("play", "ticket/../a"), "tickets: 'ticket/../a' is not an object: '..' is not a valid name\n"),
        (
            ("play", "ticket/a/b", "-n", "c"),
            "tickets: 'ticket/a/b' and --namespace c are different namespaces",
        ),
        (("play", "ticket/x", "--check"), "tickets: there is no Ticket default/x ("),
        (("play", "ticket/x"), "tickets: there is no Ticket default/x ("),
        (("play", "ticket/my-ticket", "-n", "b"), "tickets: there is no Ticket b/my-ticket ("),
        (
            ("explain", "flight"),
            "tickets: this operator does not watch the kind 'flight'. Its kinds: Ticket\n",
        ),
    ],
)
def test_what_cannot_be_done_is_one_sentence(
    ticket: ObjectKey, run: Run, capsys: pytest.CaptureFixture[str], argv: Sequence[str], sentence: str
) -> None:
    assert run(*argv) == 1
    said = capsys.readouterr()
    assert said.err.startswith(sentence)
    assert (said.out, said.err.count("\n")) == ("", 1)


@pytest.fixture
def discovery(api: ModelApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the model answer discovery requests."""

    def group(name: str, kind: str, plural: str, *short: str) -> dict[str, Any]:
        names = {"resource": plural, "singularResource": f"a-{kind.lower()}", "shortNames": short}
        kinds = [{**names, "responseKind": {"kind": kind}, "scope": "Namespaced"}]
        return {"metadata": {"name": name}, "versions": [{"version": "v1", "resources": kinds}]}

    async def request(method: str, path: str, **options: Any) -> bytes:
        groups = {
            "/api": [group("", "Pod", "pods", "po")],
            "/apis": [group("tests.dev", "Ticket", "tickets", "tk")],
        }
        return json.dumps({"items": groups[path]}).encode()

    monkeypatch.setattr(api, "request", request)


@pytest.mark.usefixtures("discovery")
@pytest.mark.parametrize("word", ["tk", "TK", "tk.tests.dev", "a-ticket", "Ticket", "tickets"])
def test_a_kind_has_the_names_that_the_server_knows_it_by(ticket: ObjectKey, run: Run, word: str) -> None:
    assert run("play", f"{word}/my-ticket", "--check") == 2


@pytest.mark.usefixtures("discovery")
def test_another_operators_kind_is_refused_by_any_name(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    for word in ("po", "pods", "flight"):
        assert run("play", f"{word}/x", "--check") == 1
        sentence = f"tickets: this operator does not watch the kind '{word}'. Its kinds: Ticket\n"
        assert capsys.readouterr().err == sentence


def test_a_name_that_an_unreachable_server_would_know_is_not_called_wrong(
    api: ModelApi, run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def request(method: str, path: str, **options: Any) -> bytes:
        raise Unreachable("connection refused", maybe_sent=False)

    monkeypatch.setattr(api, "request", request)
    assert run("play", "tk/my-ticket", "--check") == 1
    assert capsys.readouterr().err == "tickets: connection refused\n"


def test_a_namespace_that_the_operator_does_not_watch_is_refused(
    ticket: ObjectKey, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("play", "ticket/my-ticket", "--check", WATCH_NAMESPACE="a,b") == 1
    assert "does not watch namespace 'default', only a, b" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "code"),
    [(("play",), 1), (("play", "ticket/x", "--no-such"), 1), (("explain", "a", "b"), 1), (("--no-such",), 2)],
)
def test_a_wrong_usage_is_no_answer_to_a_check(
    run: Run, capsys: pytest.CaptureFixture[str], argv: Sequence[str], code: int
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(*argv)
    assert ended.value.code == code
    assert capsys.readouterr().err.count("\n") == 1


def test_a_flag_overrides_its_variable(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--sync-timeout=4", "--watch-namespace=Not A", WATCH_NAMESPACE="fine") == 2
    assert "WATCH_NAMESPACE is 'Not A'" in capsys.readouterr().err


def test_a_missing_setting_is_reported_and_a_run_keeps_its_exit_code(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("play", "ticket/x", AIRLINE="") == 1
    assert run(AIRLINE="") == 2
    assert capsys.readouterr().err.count("tickets: AIRLINE is not set") == 2


def test_an_unusable_kubeconfig_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)

    @asynccontextmanager
    async def watches(variables: Mapping[str, str]) -> AsyncIterator[Sequence[Watch]]:
        yield [Watch(TICKET, playbook(Airline()))]

    assert cli.main("tickets", watches, ["play", "ticket/x", "--check"], variables={}) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"tickets: the kubeconfig {tmp_path}/none cannot be used: ")
    assert "Traceback" not in said


def test_a_paused_ticket_can_be_checked_and_is_not_played(
    api: ModelApi, airline: Airline, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    api.put(TICKET, "p", spec={"seats": 1}, metadata={"annotations": {PAUSED: "true"}})
    assert run("play", "ticket/p", "--check") == 2
    assert run("play", "ticket/p") == 1
    assert "Ticket default/p is paused. Use --check " in capsys.readouterr().err
    assert (airline.effects, api.writes) == ([], [])


def test_a_plain_list_of_watches_is_run_as_well(
    api: ModelApi, airline: Airline, ticket: ObjectKey, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    watches = [Watch(TICKET, playbook(airline))]

    def command(*argv: str) -> int:
        return cli.main("tickets", watches, argv, variables={"LEADER_ELECT": "true"})

    assert command("explain", "ticket") == 0
    assert command("play", "ticket/my-ticket", "--check") == 2
    assert command("play", "ticket/my-ticket") == 0
    assert command("play", "ticket/my-ticket", "--check") == 0
    assert capsys.readouterr().out.startswith("Ticket (tests.dev/v1)\n")


def test_explain_needs_no_settings_and_no_cluster(capsys: pytest.CaptureFixture[str]) -> None:
    asked: dict[str, Any] = {}

    @asynccontextmanager
    async def watches(variables: Mapping[str, str]) -> AsyncIterator[Sequence[Watch]]:
        asked["airline"] = Environment(variables).text("AIRLINE")
        await asyncio.sleep(0)
        yield [Watch(TICKET, playbook(Airline()))]

    assert cli.main("tickets", watches, ["explain"], variables={}, placeholders={"AIRLINE": "none"}) == 0
    assert asked == {"airline": "none"}
    assert capsys.readouterr().out.startswith("Ticket (tests.dev/v1)\n")
