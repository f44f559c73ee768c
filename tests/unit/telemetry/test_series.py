"""Our counters and histograms expose the same text as those of prometheus_client."""

import prometheus_client
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest

from pilothouse.telemetry.series import Counter, Histogram

BUCKETS = (0.005, 0.1, 1.0, 60.0)
amounts = st.lists(st.one_of(st.sampled_from((0.0, *BUCKETS)), st.floats(0, 100)), max_size=20)


@given(st.dictionaries(st.sampled_from(["a", "b"]), amounts))
def test_histograms_are_exposed_as_by_prometheus_client(observed: dict[str, list[float]]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    mine = Histogram("seconds", "Seconds.", ("name", "kind"), BUCKETS, ours)
    other = prometheus_client.Histogram(
        "seconds", "Seconds.", ("name", "kind"), registry=theirs, buckets=BUCKETS
    )
    for name, seconds in observed.items():
        mine.labels(name=name, kind="x")
        for amount in seconds:
            mine.labels(name, "x").observe(amount)
            other.labels(name, "x").observe(amount)
        other.labels(name, "x")
    assert generate_latest(ours) == generate_latest(theirs)


@given(st.dictionaries(st.sampled_from(["a", "b"]), st.integers(0, 20)))
def test_counters_are_exposed_as_by_prometheus_client(counted: dict[str, int]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    mine = Counter("requests_total", "Requests.", ("name", "kind"), ours)
    other = prometheus_client.Counter("requests_total", "Requests.", ("name", "kind"), registry=theirs)
    for name, times in counted.items():
        mine.labels(name=name, kind="x")
        other.labels(name, "x")
        for _ in range(times):
            mine.labels(name, "x").inc()
            other.labels(name, "x").inc()
    assert generate_latest(ours) == generate_latest(theirs)


@pytest.mark.parametrize("values", [("a",), ("a", "b", "c")])
def test_labels_that_do_not_fit_are_refused(values: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="seconds has the labels name, kind"):
        Histogram("seconds", "Seconds.", ("name", "kind"), BUCKETS, CollectorRegistry()).labels(*values)
