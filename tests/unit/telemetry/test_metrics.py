"""Metrics have the names that dashboards use."""

import math
import re

import pytest

from pilothouse.telemetry import metrics
from pilothouse.telemetry.series import Histogram

EXPECTED = {
    "rest_client_requests_total",
    "rest_client_request_duration_seconds",
    "controller_runtime_reconcile_total",
    "controller_runtime_reconcile_errors_total",
    "controller_runtime_reconcile_panics_total",
    "controller_runtime_reconcile_timeouts_total",
    "controller_runtime_terminal_reconcile_errors_total",
    "controller_runtime_reconcile_time_seconds",
    "controller_runtime_active_workers",
    "controller_runtime_max_concurrent_reconciles",
    "workqueue_depth",
    "workqueue_adds_total",
    "workqueue_queue_duration_seconds",
    "workqueue_work_duration_seconds",
    "workqueue_unfinished_work_seconds",
    "workqueue_longest_running_processor_seconds",
    "workqueue_retries_total",
    "leader_election_master_status",
    "leader_election_slowpath_total",
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
    "pilothouse_event_loop_lag_seconds",
    "pilothouse_task_seconds",
    "pilothouse_task_results_total",
    "pilothouse_store_objects",
}


def test_names():
    names = set(re.findall(r"^# TYPE (\S+) ", metrics.render().decode(), re.MULTILINE))
    assert names >= EXPECTED


def test_no_created_series():
    metrics.LEADER.labels("metrics-test").set(1)
    metrics.REQUESTS.labels("200", "GET", "metrics-test").inc()
    text = metrics.render().decode()
    assert 'rest_client_requests_total{code="200",host="metrics-test",method="GET"} 1.0' in text
    assert "_created" not in text


# fmt: off
# controller-runtime v0.24.1, pkg/internal/controller/metrics/metrics.go: ReconcileTime.
RECONCILE_TIME = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0,
    1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5, 6, 7, 8, 9, 10, 15, 20, 25, 30, 40, 50, 60,
]
# fmt: on
# controller-runtime v0.24.1, pkg/internal/metrics/workqueue.go: latency and workDuration: 10 ns to 1000 s.
WORK_QUEUE = [1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1, 10, 100, 1000]
# component-base v0.36.2, metrics/prometheus/restclient/metrics.go: requestLatency, registered with client-go;
# controller-runtime registers none.
REQUEST_LATENCY = [0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0]


@pytest.mark.parametrize(
    ("histogram", "theirs"),
    [
        (metrics.RECONCILE_SECONDS, RECONCILE_TIME),
        (metrics.QUEUE_SECONDS, WORK_QUEUE),
        (metrics.WORK_SECONDS, WORK_QUEUE),
        (metrics.REQUEST_SECONDS, REQUEST_LATENCY),
    ],
)
def test_buckets_are_those_that_dashboards_use(histogram: Histogram, theirs: list[float]) -> None:
    labels = ["buckets-test"] * len(histogram.label_names)
    histogram.labels(*labels)
    (family,) = histogram.collect()
    bounds = [
        float(sample.labels["le"])
        for sample in family.samples
        if sample.name.endswith("_bucket") and "buckets-test" in sample.labels.values()
    ]
    assert bounds == pytest.approx([*theirs, math.inf], rel=1e-12)
