"""A stand-in for the Job controller: Jobs are retried, complete or fail."""

from collections.abc import Callable

from pilothouse.kube import Resource
from pilothouse.testing.controllers.cluster import Built, Cluster, StandIn, timestamp
from pilothouse.testing.documents import Json

JOB: Resource[Built] = Resource("batch", "v1", "Job", "jobs", Built)

#: The default number of retries of a Job (batch/v1, backoffLimit).
BACKOFF_LIMIT = 6


class Jobs(StandIn):
    """Completes or fails Jobs, without creating Pods.

    Args:
        try_seconds: The duration of each try, in seconds.
        failures: Returns how many tries of a Job fail before one succeeds; `math.inf` if all fail. With more
            failures than its backoffLimit, the Job fails.
    """

    kinds = (JOB,)

    def __init__(
        self, *, try_seconds: float = 1.0, failures: Callable[[Built], float] = lambda job: 0
    ) -> None:
        self._try_seconds = try_seconds
        self._failures = failures

    async def sync(self, cluster: Cluster, obj: Built) -> float | None:
        """Does the next step for a Job."""
        if obj.metadata.deletion_timestamp is not None or _has_ended(obj):
            return None
        if obj.spec.get("suspend"):
            cluster.forget(obj, "running")
            await cluster.set_status(
                JOB, obj, {"active": 0, "conditions": [_condition("Suspended", "JobSuspended")]}
            )
            return None
        elapsed = cluster.elapsed(obj, "running")
        tries = int(elapsed / self._try_seconds + 1e-6) if self._try_seconds else 10**6
        limit = obj.spec.get("backoffLimit", BACKOFF_LIMIT)
        failed = min(tries, int(min(self._failures(obj), limit + 1)))
        started = obj.status.get("startTime") or timestamp()
        if failed > limit:
            await self._end(cluster, obj, started, failed, succeeded=0)
        elif tries > failed:
            await self._end(cluster, obj, started, failed, succeeded=obj.spec.get("completions") or 1)
        else:
            active = obj.spec.get("parallelism", 1)
            running = {"startTime": started, "active": active, "ready": active, "failed": failed}
            await cluster.set_status(JOB, obj, {**running, "terminating": 0})
            return (tries + 1) * self._try_seconds - elapsed
        return None

    async def _end(self, cluster: Cluster, obj: Built, started: str, failed: int, *, succeeded: int) -> None:
        status: Json = {"startTime": started, "active": 0, "ready": 0, "terminating": 0, "failed": failed}
        if succeeded:
            # The API server requires this condition before the final one.
            reached = _condition(
                "SuccessCriteriaMet", "CompletionsReached", "Reached expected number of succeeded pods"
            )
            ended = [reached, {**reached, "type": "Complete"}]
            status |= {"succeeded": succeeded, "completionTime": timestamp()}
        else:
            target = _condition(
                "FailureTarget", "BackoffLimitExceeded", "Job has reached the specified backoff limit"
            )
            ended = [target, {**target, "type": "Failed"}]
        await cluster.set_status(JOB, obj, {**status, "conditions": ended})


def _condition(type: str, reason: str, message: str = "") -> Json:  # noqa: A002 - the API's word
    return {"type": type, "status": "True", "reason": reason, "message": message}


def _has_ended(job: Built) -> bool:
    conditions = job.status.get("conditions") or ()
    return any(each["type"] in ("Complete", "Failed") and each["status"] == "True" for each in conditions)
