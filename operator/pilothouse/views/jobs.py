"""Job."""

from datetime import datetime

import msgspec

from pilothouse.kube import ObjectMeta, Resource
from pilothouse.views.conditions import StatusCondition, condition_of


class JobStatus(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """The progress of a Job.

    Attributes:
        active: The number of pods that are pending or running.
        succeeded: The number of pods that have succeeded.
        failed: The number of pods that have failed.
        completion_time: The time at which the Job completed.
        conditions: Complete or Failed once the Job has ended, and Suspended.
    """

    active: int = 0
    succeeded: int = 0
    failed: int = 0
    completion_time: datetime | None = None
    conditions: tuple[StatusCondition, ...] = ()

    def ended(self, how: str) -> StatusCondition | None:
        """Returns a condition if it is True, else None.

        Args:
            how: The type of the condition, Complete or Failed.
        """
        found = condition_of(self.conditions, how)
        return found if found is not None and found.status == "True" else None


class Job(msgspec.Struct, frozen=True, gc=False):
    """batch/v1 Job."""

    metadata: ObjectMeta = ObjectMeta()
    status: JobStatus = JobStatus()


JOB: Resource[Job] = Resource("batch", "v1", "Job", "jobs", Job)
"""Jobs, as `Play.run_job` reads them."""
