"""A defect's traceback is logged once, and its repetitions take few lines."""

import logging
from collections.abc import Callable

import pytest

from pilothouse.telemetry import defects, log_defect

LOG = logging.getLogger("tests.defects")


def fail() -> None:
    raise KeyError("a")


def fail_elsewhere() -> None:
    raise KeyError("a")


def recurse(depth: int) -> None:
    if not depth:
        raise KeyError("a")
    recurse(depth - 1)


def log(function: Callable[[], None], name: str = "x") -> None:
    try:
        function()
    except KeyError as error:
        log_defect(LOG, error, "%s is not reconciled", name)


def test_ten_thousand_objects_with_one_defect_are_a_few_lines(caplog: pytest.LogCaptureFixture) -> None:
    for number in range(10_000):
        log(fail, f"object-{number}")
    first, second, *_ = records = caplog.records
    assert first.exc_info
    assert not any(each.exc_info for each in records[1:])
    assert second.getMessage() == (
        "object-1 is not reconciled "
        "(KeyError, occurrence 2 of this defect; the traceback was logged with the first)"
    )
    assert len(records) == 37
    assert all(each.levelno == logging.ERROR for each in records)


def test_at_level_debug_every_occurrence_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, LOG.name):
        for _ in range(25):
            log(fail)
    assert len(caplog.records) == 25


def test_another_line_is_another_defect(caplog: pytest.LogCaptureFixture) -> None:
    log(fail)
    log(fail_elsewhere)
    assert [bool(each.exc_info) for each in caplog.records] == [True, True]


def test_the_depth_of_a_recursion_does_not_matter(caplog: pytest.LogCaptureFixture) -> None:
    for depth in (3, 50, 200):
        log(lambda depth=depth: recurse(depth))  # type: ignore[misc]
    assert [bool(each.exc_info) for each in caplog.records] == [True, False, False]


def test_what_is_remembered_is_bounded(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(defects, "CAPACITY", 1)
    log(fail)
    log(fail_elsewhere)
    log(fail)
    assert len(defects._occurrences) == 1
    assert all(each.exc_info for each in caplog.records)
