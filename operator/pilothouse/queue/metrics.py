"""The metrics of a queue, under client-go's names (workqueue_*)."""

from collections.abc import Callable, Sequence
from functools import partial

from pilothouse.telemetry import metrics


class QueueMetrics:
    """The metrics of one queue. Gauges are computed when they are scraped, so keys cost nothing.

    Args:
        name: The name of the queue and its controller.
        depth: Returns the number of waiting keys for each priority, most urgent first.
        processing: Returns the seconds that each key in progress has taken so far.
    """

    def __init__(
        self, name: str, *, depth: Callable[[], Sequence[int]], processing: Callable[[], Sequence[float]]
    ) -> None:
        labels = {"name": name, "controller": name}
        self.adds = metrics.QUEUE_ADDS.labels(**labels)
        self.retries = metrics.QUEUE_RETRIES.labels(**labels)
        self.waited = metrics.QUEUE_SECONDS.labels(**labels).observe
        self.worked = metrics.WORK_SECONDS.labels(**labels).observe
        for priority in range(len(depth())):
            gauge = metrics.QUEUE_DEPTH.labels(**labels, priority=str(-priority * 100))
            gauge.set_function(partial(lambda index: depth()[index], priority))
        metrics.UNFINISHED_WORK_SECONDS.labels(**labels).set_function(lambda: sum(processing()))
        metrics.LONGEST_WORK_SECONDS.labels(**labels).set_function(lambda: max(processing(), default=0.0))
