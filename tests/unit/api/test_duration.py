"""Durations in Go's format."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.api import format_duration, parse_duration

# What Go's time.ParseDuration and Duration.String make of them.
KNOWN = {
    "0": (0.0, "0s"),
    "1h30m": (5400.0, "1h30m0s"),
    "90s": (90.0, "1m30s"),
    "1.5s": (1.5, "1.5s"),
    "250ms": (0.25, "250ms"),
    "1h": (3600.0, "1h0m0s"),
    "1.5h": (5400.0, "1h30m0s"),
    "-1m": (-60.0, "-1m0s"),
    "3us": (0.000003, "3\u00b5s"),
    "3\u03bcs": (0.000003, "3\u00b5s"),
    ".5m": (30.0, "30s"),
}


@pytest.mark.parametrize(("text", "known"), KNOWN.items())
def test_reads_and_writes_as_go_does(text: str, known: tuple[float, str]) -> None:
    seconds, canonical = known
    assert parse_duration(text) == timedelta(seconds=seconds)
    assert format_duration(parse_duration(text)) == canonical


@pytest.mark.parametrize("text", ["", "10", "1d", "h", "1h 30m", "1h30", "one", "1s\n", "1.2.3s"])
def test_invalid_durations_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration; use a format such as"):
        parse_duration(text)


def test_durations_beyond_the_maximum_of_go_are_refused() -> None:
    with pytest.raises(ValueError, match="292 years"):
        parse_duration("2562048h")


@given(st.timedeltas(timedelta(days=-100_000), timedelta(days=100_000)))
def test_reads_back_what_it_writes(span: timedelta) -> None:
    assert parse_duration(format_duration(span)) == span
