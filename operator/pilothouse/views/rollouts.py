"""Whether a workload is rolled out, by the rules of `kubectl rollout status`; and if it is not, why."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pilothouse.views.pods import Pod, Problem
from pilothouse.views.storage import PersistentVolumeClaim

ROLLED_OUT = "RolledOut"
ROLLING_OUT = "RollingOut"
DEADLINE = "ProgressDeadlineExceeded"
QUOTA = "exceeded quota"

# metav1.Condition, the pattern of a reason: a container runtime may have others.
REASON = re.compile("[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?")


@dataclass(frozen=True)
class Rollout:
    """How far the rollout of a workload is. It is true when it is done.

    Attributes:
        done: Whether every replica runs the present spec and is available.
        failed: Whether the workload's controller has given up waiting (ProgressDeadlineExceeded). It may
            still succeed: the controller goes on trying.
        reason: For machines: RolledOut, RollingOut, or what is in the way, such as ImagePullBackOff,
            CrashLoopBackOff, Unschedulable, QuotaExceeded.
        message: The same for people, as sentences.
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
    """Puts together how far a rollout is.

    Args:
        workload: Its kind and name: "Deployment web".
        progress: What is missing, as a sentence; empty when nothing is.
        problems: What the workload's own conditions report; one with the reason DEADLINE ends the wait.
        pods: Its pods.
        claims: The claims of these pods; None when they were not read.
    """
    if not progress:
        return Rollout(True, False, ROLLED_OUT, f"{workload} is rolled out.")
    # Of the present revision first: what is wrong with an older pod matters less.
    newest = sorted(pods, key=_newest_first)
    found = [problem for pod in newest if (problem := _of_pod(pod, claims))]
    failed = any(problem.reason == DEADLINE for problem in problems)
    # A pod knows best; the deadline knows least.
    told = [*found[:1], *sorted(problems, key=lambda problem: problem.reason == DEADLINE)]
    reason = told[0].reason if told and REASON.fullmatch(told[0].reason) else ROLLING_OUT
    sentences = [f"{workload}: {progress}", *(_sentence(problem.message) for problem in told)]
    return Rollout(False, failed, reason, " ".join(sentences))


def _newest_first(pod: Pod) -> tuple[float, str]:
    created = pod.metadata.creation_timestamp
    return (-created.timestamp() if created else 0.0, pod.metadata.name)


def _of_pod(pod: Pod, claims: Sequence[PersistentVolumeClaim] | None) -> Problem | None:
    problem = pod.problem()
    if problem is None or problem.reason != "Unschedulable" or claims is None:
        return problem
    # The scheduler only says that a volume is missing; which one, the claims tell.
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
    """What it means that a controller cannot create pods, in the API server's words."""
    reason = "QuotaExceeded" if QUOTA in message else "FailedCreate"
    return Problem(reason, f"its pods cannot be created: {message}")
