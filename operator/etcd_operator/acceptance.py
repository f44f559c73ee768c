"""Asks the API server whether it would accept a member's pod, before a running one is deleted for it."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from etcd_operator.blueprint import Blueprint
from etcd_operator.model import Configuration, Desired, PodPlan
from etcd_operator.observe import BY_CLUSTER
from etcd_operator.pod_metadata import SHAPE
from etcd_operator.pods import member_pod
from etcd_operator.settings import EtcdSettings
from etcd_operator.shape import shape
from etcd_operator.types import EtcdCluster, EtcdClusterStatus
from etcd_operator.validation import last_valid_spec
from etcd_operator.views import POD
from pilothouse import Play, TaskFailed
from pilothouse.kube import ApiError, Forbidden, Invalid, ServerError

# The member's own pod still has its name.
_SUFFIX = "-dry-run"

# k8s.io/apiserver, admission/plugin/resourcequota. It counts the pod that runs, too.
_EXCEEDED = " is forbidden: exceeded quota: "

# Fields of the pod, by the beginnings of their paths, and the fields of the EtcdCluster that set them.
_SOURCES = {
    "spec.containers[0].env": "spec.pod.etcdEnv",
    "spec.containers[0].resources": "spec.pod.resources",
    "spec.containers[0].image": "spec.repository",
    "spec.volumes": "spec.TLS",
}
# What admission plugins say about objects that do not exist (k8s.io/kubernetes, plugin/pkg/admission).
_NAMED = {
    "no PriorityClass with name": "spec.pod.priorityClassName",
    "error looking up service account": "spec.pod.serviceAccountName",
}
# The message about an object that does not fit the schema, such as one with a key twice.
_IN_SCHEMA = re.compile(r": \.(?P<field>spec\.[A-Za-z.]+)")
_SAME_NAME = re.compile(
    r"spec\.(affinity|nodeSelector|priorityClassName|securityContext|serviceAccountName|tolerations"
    r"|topologySpreadConstraints)\b"
)


class PodRefused(NamedTuple):
    """What the API server refuses.

    Attributes:
        words: Its answer, without full stop.
        source: The field of the EtcdCluster that it is about, as far as the answer shows.
        invalid: Whether the pod itself is not valid. Otherwise the namespace or a policy does not allow it.
        permitted: Whether the operator may create pods at all.
    """

    words: str
    source: str
    invalid: bool
    permitted: bool

    @property
    def remedy(self) -> str:
        """What to do, without full stop."""
        also = "" if self.invalid else ", or change what the answer names, such as a policy of the namespace"
        return f"Correct {self.source}, or set it back{also}"

    def advice(self, name: str) -> str:
        """Returns sentences for a restart that does not begin.

        Args:
            name: The name of the member.
        """
        return (
            f"The API server refuses the new pod of {name}, so the operator keeps the existing one. The "
            f"answer is: {self.words}. {self.remedy}."
        )


def unchecked(name: str, failure: TaskFailed) -> str:
    """Returns sentences for a restart that does not begin, because the API server gave no answer.

    Args:
        name: The name of the member.
        failure: The failure of the dry run.
    """
    return (
        f"The operator keeps the pod of {name} until the API server has checked the new one with a dry run. "
        f"{_last_attempt(failure)}."
    )


async def refused_pod(
    play: Play[EtcdCluster, EtcdClusterStatus], blueprint: Blueprint, plan: PodPlan, settings: EtcdSettings
) -> PodRefused | None:
    """Returns why the API server would refuse a pod. None: it accepts it.

    An exceeded quota is not a refusal, because the deletion of the pod that runs frees its share.

    Args:
        play: The reconcile.
        blueprint: The cluster.
        plan: The pod.
        settings: The operator's settings.

    Raises:
        TaskFailed: The API server cannot answer now.
    """
    trial = f"{plan.name}{_SUFFIX}"
    pod = member_pod(blueprint, plan, image=settings.image(blueprint.spec, plan.version))
    pod["metadata"]["name"] = trial
    error = await play.dry_run(POD, pod)
    if error is None or (isinstance(error, Forbidden) and _EXCEEDED in error.message):
        return None
    permitted = not (isinstance(error, Forbidden) and error.lacks_permission)
    words = _words(error).replace(trial, plan.name)
    return PodRefused(words, _source(error), _is_invalid(error), permitted)


async def refused_spec(
    play: Play[EtcdCluster, EtcdClusterStatus],
    blueprint: Blueprint,
    desired: Desired,
    members: Sequence[str],
    settings: EtcdSettings,
) -> str:
    """Returns why pods of a changed spec would be refused, without the last full stop.

    Empty: they are accepted, or keep their shape.

    With that, the last valid spec stays in force, so the operator can create the pods of members that fail.
    The answer also depends on the namespace. If that changes later, `refused_pod` finds it before a restart.

    Args:
        play: The reconcile.
        blueprint: The cluster with the changed spec, which has no other mistakes.
        desired: The same spec.
        members: The names of the members.
        settings: The operator's settings.
    """
    before = last_valid_spec(play.object.status)
    if before is None or before == blueprint.spec or shape(before) == desired.shape:
        return ""
    pods = play.list(POD, BY_CLUSTER, str(play.object.metadata.key))
    shapes = {each.metadata.name: each.metadata.annotations.get(SHAPE) for each in pods}
    if all(shapes.get(each) == desired.shape for each in members):
        return ""  # The spec is put back, and no pod is created with it.
    plan = PodPlan(members[0], desired.version, Configuration.POISONED)
    try:
        refused = await refused_pod(play, blueprint, plan, settings)
    except TaskFailed as failure:
        # Healing goes on with the last valid spec meanwhile.
        return f"The API server has not checked pods with this spec yet. {_last_attempt(failure)}"
    if refused is None or not refused.permitted:
        return ""
    return f"The API server refuses pods with this {refused.source}: {refused.words}. {refused.remedy}"


def _last_attempt(failure: TaskFailed) -> str:
    """Returns a sentence without full stop. The task that asked is of no interest in it."""
    words = str(failure.__cause__ or failure.message).rstrip(".")
    return f"The last attempt failed: {words}"


def _words(error: ApiError) -> str:
    """Returns the answer of the API server. The order of several causes does not depend on chance."""
    if len(error.causes) > 1:
        return "; ".join(sorted(f"{each.field}: {each.message}" for each in error.causes)).rstrip(".")
    return error.message.rstrip(".")


def _is_invalid(error: ApiError) -> bool:
    """Whether the pod itself is not valid. An admission policy that refuses it names no field."""
    if isinstance(error, Invalid):
        return bool(error.causes) and all(each.field for each in error.causes)
    return isinstance(error, ServerError)


def _source(error: ApiError) -> str:
    """Returns the field of the EtcdCluster that a refusal is about, as far as it shows."""
    for words, source in _NAMED.items():
        if not error.causes and words in error.message:
            return source
    field = min((each.field for each in error.causes), default="")
    if not field and isinstance(error, ServerError) and (found := _IN_SCHEMA.search(error.message)):
        field = found["field"]
    if same := _SAME_NAME.match(field):
        return f"spec.pod.{same[1]}"
    return next((source for start, source in _SOURCES.items() if field.startswith(start)), "spec.pod")
