"""Turns errors into failures of tasks, and sentences: what failed, why, and what to do."""

from collections.abc import Iterable

from etcd_operator.certificates import Certificates
from etcd_operator.mistakes import Mistake
from etcd_operator.records import UnreadableRecord
from etcd_operator.settings import SCOPE
from pilothouse import TaskFailed, Waiting

INVALID_SPEC = "InvalidSpec"
UNREADABLE_RECORD = "UnreadableRecord"
SECRET_UNUSABLE = "SecretUnusable"  # noqa: S105 - a reason

KUBERNETES_REFUSED = "KubernetesRefused"
"""A reason of the framework's."""

OUT_OF_SCOPE = "OutOfScope"

# Seconds until Secrets are read again. The operator may not watch Secrets.
SECRET_SECONDS = 15.0
# Seconds. A watch reports a change of the annotation.
_NEVER = 3600.0


def invalid_spec(mistakes: Iterable[Mistake | str]) -> str:
    """Returns the sentences about the mistakes in a spec."""
    return " ".join(f"{each}." for each in mistakes)


def no_valid_spec(mistakes: Iterable[Mistake | str]) -> TaskFailed:
    """Returns the failure for a spec with mistakes, if there is no earlier valid one."""
    return TaskFailed(INVALID_SPEC, invalid_spec(mistakes), permanent=True)


def unreadable_record(error: UnreadableRecord) -> TaskFailed:
    """Returns the failure for a status that a user has damaged. Without it, nothing is safe."""
    advice = "The operator changes nothing. Restore the field from a backup of the object."
    return TaskFailed(UNREADABLE_RECORD, f"{error}. {advice}", permanent=True)


def secret_unusable(tls: Certificates) -> TaskFailed:
    """Returns the failure for Secrets with mistakes, before there is anything that runs without them."""
    message = " ".join(each.message for each in tls.mistakes)
    return TaskFailed(SECRET_UNUSABLE, message, retry_after=SECRET_SECONDS)


def out_of_scope() -> Waiting:
    """Returns the wait of a cluster that is left to another operator, until its annotation changes.

    Only the command `play` shows it: the status of the cluster belongs to the other operator.
    """
    message = (
        f"The annotation {SCOPE} is clusterwide, and this operator watches only some namespaces. Remove the "
        "annotation, or install the operator for all namespaces."
    )
    return Waiting(OUT_OF_SCOPE, message, fallback=_NEVER)
