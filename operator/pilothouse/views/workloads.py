"""Deployment and StatefulSet: their desired and actual replicas, and whether they are rolled out."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from pilothouse.kube import EMPTY, ObjectMeta, Resource
from pilothouse.views.conditions import StatusCondition, condition_of
from pilothouse.views.pods import Pod, Problem
from pilothouse.views.rollouts import DEADLINE, Rollout, creation_problem, rollout
from pilothouse.views.storage import PersistentVolumeClaim

UNSEEN = "The controller has not seen the current spec yet."

OPERATORS = {"In": "in", "NotIn": "notin"}


class LabelRequirement(msgspec.Struct, frozen=True, gc=False):
    """A condition on one label.

    Attributes:
        key: The label.
        operator: In, NotIn, Exists or DoesNotExist.
        values: The values, for In and NotIn.
    """

    key: str
    operator: str
    values: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.operator in OPERATORS:
            return f"{self.key} {OPERATORS[self.operator]} ({','.join(self.values)})"
        return self.key if self.operator == "Exists" else f"!{self.key}"


class LabelSelector(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """metav1.LabelSelector. Its `str()` is the text for `label_selector` of a Watch or a request."""

    match_labels: Mapping[str, str] = EMPTY
    match_expressions: tuple[LabelRequirement, ...] = ()

    def __str__(self) -> str:
        labels = (f"{key}={value}" for key, value in self.match_labels.items())
        return ",".join([*labels, *map(str, self.match_expressions)])


class DeploymentSpec(msgspec.Struct, frozen=True, gc=False):
    """The specification of a Deployment.

    Attributes:
        replicas: The desired number of pods.
        selector: The labels of the Deployment's pods.
        paused: Whether the rollout is paused.
    """

    replicas: int = 1
    selector: LabelSelector = LabelSelector()
    paused: bool = False


class DeploymentStatus(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """The state of a Deployment.

    Attributes:
        observed_generation: The generation that the other fields describe.
        replicas: The number of pods that are not terminating.
        updated_replicas: The number of pods of the current template.
        ready_replicas: The number of ready pods.
        available_replicas: The number of pods that have been ready for minReadySeconds.
        conditions: Available, Progressing and ReplicaFailure.
    """

    observed_generation: int = 0
    replicas: int = 0
    updated_replicas: int = 0
    ready_replicas: int = 0
    available_replicas: int = 0
    conditions: tuple[StatusCondition, ...] = ()


class Deployment(msgspec.Struct, frozen=True, gc=False):
    """apps/v1 Deployment."""

    metadata: ObjectMeta = ObjectMeta()
    spec: DeploymentSpec = DeploymentSpec()
    status: DeploymentStatus = DeploymentStatus()

    def owns(self, pod: Pod) -> bool:
        """Whether a pod belongs to a ReplicaSet of this Deployment, judged by their names."""
        prefix = f"{self.metadata.name}-"
        return any(
            each.controller and each.kind == "ReplicaSet" and each.name.rpartition("-")[0] + "-" == prefix
            for each in pod.metadata.owner_references
        )

    def rolled_out(
        self, pods: Iterable[Pod] = (), claims: Sequence[PersistentVolumeClaim] | None = None
    ) -> Rollout:
        """Returns the rollout of the current spec, by the rules of `kubectl rollout status`.

        Args:
            pods: Pods, to report why they do not run. Pods of other owners are ignored.
            claims: The PersistentVolumeClaims of the namespace, to report which volume is missing.
        """
        own = [pod for pod in pods if self.owns(pod)]
        name = f"Deployment {self.metadata.name}"
        return rollout(name, self._missing(), [*self._problems()], pods=own, claims=claims)

    def _missing(self) -> str:
        """Returns what is missing, or an empty string (kubectl: pkg/polymorphichelpers/rollout_status.go)."""
        spec, status = self.spec, self.status
        if self.metadata.generation > status.observed_generation:
            return UNSEEN
        if status.updated_replicas < spec.replicas:
            return f"{status.updated_replicas} of {spec.replicas} pods are updated."
        if status.replicas > status.updated_replicas:
            return f"Old pods still running: {status.replicas - status.updated_replicas}."
        if status.available_replicas < status.updated_replicas:
            return f"{status.available_replicas} of {status.updated_replicas} updated pods are available."
        if _deadline_exceeded(status):
            return "The rollout exceeded its progress deadline."
        return ""

    def _problems(self) -> Iterator[Problem]:
        status = self.status
        if self.metadata.generation > status.observed_generation:
            return  # The conditions describe an earlier spec.
        failure = condition_of(status.conditions, "ReplicaFailure")
        if failure is not None and failure.status == "True":
            yield creation_problem(failure.message)
        if self.spec.paused:
            yield Problem("DeploymentPaused", "the rollout is paused by spec.paused")
        if _deadline_exceeded(status):
            yield Problem(DEADLINE, "the rollout exceeded its progress deadline")


def _deadline_exceeded(status: DeploymentStatus) -> bool:
    progressing = condition_of(status.conditions, "Progressing")
    return progressing is not None and progressing.reason == DEADLINE


class RollingUpdate(msgspec.Struct, frozen=True, gc=False):
    """The settings of a StatefulSet's rolling update.

    Attributes:
        partition: Pods with an ordinal below this number keep the old revision.
    """

    partition: int = 0


class UpdateStrategy(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """How a StatefulSet replaces pods of an old revision.

    Attributes:
        type: RollingUpdate or OnDelete. With OnDelete, someone else deletes the old pods.
        rolling_update: The settings for RollingUpdate.
    """

    type: str = "RollingUpdate"
    rolling_update: RollingUpdate = RollingUpdate()


class StatefulSetSpec(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """The specification of a StatefulSet.

    Attributes:
        replicas: The desired number of pods.
        selector: The labels of the StatefulSet's pods.
        update_strategy: How it replaces pods of an old revision.
    """

    replicas: int = 1
    selector: LabelSelector = LabelSelector()
    update_strategy: UpdateStrategy = UpdateStrategy()


class StatefulSetStatus(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """The state of a StatefulSet.

    Attributes:
        observed_generation: The generation that the other fields describe.
        replicas: The number of pods.
        ready_replicas: The number of ready pods.
        available_replicas: The number of pods that have been ready for minReadySeconds.
        updated_replicas: The number of pods of the current template.
    """

    observed_generation: int = 0
    replicas: int = 0
    ready_replicas: int = 0
    available_replicas: int = 0
    updated_replicas: int = 0


class StatefulSet(msgspec.Struct, frozen=True, gc=False):
    """apps/v1 StatefulSet."""

    metadata: ObjectMeta = ObjectMeta()
    spec: StatefulSetSpec = StatefulSetSpec()
    status: StatefulSetStatus = StatefulSetStatus()

    def owns(self, pod: Pod) -> bool:
        """Whether this StatefulSet is the controller of a pod."""
        own = self.metadata.uid
        return any(each.controller and each.uid == own for each in pod.metadata.owner_references)

    def rolled_out(
        self, pods: Iterable[Pod] = (), claims: Sequence[PersistentVolumeClaim] | None = None
    ) -> Rollout:
        """Returns the rollout of the current spec, by the rules of `kubectl rollout status`.

        With the strategy OnDelete, which kubectl does not support, it is rolled out when all pods are ready,
        whatever their revision.

        Args:
            pods: Pods, to report why they do not run. Pods of other owners are ignored.
            claims: The PersistentVolumeClaims of the namespace, to report which volume is missing.
        """
        own = [pod for pod in pods if self.owns(pod)]
        return rollout(f"StatefulSet {self.metadata.name}", self._missing(), (), pods=own, claims=claims)

    def _missing(self) -> str:
        """Returns what is missing, or an empty string (kubectl: pkg/polymorphichelpers/rollout_status.go)."""
        spec, status = self.spec, self.status
        if not status.observed_generation or self.metadata.generation > status.observed_generation:
            return UNSEEN
        if status.ready_replicas < spec.replicas:
            return f"{status.ready_replicas} of {spec.replicas} pods are ready."
        if spec.update_strategy.type != "RollingUpdate":
            return ""
        wanted = spec.replicas - spec.update_strategy.rolling_update.partition
        if status.updated_replicas < wanted:
            return f"{status.updated_replicas} of {wanted} pods are updated."
        return ""


DEPLOYMENT: Resource[Deployment] = Resource("apps", "v1", "Deployment", "deployments", Deployment)
"""Deployments."""

STATEFUL_SET: Resource[StatefulSet] = Resource("apps", "v1", "StatefulSet", "statefulsets", StatefulSet)
"""StatefulSets."""
