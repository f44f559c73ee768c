"""Histories with one mistake each must fail, and those that are only unusual must pass."""

from pathlib import Path

import pytest

from tests.etcd.history import Kind, Operation, Outcome
from tests.etcd.linearizability import check, registers

# The checker is built from its Go module the first time.
pytestmark = pytest.mark.timeout(600)


def write(
    value: str, called: int, returned: int, outcome: Outcome = Outcome.OK, key: str = "key"
) -> Operation:
    return Operation(0, called, Kind.WRITE, key, called, returned, outcome, value)


def read(value: str | None, called: int, returned: int, key: str = "key") -> Operation:
    return Operation(1, called, Kind.READ, key, called, returned, value=value)


LINEARIZABLE = {
    "nothing": [],
    "a missing key": [read(None, 1, 2), write("a", 3, 4), read("a", 5, 6)],
    "concurrent writes in any order": [write("a", 1, 9), write("b", 2, 8), read("b", 10, 11)],
    "a read that overlaps the write": [write("a", 1, 4), write("b", 5, 9), read("a", 6, 7), read("b", 8, 9)],
    "equal times overlap": [write("a", 1, 5), read(None, 5, 6)],
    "keys are independent": [write("a", 1, 2), read(None, 3, 4, key="other")],
    "an unknown write that had no effect": [
        write("a", 1, 2), write("b", 3, 4, Outcome.UNKNOWN), read("a", 5, 6), read("a", 7, 8),
    ],
    "an unknown write that had its effect long after its error": [
        write("a", 1, 2), write("b", 3, 4, Outcome.UNKNOWN), read("a", 5, 6), read("b", 7, 8),
    ],
    "a failed read": [
        write("a", 1, 2), Operation(1, 3, Kind.READ, "key", 3, 4, Outcome.FAILED), read("a", 5, 6),
    ],
}  # fmt: skip
NOT_LINEARIZABLE = {
    "a stale read": [write("a", 1, 2), write("b", 3, 4), read("a", 5, 6)],
    "a lost write": [write("a", 1, 2), read(None, 3, 4)],
    "a read of what was not written": [write("a", 1, 2), read("x", 3, 4)],
    "a read from the future": [read("a", 1, 2), write("a", 3, 4)],
    "an unknown write that a read saw before it was sent": [
        read("a", 1, 2), write("a", 3, 4, Outcome.UNKNOWN), read("a", 5, 6),
    ],
    "two reads that go back": [
        write("a", 1, 2), write("b", 3, 10), read("b", 4, 5), read("a", 6, 7),
    ],
    "an unknown write whose effect is undone": [
        write("a", 1, 2), write("b", 3, 4, Outcome.UNKNOWN), read("b", 5, 6), read("a", 7, 8),
    ],
    "a failed write that had an effect": [
        write("a", 1, 2), write("b", 3, 4, Outcome.FAILED), read("b", 5, 6),
    ],
    "one of several keys": [
        write("a", 1, 2), read("a", 3, 4), write("c", 1, 2, key="other"), read(None, 3, 4, key="other"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", LINEARIZABLE)
def test_a_linearizable_history_passes(name: str) -> None:
    assert check(LINEARIZABLE[name]) == ""


@pytest.mark.parametrize("name", NOT_LINEARIZABLE)
def test_a_history_that_is_not_linearizable_fails(name: str) -> None:
    key = "other" if "several" in name else "key"
    assert check(NOT_LINEARIZABLE[name]) == f"The operations on {key} are not linearizable."


def test_a_failure_can_be_looked_at(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    assert str(page) in check(NOT_LINEARIZABLE["a stale read"], page)
    assert "<html" in page.read_text()
    page.unlink()
    check(LINEARIZABLE["a missing key"], page)
    assert not page.exists()


def test_an_outage_with_hundreds_of_open_writes_is_checked_quickly() -> None:
    # All are sent at the same time. One of them is seen later, which the search would otherwise find only
    # after it has tried an exponential number of orders.
    lost = [write(f"lost-{number}", 10, 20, Outcome.UNKNOWN) for number in range(600)]
    late = [read("a", 30, 31), read("lost-300", 40, 41), write("b", 50, 51), read("b", 60, 61)]
    history = [write("a", 1, 2), *lost, *late]
    assert check(history) == ""
    assert check([*history, read("lost-300", 70, 71)]) != ""


def test_a_write_without_an_answer_ends_with_the_first_read_of_its_value() -> None:
    unknown = write("b", 3, 4, Outcome.UNKNOWN)
    early, late = read("b", 5, 8), read("b", 9, 12)
    for reads in ([early, late], [late, early]):
        found = registers([unknown, *reads])
        assert [(each.called, each.returned) for each in found if each.kind is Kind.WRITE] == [(3, 8)]
    assert registers([unknown, read("b", 5, 8, key="other")]) == [read("b", 5, 8, key="other")]
