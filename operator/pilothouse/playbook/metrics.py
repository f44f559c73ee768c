"""The metrics of one playbook's tasks."""

from functools import lru_cache

from pilothouse.playbook.playbook import Recap
from pilothouse.playbook.tasks import State
from pilothouse.telemetry import metrics
from pilothouse.telemetry.series import Count, Observations


class TaskMetrics:
    """The metrics that a playbook reports about its tasks.

    Args:
        playbook: The name of the playbook.
    """

    def __init__(self, playbook: str) -> None:
        def series(task: str, state: State) -> tuple[Count, Observations]:
            return (
                metrics.TASK_RESULTS.labels(playbook=playbook, task=task, result=state.value),
                metrics.TASK_SECONDS.labels(playbook=playbook, task=task),
            )

        # A lookup of the series by its labels costs more than the increment.
        self._series = lru_cache(maxsize=1024)(series)

    def played(self, recap: Recap) -> None:
        """Counts the tasks of one reconcile, and observes how long they took."""
        for result in recap.results:
            count, seconds = self._series(result.task, result.state)
            count.inc()
            seconds.observe(result.seconds)
