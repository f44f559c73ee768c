"""The reference page explains every reason that the plan and the tasks use."""

import ast
import re

import pytest

from devcluster.folders import CHECKOUT
from etcd_operator import failures, reasons
from etcd_operator.reasons import ALARMS, REASONS

FOLDER = CHECKOUT / "operator" / "etcd_operator"
PLAN = ("plan", "resumption", "founding", "healing", "resizing", "upgrading", "problems", "labels")
CAMEL_CASE = re.compile(r"[A-Z][a-z]+(?:[A-Z][a-z]+)*")


def words(module: str) -> set[str]:
    """The texts in CamelCase in a module. In a module of the plan, each is a reason."""
    tree = ast.parse((FOLDER / f"{module}.py").read_text())
    texts = {each.value for each in ast.walk(tree) if isinstance(each, ast.Constant)}
    return {text for text in texts if isinstance(text, str) and CAMEL_CASE.fullmatch(text)}


@pytest.mark.parametrize("module", [*PLAN, "failures", "upkeep"])
def test_every_reason_is_explained(module: str) -> None:
    assert words(module)
    # The status of a cluster that another operator serves is not written.
    assert words(module) - REASONS.keys() - {failures.OUT_OF_SCOPE} == set()


def test_no_other_reason_of_the_plan_is_explained() -> None:
    used = set().union(*map(words, PLAN))
    assert (reasons.PLAN.keys() | reasons.PROBLEMS.keys()) - used == set()


def blocking(module: str) -> set[str]:
    """The reasons of the decisions with the step Blocked in a module."""
    tree = ast.parse((FOLDER / f"{module}.py").read_text())
    decisions = [
        each.args
        for each in ast.walk(tree)
        if isinstance(each, ast.Call) and ast.unparse(each.func) == "Decision"
    ]
    return {ast.literal_eval(each[1]) for each in decisions if ast.unparse(each[0]) == "Blocked()"}


def test_whatever_blocks_the_operator_is_an_alarm() -> None:
    reasons = set().union(*map(blocking, PLAN))
    assert {"QuorumLost", "ForeignObjects", "DataLost"} <= reasons
    assert reasons - ALARMS == set()


def test_every_alarm_is_explained() -> None:
    assert REASONS.keys() >= ALARMS


def test_a_meaning_is_a_sentence() -> None:
    for reason, meaning in REASONS.items():
        assert CAMEL_CASE.fullmatch(reason)
        assert meaning.endswith("."), reason
