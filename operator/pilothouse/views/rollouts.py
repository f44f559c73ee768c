"""Whether a workload is rolled out, by the rules of `kubectl rollout status`, and if it is not, why."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pilothouse.views.pods import Pod, Problem
from pilothouse.views.storage import PersistentVolumeClaim

ROLLED_OUT = "RolledOut"
ROLLING_OUT = "RollingOut"
DEADLINE = "ProgressDeadlineExceeded"
QUOTA = "exceeded quota"

# The pattern of a condition's reason (metav1.Condition). Reasons of a container runtime may not match it.
REASON = re.compile("[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?")


@dataclass(frozen=True)
class Rollout:
    """The progress of a workload's rollout. In a boolean context, it is true once the rollout is done.

    Attributes:
        done: Whether every replica runs the current spec and is available.
        failed: Whether the workload has exceeded its progress deadline (ProgressDeadlineExceeded). Its
            controller keeps trying, so the rollout may still succeed.
        reason: One word for programs: RolledOut, RollingOut, or the reason for the delay, such as
            ImagePullBackOff, CrashLoopBackOff, Unschedulable or QuotaExceeded.
        message: The progress and the reason for the delay, as sentences for people.
    """

    done: bool
    failed: bool
    reason: str
    message: str

    def __bool__(self) -> bool:
        return self.done


def rollout(
    workload: str,
    progress: str,
    problems: Sequence[Problem],
    *,
    pods: Iterable[Pod],
    claims: Sequence[PersistentVolumeClaim] | None,
) -> Rollout:
    """Returns the progress of a rollout.

    Args:
        workload: The workload's kind and name: "Deployment web".
        progress: What is missing, as a sentence. Empty if nothing is missing.
        problems: The problems that the workload's conditions report. With the reason DEADLINE, the rollout
            counts as failed.
        pods: The workload's pods.
        claims: The claims of these pods. None: they were not read.
    """
    if not progress:
        return Rollout(True, False, ROLLED_OUT, f"{workload} is rolled out.")
    # Newest pods first: the problems of the current revision matter most.
    newest = sorted(pods, key=_newest_first)
    found = [problem for pod in newest if (problem := _of_pod(pod, claims))]
    failed = any(problem.reason == DEADLINE for problem in problems)
    # A pod's problem is the most specific, the exceeded deadline the least.
    reported = [*found[:1], *sorted(problems, key=lambda problem: problem.reason == DEADLINE)]
    reason = reported[0].reason if reported and REASON.fullmatch(reported[0].reason) else ROLLING_OUT
    sentences = [f"{workload}: {progress}", *(_sentence(problem.message) for problem in reported)]
    return Rollout(False, failed, reason, " ".join(sentences))


def _newest_first(pod: Pod) -> tuple[float, str]:
    created = pod.metadata.creation_timestamp
    return (-created.timestamp() if created else 0.0, pod.metadata.name)


def _of_pod(pod: Pod, claims: Sequence[PersistentVolumeClaim] | None) -> Problem | None:
    problem = pod.problem()
    if problem is None or problem.reason != "Unschedulable" or claims is None:
        return problem
    # The scheduler only reports that a volume is missing. The claims show which one.
    unscheduled = problem.message.rstrip(".")
    known = {claim.metadata.name: claim for claim in claims}
    for name in pod.claims:
        claim = known.get(name)
        if claim is None:
            return Problem("VolumePending", f"{unscheduled}. PersistentVolumeClaim {name} does not exist")
        if claim.status.phase == "Pending":
            storage = claim.spec.storage_class_name
            where = f"of StorageClass {storage}" if storage else "without a StorageClass"
            return Problem(
                "VolumePending", f"{unscheduled}. PersistentVolumeClaim {name} {where} is not bound yet"
            )
    return problem


def _sentence(text: str) -> str:
    text = text.rstrip(". \n")
    return f"{text[:1].upper()}{text[1:]}."


def creation_problem(message: str) -> Problem:
    """Returns the problem for the API server's refusal to create a workload's pods."""
    reason = "QuotaExceeded" if QUOTA in message else "FailedCreate"
    return Problem(reason, f"the pods cannot be created: {message}")
