"""The reference page of the metrics, from the registry that serves them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from prometheus_client import Gauge

from pilothouse.telemetry import metrics
from pilothouse.telemetry.series import Series

_HEAD = """<!-- Written by `./inv generate` from pilothouse.telemetry.metrics; change that. -->

# Metrics

`/metrics` on port 8081, in the Prometheus text format; [secure metrics](../howto/secure-metrics.md) puts TLS
and a token before it, [alerts](../howto/alerts.md) has rules. Where controller-runtime or client-go has a
metric, it has that name, those labels and those buckets here, so their dashboards and alerts work as they
are. Beside these there are the `process_*` metrics of Prometheus's client libraries.

| Metric | Type | Labels | What it tells | Named after |
| --- | --- | --- | --- | --- |
"""
_NAMED_AFTER = {
    "rest_client_": "client-go",
    "controller_runtime_": "controller-runtime",
    "workqueue_": "controller-runtime",
    "leader_election_": "client-go",
    "pilothouse_": "ours",
}


class Described(NamedTuple):
    """A metric: its name as scraped, its type and labels, and what it tells."""

    name: str
    type: str
    labels: tuple[str, ...]
    text: str


def described() -> Iterator[Described]:
    """Go over the metrics in the order of their declaration."""
    for each in vars(metrics).values():
        if isinstance(each, Gauge | Series):
            (family,) = each.collect()
            labels = each.label_names if isinstance(each, Series) else each._labelnames
            name = f"{family.name}_total" if family.type == "counter" else family.name
            yield Described(name, family.type, tuple(labels), family.documentation)


def page() -> str:
    """The page: a row for each metric."""
    return _HEAD + "".join(_row(each) for each in described())


def _row(metric: Described) -> str:
    (after,) = (after for prefix, after in _NAMED_AFTER.items() if metric.name.startswith(prefix))
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    return f"| `{metric.name}` | {metric.type} | {labels} | {metric.text} | {after} |\n"
