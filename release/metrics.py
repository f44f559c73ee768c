"""The reference page of the metrics, generated from the registry that serves them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from prometheus_client import Counter, Gauge

from etcd_operator import metrics as etcd_metrics
from pilothouse.telemetry import metrics
from pilothouse.telemetry.series import Series

_HEAD = """<!-- Written by `./inv generate` from pilothouse.telemetry.metrics and etcd_operator.metrics. -->

# Metrics

The operator serves `/metrics` on port 8081 in the Prometheus text format. See
[secure metrics](../howto/secure-metrics.md) for TLS and tokens, and [alerts](../howto/alerts.md) for alert
rules. If controller-runtime or client-go has the same metric, name, labels and buckets are the same here, so
their dashboards and alerts work unchanged. The `process_*` metrics of the Prometheus client libraries are
served, too. The etcd operator has the metrics `etcd_cluster_*`. They end with their EtcdCluster.

| Metric | Type | Labels | Meaning | Named after |
| --- | --- | --- | --- | --- |
"""
_NAMED_AFTER = {
    "rest_client_": "client-go",
    "controller_runtime_": "controller-runtime",
    "workqueue_": "controller-runtime",
    "leader_election_": "client-go",
    "pilothouse_": "Pilothouse",
    "etcd_cluster_": "Pilothouse",
}


class Described(NamedTuple):
    """A metric: its scraped name, type, labels and meaning."""

    name: str
    type: str
    labels: tuple[str, ...]
    text: str


def described() -> Iterator[Described]:
    """Yields the metrics in the order of their declaration."""
    for each in (*vars(metrics).values(), *vars(etcd_metrics).values()):
        if isinstance(each, Counter | Gauge | Series):
            (family,) = each.collect()
            labels = each.label_names if isinstance(each, Series) else each._labelnames
            name = f"{family.name}_total" if family.type == "counter" else family.name
            yield Described(name, family.type, tuple(labels), family.documentation)


def page() -> str:
    """Returns the page, which has a row for each metric."""
    return _HEAD + "".join(_row(each) for each in described())


def _row(metric: Described) -> str:
    (after,) = (after for prefix, after in _NAMED_AFTER.items() if metric.name.startswith(prefix))
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    return f"| `{metric.name}` | {metric.type} | {labels} | {metric.text} | {after} |\n"
