"""The metrics of a controller, with the names of controller-runtime (controller_runtime_*)."""

from enum import StrEnum

from pilothouse.telemetry import metrics


class Result(StrEnum):
    """The result of a reconcile. The value is the label that controller-runtime uses."""

    SUCCESS = "success"
    REQUEUE = "requeue"
    REQUEUE_AFTER = "requeue_after"
    ERROR = "error"
    TERMINAL_ERROR = "terminal_error"
    TIMEOUT = "timeout"
    PANIC = "panic"
    """An unexpected exception: the counterpart of a Go panic."""

    @property
    def label(self) -> str:
        """The value of the label `result`. All kinds of errors share the value `error`."""
        return "error" if self in _ERRORS else self.value


_ERRORS = {Result.ERROR, Result.TERMINAL_ERROR, Result.TIMEOUT, Result.PANIC}


class ControllerMetrics:
    """The metrics of one controller. All series exist from the start, with the value 0.

    Args:
        name: The controller's name.
        workers: The maximum number of concurrent reconciles.
    """

    def __init__(self, name: str, workers: int) -> None:
        self.active = 0
        self._results = {
            result: metrics.RECONCILES.labels(controller=name, result=result.label) for result in Result
        }
        self._seconds = metrics.RECONCILE_SECONDS.labels(controller=name)
        self._errors = metrics.RECONCILE_ERRORS.labels(controller=name)
        self._special = {
            Result.TERMINAL_ERROR: metrics.TERMINAL_RECONCILE_ERRORS.labels(controller=name),
            Result.TIMEOUT: metrics.RECONCILE_TIMEOUTS.labels(controller=name),
            Result.PANIC: metrics.RECONCILE_PANICS.labels(controller=name),
        }
        metrics.MAX_CONCURRENT_RECONCILES.labels(controller=name).set(workers)
        metrics.ACTIVE_WORKERS.labels(controller=name).set_function(lambda: self.active)

    def synced(self, result: Result, seconds: float) -> None:
        """Records one reconcile.

        Args:
            result: How it ended.
            seconds: How long it took.
        """
        self._results[result].inc()
        self._seconds.observe(seconds)
        if result in _ERRORS:
            self._errors.inc()
            if result in self._special:
                self._special[result].inc()
