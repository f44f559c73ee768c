"""The manifest and the result of a Job that `run_job` runs."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pilothouse.playbook.names import child_name, digest
from pilothouse.playbook.ownership import NAME_TAKEN
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


@contextmanager
def named_by_playbook(body: Mapping[str, Any], kind: str) -> Iterator[None]:
    """Adds what the author can do to the failure NameTaken, if the playbook has chosen the name of the Job.

    Args:
        body: The manifest of the Job, as the task passes it.
        kind: The kind of the object that is reconciled.
    """
    try:
        yield
    except TaskFailed as failure:
        given = body.get("metadata", {}).get("name")
        if failure.reason != NAME_TAKEN or not given:
            raise
        raise TaskFailed(
            failure.reason,
            f"{failure.message} Every {kind} needs a Job name of its own: the playbook can use "
            f"child_name(play.object.metadata.name, {given!r}) as metadata.name.",
        ) from failure


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
