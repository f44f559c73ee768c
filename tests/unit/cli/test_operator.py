"""A wrong setting ends the process with one line on standard error, before anything else is checked."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from pilothouse.cli import run_operator
from pilothouse.playbook import Watch
from pilothouse.process import Environment


@asynccontextmanager
async def watches(variables: Mapping[str, str]) -> AsyncIterator[Sequence[Watch]]:
    Environment(variables).count("OWN_COUNT", 1)
    yield []


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
