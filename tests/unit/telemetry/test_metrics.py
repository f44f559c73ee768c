"""Metrics under the names that dashboards already know."""

import re

from pilothouse.telemetry import metrics

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
