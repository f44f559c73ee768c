"""All formats of Retry-After, and the limit of the delay."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.kube import retry_after_seconds


@pytest.fixture
def nine_o_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pilothouse.kube.retry_after.now", lambda: datetime(2026, 3, 1, 9, 0, 0, tzinfo=UTC))


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("0", 0),
        ("7", 7),
        ("0.05", 0.05),
        ("-5", 0),
        ("300", 300),
        ("86400", 300),
        ("Sun, 01 Mar 2026 09:01:30 GMT", 90),
        ("Sunday, 01-Mar-26 09:01:30 GMT", 90),
        ("Sun Mar  1 09:01:30 2026", 90),
        ("Sun, 01 Mar 2026 08:00:00 GMT", 0),
        ("Mon, 02 Mar 2026 09:00:00 GMT", 300),
    ],
)
def test_seconds_and_dates(nine_o_clock: None, header: str, seconds: float) -> None:
    assert retry_after_seconds(header) == seconds


@pytest.mark.parametrize("header", ["", "soon", "inf", "-inf", "nan", "9" * 400, "²", "Sun, 99 Mar 2026"])
def test_an_invalid_header_is_ignored(header: str) -> None:
    assert retry_after_seconds(header) is None


@given(st.text(st.sampled_from("0123456789 ,:-+.eGMTSunMar"), max_size=40) | st.text(max_size=40))
def test_the_delay_is_always_finite(header: str) -> None:
    seconds = retry_after_seconds(header)
    assert seconds is None or 0 <= seconds <= 300
