"""Spans of time as Go writes them, "1h30m": the text of metav1.Duration."""

import re
from datetime import timedelta
from typing import Annotated, TypeAlias

import msgspec

# Go's time.ParseDuration. For micro it takes both of Unicode's: the micro sign and the Greek letter.
_NANOSECONDS = {
    "ns": 1,
    "us": 1_000,
    "\u00b5s": 1_000,
    "\u03bcs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
PATTERN = rf"^[+-]?(0|(([0-9]+(\.[0-9]*)?|\.[0-9]+)({'|'.join(_NANOSECONDS)}))+)$"
_WRITTEN = re.compile(PATTERN.strip("^$"))
_PART = re.compile(rf"([0-9]*)\.?([0-9]*)({'|'.join(_NANOSECONDS)})")

DurationText: TypeAlias = Annotated[str, msgspec.Meta(extra_json_schema={"pattern": PATTERN})]
"""A field that holds a span of time, as it was written: `parse_duration` reads it where it is used."""


class TooLongError(ValueError):
    """The duration does not fit into Go's time.Duration: 292 years."""


def parse_duration(text: str) -> timedelta:
    """Parses a duration such as "1h30m". Fractions of a microsecond are dropped.

    Raises:
        ValueError: The text is not a duration, or the duration is longer than 292 years (TooLongError).
    """
    if not _WRITTEN.fullmatch(text):
        raise ValueError(f"{text!r} is no span of time; write one like 30s, 10m or 1h30m")
    nanoseconds = sum(
        int(whole + fraction) * _NANOSECONDS[unit] // 10 ** len(fraction)
        for whole, fraction, unit in _PART.findall(text)
    )
    if nanoseconds >= 2**63:
        raise TooLongError(f"{text!r} is longer than the longest span of time, 292 years")
    span = timedelta(microseconds=nanoseconds // 1_000)
    return -span if text.startswith("-") else span


def format_duration(span: timedelta) -> str:
    """The text that Go would write: "1h30m0s", "1.5s", "250ms", "0s"."""
    microseconds = span // timedelta(microseconds=1)
    if not microseconds:
        return "0s"
    sign, microseconds = ("-", -microseconds) if microseconds < 0 else ("", microseconds)
    if microseconds < 1_000:
        return f"{sign}{microseconds}\u00b5s"
    if microseconds < 1_000_000:
        return f"{sign}{_decimal(microseconds, 3)}ms"
    minutes, rest = divmod(microseconds, 60_000_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{_decimal(rest, 6)}s"
    if hours or minutes:
        text = f"{minutes}m{text}"
    return f"{sign}{hours}h{text}" if hours else f"{sign}{text}"


def _decimal(number: int, digits: int) -> str:
    whole, fraction = divmod(number, 10**digits)
    return f"{whole}.{fraction:0{digits}}".rstrip("0").rstrip(".")
