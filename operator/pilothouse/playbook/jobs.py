"""The manifest and the result of a Job that `run_job` runs."""

from collections.abc import Mapping
from typing import Any

from pilothouse.playbook.names import child_name, digest
from pilothouse.playbook.plain import Json, plain, require_identity
from pilothouse.playbook.tasks import TaskFailed, Waiting
from pilothouse.views import JOB, Job

RUNNING = "JobRunning"
FAILED = "JobFailed"


def job_manifest(body: Mapping[str, Any], owner: str) -> Json:
    """Returns a manifest whose name ends with a digest of the spec, because a Job's spec is immutable.

    Raises:
        PlaybookError: The manifest is not JSON, or contradicts the kind.
    """
    what = "the manifest of the Job"
    manifest = plain(body, what)
    require_identity(JOB, manifest, what)
    metadata = manifest.get("metadata", {})
    name = child_name(metadata.get("name", owner), digest(manifest.get("spec", {})), kind=JOB)
    return {**manifest, "metadata": {**metadata, "name": name}}


def verdict(job: Job, fallback: float) -> Job:
    """Returns the Job if it has succeeded.

    Raises:
        Waiting: The Job has not finished.
        TaskFailed: JobFailed: The Job has failed.
    """
    name, status = job.metadata.name, job.status
    if status.ended("Complete"):
        return job
    if failure := status.ended("Failed"):
        raise TaskFailed(
            FAILED,
            f"Job {name} failed ({failure.reason}): {failure.message.rstrip('.')}. See the logs of its Pods. "
            "To run it again, delete it.",
            permanent=True,
        )
    tries = f" (failed Pods so far: {status.failed})" if status.failed else ""
    raise Waiting(RUNNING, f"Waiting until Job {name} has finished{tries}.", fallback=fallback)
