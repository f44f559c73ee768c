"""Job."""

from datetime import datetime

import msgspec

from pilothouse.kube import ObjectMeta, Resource
from pilothouse.views.conditions import StatusCondition, condition_of


class JobStatus(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """How far a Job is.

    Attributes:
        active: How many of its pods are pending or running.
        succeeded: How many of its pods have succeeded.
        failed: How many of its pods have failed.
        completion_time: When it completed.
        conditions: Complete or Failed once it has ended; Suspended.
    """

    active: int = 0
    succeeded: int = 0
    failed: int = 0
    completion_time: datetime | None = None
    conditions: tuple[StatusCondition, ...] = ()

    def ended(self, how: str) -> StatusCondition | None:
        """Returns the condition Complete or Failed if it is True, else None."""
        found = condition_of(self.conditions, how)
        return found if found is not None and found.status == "True" else None


class Job(msgspec.Struct, frozen=True, gc=False):
    """batch/v1 Job."""

    metadata: ObjectMeta = ObjectMeta()
    status: JobStatus = JobStatus()


JOB: Resource[Job] = Resource("batch", "v1", "Job", "jobs", Job)
"""Jobs, as `Play.run_job` reads them."""
