"""The code of docs/howto/test-with-faults.md runs, and does what the page says."""

import ast
import re
from pathlib import Path
from typing import Any

import pytest

from pilothouse.testing import ModelApi, eventually, explain, explore, plugin
from tests.unit.tickets import TICKET

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "howto" / "test-with-faults.md").read_text()
SCENARIO, ERRORS, ONE_RUN, STAND_INS, PLUGIN, WAIT = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def example() -> dict[str, Any]:
    """The namespace of the example's module."""
    names: dict[str, Any] = {"__name__": "example"}
    for piece in (SCENARIO, ERRORS, STAND_INS):
        run(piece, names)
    return names


def run(piece: str, names: dict[str, Any]) -> None:
    exec(compile(piece, "test-with-faults.md", "exec"), names)  # noqa: S102 - what the page shows


def test_the_scenario_ends_in_the_same_state_with_every_fault(example: dict[str, Any]) -> None:
    matrices = []

    def explored(scenario: Any, *, pairs: int) -> Any:
        matrices.append(explore(scenario, pairs=min(pairs, 10)))  # Fewer than on the page, to save time.
        return matrices[-1]

    example["explore"] = explored
    example["test_every_fault_at_every_call"]()
    [matrix] = matrices
    suffered = {injection.fault for run in matrix.runs for injection in run.struck}
    assert suffered == set(example["Fault"])


def test_a_single_run_is_printed(example: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    run(ONE_RUN, example)
    printed = capsys.readouterr().out
    assert re.fullmatch(r".*call 5.*: converged\n", printed), printed


def test_the_plugin_has_the_fixtures_in_the_table() -> None:
    assert PLUGIN.splitlines()[-1] in (ROOT / "tests" / "conftest.py").read_text().splitlines()
    table = PAGE.partition("| fixture | what it is |")[2].partition("\n\n")[0]
    named = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    assert len(named) == 5
    assert [name for name in named if not hasattr(plugin, name)] == []


@pytest.mark.usefixtures("virtual_time")
async def test_a_wait_that_fails_shows_the_objects(model: ModelApi) -> None:
    model.put(TICKET, "t", spec={"seats": 2})
    names = {"eventually": eventually, "explain": explain, "client": model, "TICKETS": TICKET}
    names |= {"namespace": "default", "booked": lambda: False}
    waiting = compile(WAIT.strip(), "test-with-faults.md", "eval", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    with pytest.raises(AssertionError, match='"seats": 2'):
        await eval(waiting, names)  # noqa: S307 - what the page shows
