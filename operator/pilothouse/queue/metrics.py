"""The metrics of one queue, under client-go's names (workqueue_*)."""

from collections.abc import Callable, Sequence
from functools import partial

from pilothouse.telemetry import metrics


class QueueMetrics:
    """What a queue reports. Gauges are computed when they are asked for, so that keys cost nothing.

    Args:
        name: The queue's name, and its controller's.
        depth: Returns how many keys wait, per priority, the most urgent first.
        processing: Returns the age of each sync in progress, in seconds.
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
