"""Durations in Go's format, such as "1h30m": the text of metav1.Duration."""

import re
from datetime import timedelta
from typing import Annotated, TypeAlias

import msgspec

# The units of Go's time.ParseDuration. It accepts both the micro sign and the Greek letter mu.
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
"""A field with a duration, as the user wrote it. Parse it with `parse_duration` where it is used."""


class TooLongError(ValueError):
    """The duration exceeds the maximum of Go's time.Duration, 292 years."""


def parse_duration(text: str) -> timedelta:
    """Parses a duration such as "1h30m". Fractions of a microsecond are dropped.

    Raises:
        ValueError: The text is not a duration, or the duration is longer than 292 years (TooLongError).
    """
    if not _WRITTEN.fullmatch(text):
        raise ValueError(f"{text!r} is not a duration; use a format such as 30s, 10m or 1h30m")
    nanoseconds = sum(
        int(whole + fraction) * _NANOSECONDS[unit] // 10 ** len(fraction)
        for whole, fraction, unit in _PART.findall(text)
    )
    if nanoseconds >= 2**63:
        raise TooLongError(f"the duration {text!r} is too long; the maximum is 292 years")
    span = timedelta(microseconds=nanoseconds // 1_000)
    return -span if text.startswith("-") else span


def format_duration(span: timedelta) -> str:
    """Returns a duration in Go's format: "1h30m0s", "1.5s", "250ms" or "0s"."""
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
