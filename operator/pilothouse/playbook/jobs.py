"""Jobs that a play runs to their end."""

from collections.abc import Mapping
from typing import Any

import msgspec

from pilothouse.playbook.manifest import Json
from pilothouse.playbook.names import child_name, digest
from pilothouse.playbook.tasks import TaskFailed, Waiting
from pilothouse.views import JOB, Job

RUNNING = "JobRunning"
FAILED = "JobFailed"


def job_manifest(body: Mapping[str, Any], owner: str) -> Json:
    """A Job whose name tells its content: what a Job runs cannot be changed, so it needs another name."""
    asked: Json = msgspec.to_builtins(body)
    metadata = asked.get("metadata", {})
    name = child_name(metadata.get("name", owner), digest(asked.get("spec", {})), kind=JOB)
    return {**asked, "metadata": {**metadata, "name": name}}


def verdict(job: Job, fallback: float) -> Job:
    """A Job that has succeeded.

    Raises:
        Waiting: It has not ended.
        TaskFailed: It has failed.
    """
    name, status = job.metadata.name, job.status
    if status.ended("Complete"):
        return job
    if failure := status.ended("Failed"):
        raise TaskFailed(
            FAILED,
            f"Job {name} failed ({failure.reason}): {failure.message.rstrip('.')}. See its Pods' logs, "
            "then delete it to have it run again.",
            permanent=True,
        )
    tries = f", after {status.failed} failed tries" if status.failed else ""
    raise Waiting(RUNNING, f"Waiting until Job {name} has ended{tries}.", fallback=fallback)
