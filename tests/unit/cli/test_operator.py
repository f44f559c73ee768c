"""A wrong setting ends the process with one line on standard error, before anything else is checked."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pilothouse.cli import main, run_operator
from pilothouse.playbook import Playbook, Watch, task
from pilothouse.process import Environment
from tests.unit.tickets import TICKET


@asynccontextmanager
async def watches(variables: Mapping[str, str]) -> AsyncIterator[Sequence[Watch]]:
    Environment(variables).count("OWN_COUNT", 1)
    yield [Watch(TICKET, [one])]


@pytest.fixture
def kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An invalid kubeconfig."""
    path = tmp_path / "kubeconfig"
    path.write_text("foo")
    monkeypatch.setenv("KUBECONFIG", str(path))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    return path


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        (
            {"WATCH_NAMESPACE": "Not A Namespace", "OWN_COUNT": "x"},
            "WATCH_NAMESPACE is 'Not A Namespace'. Use ",
        ),
        ({"OWN_COUNT": "x"}, "OWN_COUNT is 'x'. Use a whole number"),
        ({}, "the kubeconfig {kubeconfig} cannot be used: it is not a kubeconfig: Expected"),
    ],
)
def test_errors_are_reported_in_this_order_and_form(
    kubeconfig: Path, capsys: pytest.CaptureFixture[str], variables: dict[str, str], sentence: str
) -> None:
    assert run_operator("tickets", watches, variables=variables) == 2
    said = capsys.readouterr()
    assert said.err.startswith("tickets: " + sentence.format(kubeconfig=kubeconfig))
    assert (said.out, said.err.count("\n")) == ("", 1)


@task("one")
async def one(play: Any) -> None:
    """Does nothing."""


def test_an_empty_list_of_watches_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_operator("tickets", [], variables={}) == 1
    assert capsys.readouterr().err.startswith("tickets: the list of watches is empty")


@asynccontextmanager
async def one_watch(variables: Mapping[str, str]) -> AsyncIterator[Any]:
    yield Watch(TICKET, [one])


@asynccontextmanager
async def broken(variables: Mapping[str, str]) -> AsyncIterator[Any]:
    wrong: Any = Playbook
    yield [Watch(TICKET, wrong(None, tasks=[one]))]


async def not_decorated(variables: Mapping[str, str]) -> Any:
    return [Watch(TICKET, [one])]


def a_list(variables: Mapping[str, str]) -> Any:
    return [Watch(TICKET, [one])]


SAME_NAME = [Watch(TICKET, [one]), Watch(replace(TICKET, group="other.dev"), [one])]


@pytest.mark.parametrize(
    "arguments", [[], ["explain"], ["explain", "ticket"], ["play", "ticket/a", "--check"]]
)
@pytest.mark.parametrize(
    ("made", "sentence"),
    [
        (Watch(TICKET, [one]), "the watches are a Watch. Pass a list: [Watch(...)]."),
        ([TICKET], "the watches have the Resource Ticket, which is not a Watch."),
        (None, "the watches are None. Pass a list"),
        (one_watch, "the watches are a Watch. Pass a list"),
        (broken, "the Playbook: play is None, but must be Play"),
        (not_decorated, "what the function of the watches returned is a coroutine that was not awaited"),
        (a_list, "the function of the watches returned a list. Write it as an async def that yields"),
        (SAME_NAME, "two watches are named 'ticket': that of tickets.tests.dev (cli/test_operator.py:"),
    ],
)
def test_a_mistake_in_the_watches_is_one_sentence(
    made: Any, sentence: str, arguments: Sequence[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main("tickets", made, arguments, variables={}) == 1
    said = capsys.readouterr()
    assert said.err.startswith(f"tickets: {sentence}")
    assert (said.out, said.err.count("\n")) == ("", 1)


@pytest.mark.parametrize(
    ("name", "settings", "sentence"),
    [
        ("My Operator", (), "the operator's name 'My Operator' is not valid in its Lease"),
        (["tickets"], (), "the operator's name ['tickets'] is not valid in its Lease"),
        ("tickets", Environment, "settings is the class Environment. Pass a list of classes"),
    ],
)
def test_a_mistake_in_the_arguments_of_main_is_one_sentence(
    name: Any, settings: Any, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(name, [Watch(TICKET, [one])], ["explain"], settings=settings) == 1
    assert capsys.readouterr().err.startswith(f"main: {sentence}")
