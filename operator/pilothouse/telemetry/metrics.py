"""The process's metrics, under the names that controller-runtime's dashboards and alerts use.

Names, labels and buckets follow controller-runtime 0.24 (pkg/internal/controller/metrics, pkg/metrics) and
client-go's workqueue and leader election providers. The names that begin with `pilothouse_` are our own. All
metrics are in the registry `REGISTRY`, not in the default registry of prometheus_client.
"""

import prometheus_client
from prometheus_client import CollectorRegistry, Gauge, ProcessCollector, generate_latest

from pilothouse.telemetry.series import Counter, Histogram

# prometheus_client would add a `_created` line to every counter and histogram. Dashboards do not use it.
prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]  # the library's gap

REGISTRY = CollectorRegistry(auto_describe=True)
"""The registry whose metrics the process serves under /metrics. Register your operator's metrics here."""
ProcessCollector(registry=REGISTRY)

CONTENT_TYPE = prometheus_client.CONTENT_TYPE_PLAIN_0_0_4

# fmt: off
# controller-runtime, pkg/internal/controller/metrics/metrics.go: 5 ms to 60 s.
_RECONCILE_BUCKETS = (
    0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.25,
    1.5, 1.75, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 15.0, 20.0, 25.0, 30.0, 40.0,
    50.0, 60.0,
)
# fmt: on
# controller-runtime, pkg/internal/metrics/workqueue.go: 10 ns, times 10, 12 buckets.
_QUEUE_BUCKETS = tuple(1e-8 * 10**power for power in range(12))
# client-go's exporters for the request latency: 5 ms to 60 s.
_REQUEST_BUCKETS = (0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)


def _counter(name: str, text: str, *labels: str) -> Counter:
    return Counter(name, text, labels, REGISTRY)


def _gauge(name: str, text: str, *labels: str) -> Gauge:
    return Gauge(name, text, labels, registry=REGISTRY)


def _histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
    return Histogram(name, text, labels, buckets, REGISTRY)


REQUESTS = _counter(
    "rest_client_requests_total",
    "Requests to the API server, by status code, method and host.",
    "code",
    "method",
    "host",
)
REQUEST_SECONDS = _histogram(
    "rest_client_request_duration_seconds",
    "Seconds until the API server answered a request.",
    _REQUEST_BUCKETS,
    "verb",
    "host",
)
REQUEST_RETRIES = _counter(
    "rest_client_request_retries_total",
    "Requests to the API server that were retried.",
    "code",
    "verb",
    "host",
)

RECONCILES = _counter(
    "controller_runtime_reconcile_total",
    "Reconciles by result: success, error, requeue or requeue_after.",
    "controller",
    "result",
)
RECONCILE_ERRORS = _counter(
    "controller_runtime_reconcile_errors_total", "Reconciles that ended with an error.", "controller"
)
TERMINAL_RECONCILE_ERRORS = _counter(
    "controller_runtime_terminal_reconcile_errors_total",
    "Reconciles that ended with an error that is not retried until the object changes.",
    "controller",
)
RECONCILE_TIMEOUTS = _counter(
    "controller_runtime_reconcile_timeouts_total", "Reconciles that timed out.", "controller"
)
RECONCILE_PANICS = _counter(
    "controller_runtime_reconcile_panics_total",
    "Reconciles that ended with an unexpected error.",
    "controller",
)
RECONCILE_SECONDS = _histogram(
    "controller_runtime_reconcile_time_seconds",
    "Duration of a reconcile, in seconds.",
    _RECONCILE_BUCKETS,
    "controller",
)
ACTIVE_WORKERS = _gauge(
    "controller_runtime_active_workers", "Workers that are reconciling an object.", "controller"
)
MAX_CONCURRENT_RECONCILES = _gauge(
    "controller_runtime_max_concurrent_reconciles", "Number of workers.", "controller"
)

QUEUE_DEPTH = _gauge(
    "workqueue_depth", "Keys that are waiting for a worker.", "name", "controller", "priority"
)
QUEUE_ADDS = _counter("workqueue_adds_total", "Keys added to the queue.", "name", "controller")
QUEUE_RETRIES = _counter("workqueue_retries_total", "Keys requeued with back-off.", "name", "controller")
QUEUE_SECONDS = _histogram(
    "workqueue_queue_duration_seconds",
    "Seconds that a key waited in the queue.",
    _QUEUE_BUCKETS,
    "name",
    "controller",
)
WORK_SECONDS = _histogram(
    "workqueue_work_duration_seconds",
    "Seconds that a worker spent on a key.",
    _QUEUE_BUCKETS,
    "name",
    "controller",
)
UNFINISHED_WORK_SECONDS = _gauge(
    "workqueue_unfinished_work_seconds",
    "Seconds spent so far on all keys in progress, summed.",
    "name",
    "controller",
)
LONGEST_WORK_SECONDS = _gauge(
    "workqueue_longest_running_processor_seconds",
    "Seconds spent so far on the key that has been in progress longest.",
    "name",
    "controller",
)

LEADER = _gauge("leader_election_master_status", "1 if this process is the leader, else 0.", "name")
LEADER_SLOWPATH = _counter(
    "leader_election_slowpath_total", "Renewals that had to read the Lease first.", "name"
)

TASK_SECONDS = _histogram(
    "pilothouse_task_seconds",
    "Duration of a playbook task, in seconds.",
    _REQUEST_BUCKETS,
    "playbook",
    "task",
)
TASK_RESULTS = _counter(
    "pilothouse_task_results_total",
    "Playbook tasks by result: ok, changed, skipped, waiting or failed.",
    "playbook",
    "task",
    "result",
)
CORRECTIONS = _counter(
    "pilothouse_corrections_total",
    "Objects restored after another client changed or deleted them.",
    "resource",
)
LOOP_LAG_SECONDS = _histogram(
    "pilothouse_event_loop_lag_seconds",
    "Seconds that a callback waited for the event loop, measured every 2 s.",
    (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
WATCH_FAILING = _gauge(
    "pilothouse_watch_failing", "Watches of a kind that are failing and being retried.", "resource"
)
STORE_OBJECTS = _gauge("pilothouse_store_objects", "Objects in the stores of a kind.", "resource")
UNDECODABLE_OBJECTS = _counter(
    "pilothouse_undecodable_objects_total",
    "Objects ignored because they do not fit the view that decodes them.",
    "resource",
)


def render() -> bytes:
    """Returns all metrics in the Prometheus text format; its content type is `CONTENT_TYPE`."""
    return generate_latest(REGISTRY)
