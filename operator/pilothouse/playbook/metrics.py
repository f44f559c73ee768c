"""The metrics of one playbook's tasks."""

from functools import cache

from prometheus_client import Counter

from pilothouse.playbook.playbook import Recap
from pilothouse.playbook.tasks import State
from pilothouse.telemetry import metrics
from pilothouse.telemetry.histogram import Series


class TaskMetrics:
    """What a playbook reports of its tasks.

    Args:
        playbook: Its name.
    """

    def __init__(self, playbook: str) -> None:
        def results(task: str, state: State) -> Counter:
            return metrics.TASK_RESULTS.labels(playbook=playbook, task=task, result=state.value)

        def seconds(task: str) -> Series:
            return metrics.TASK_SECONDS.labels(playbook=playbook, task=task)

        # Looking a series up by its labels costs more than counting in it.
        self._results = cache(results)
        self._seconds = cache(seconds)

    def played(self, recap: Recap) -> None:
        """Counts the tasks of one play."""
        for result in recap.results:
            self._results(result.task, result.state).inc()
            self._seconds(result.task).observe(result.seconds)
