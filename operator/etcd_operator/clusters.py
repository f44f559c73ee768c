"""The play of an EtcdCluster, its tasks in the order in which they run, and what it watches."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

from msgspec.structs import replace

from etcd_operator.acceptance import refused_spec
from etcd_operator.authorities import changed_authorities
from etcd_operator.blueprint import Blueprint
from etcd_operator.cluster_scoped import storage_classes
from etcd_operator.etcd import Connections
from etcd_operator.expansion import expansion, members_claims, smaller
from etcd_operator.failures import no_valid_spec, out_of_scope, secret_unusable, unreadable_record
from etcd_operator.members import Members, Next
from etcd_operator.metrics import ClusterMetrics
from etcd_operator.model import Blocked, Decision, Observation, Problem, Record
from etcd_operator.observe import BY_CLUSTER, Sight, cluster_of, observe
from etcd_operator.plan import decide
from etcd_operator.records import UnreadableRecord, record_of
from etcd_operator.seats import Cluster
from etcd_operator.services import client_service, disruption_budget, headless_service
from etcd_operator.settings import EtcdSettings
from etcd_operator.status import failed_status, notices, report
from etcd_operator.surroundings import obstacles, unprovisioned
from etcd_operator.types import ETCD_CLUSTER, LABEL, EtcdCluster, EtcdClusterStatus
from etcd_operator.upkeep import keep_up, release
from etcd_operator.validation import Verdict, judge
from etcd_operator.views import ENDPOINT_SLICE, POD, POD_DISRUPTION_BUDGET, StorageClass
from etcd_operator.volumes import recorded_domain
from pilothouse import (
    PERSISTENT_VOLUME_CLAIM,
    SERVICE,
    EventType,
    ObjectKey,
    Play,
    Playbook,
    Resource,
    Secondary,
    TaskFailed,
    Waiting,
    Watch,
    task,
)
from pilothouse.playbook import State, Stores

T = TypeVar("T")

# The most steps of one reconcile. A founding needs 5 in a row without waiting, and a replacement 4.
MAX_STEPS = 12


class EtcdClusterPlay(Play[EtcdCluster, EtcdClusterStatus]):
    """One reconcile of one EtcdCluster.

    Attributes:
        served: Whether the operator serves the cluster. If not, it does not write its status, either.
        connections: The connections to the members of all clusters.
        settings: The operator's settings.
        metrics: The metrics of all clusters.
        verdict: Which spec is in force. None until the first task has decided that.
        sight: The last observation. None until the second task.
        decision: What the plan decided on it.
        classes: All StorageClasses. None: nothing depends on them, or the operator cannot read them.
        refusals: What etcd and the API server refused in this reconcile.
        troubles: Failures that do not keep the operator from healing the cluster.
    """

    def __init__(
        self,
        etcd_cluster: EtcdCluster,
        connections: Connections,
        settings: EtcdSettings,
        metrics: ClusterMetrics,
        *,
        writes_status: bool = True,
        **engine: Any,
    ) -> None:
        served = settings.serves(etcd_cluster)
        super().__init__(etcd_cluster, writes_status=writes_status and served, **engine)
        self.served = served
        self.connections = connections
        self.settings = settings
        self.metrics = metrics
        self.verdict: Verdict | None = None
        self.sight: Sight | None = None
        self.decision: Decision | None = None
        self.classes: Sequence[StorageClass] | None = None
        self.refusals: list[Problem] = []
        self.troubles: list[Problem] = []

    @property
    def recorded(self) -> Record:
        """What the operator has recorded about the cluster, including this reconcile.

        Raises:
            TaskFailed: The status is damaged.
        """
        try:
            return record_of(self.status)
        except UnreadableRecord as error:
            raise unreadable_record(error) from None

    @property
    def blueprint(self) -> Blueprint:
        """The identity and the valid spec, from which all manifests follow."""
        spec, metadata = _known(_known(self.verdict).spec), self.object.metadata
        return Blueprint(metadata.name, metadata.namespace, metadata.uid, self.recorded.incarnation, spec)

    async def look(self) -> None:
        """Observes the cluster, and decides the next step."""
        desired = _known(_known(self.verdict).desired)
        self.sight = await observe(
            self, self.blueprint, desired, self.recorded, self.connections, self.settings
        )
        self.decision = decide(self.sight.observation)
        if unprovisioned(self.sight) and self.classes is None:
            self.classes = await storage_classes(self)
        if not self.check:
            self.metrics.note(self.object.metadata.key, self.sight.observation, self.decision)

    def decide_again(self) -> None:
        """Decides on the same observation with the record as it is now."""
        sight = _known(self.sight)
        observation = replace(sight.observation, record=self.recorded)
        self.sight = sight._replace(observation=observation)
        self.decision = decide(observation)

    def leave(self) -> None:
        """Frees what the process keeps for a cluster that it served earlier."""
        if not self.check:
            forget(self.object.metadata.key, self.connections, self.metrics)

    def show(self) -> None:
        """Writes what was observed, decided and recorded into the status."""
        sight = _known(self.sight)
        found = report(
            self.status,
            replace(sight.observation, record=self.recorded),
            _known(self.decision),
            _known(self.verdict),
            obstacles=(
                *self.refusals,
                *obstacles(self.blueprint.spec, sight, self.classes),
                *self.troubles,
            ),
            warnings=(*changed_authorities(sight.tls.authorities, sight.pods), *sight.tls.expiring),
        )
        for notice in notices(self.status, found):
            self.event(
                EventType.WARNING if notice.begins else EventType.NORMAL, notice.reason, notice.message
            )
        self.status = found.status
        for each in found.conditions:
            self.condition(each.type, each.status, each.reason, each.message)
        self.ready, self.ready_reason, self.ready_message = found.ready, found.reason, found.message

    @contextmanager
    def healing_goes_on(self) -> Iterator[None]:
        """Reports the failure of a founded cluster's task, and lets the later tasks run.

        The next reconcile comes as soon as the members need it, not after a back-off. An object that is being
        deleted does not stop the later tasks, either.
        """
        try:
            yield
        except Waiting as wait:
            self.requeue_after(wait.fallback)
            self.task_result.note(State.WAITING, wait.message)
            self.troubles.append(Problem(wait.reason, wait.message))
        except TaskFailed as failure:
            if not self.recorded.founded:
                raise
            self.trouble(failure)

    def trouble(self, failure: TaskFailed) -> None:
        """Reports a failure that does not end the reconcile."""
        self.task_result.note(State.FAILED, failure.message)
        self.troubles.append(Problem(failure.reason, failure.message))

    def failed(self, failure: TaskFailed) -> None:
        """Shows what is known of the cluster although a task failed."""
        if self.sight is None or self.decision is None or self.verdict is None:
            self.status = failed_status(self.status, failure)
            return
        ready = self.ready, self.ready_reason, self.ready_message
        self.show()
        self.ready, self.ready_reason, self.ready_message = ready


@task("retained volumes have no owner")
async def release_volumes(play: EtcdClusterPlay) -> None:
    """Follows a switch to Retain first, because the object can be deleted whatever fails or waits after it.

    This includes a paused cluster, a spec with a mistake, and the volumes of removed members.
    """
    if not play.served:
        return
    for claim in play.list(PERSISTENT_VOLUME_CLAIM, BY_CLUSTER, str(play.object.metadata.key)):
        try:
            await release(play, claim)
        except TaskFailed as failure:
            play.trouble(failure)


@task("the spec is valid")
async def check_spec(play: EtcdClusterPlay) -> None:
    """Decides which spec is in force: the last valid one while the object's own has a mistake."""
    if not play.served:
        play.leave()
        raise out_of_scope()
    key = str(play.object.metadata.key)
    claims = members_claims(play.list(PERSISTENT_VOLUME_CLAIM, BY_CLUSTER, key), play.recorded)
    if play.recorded.founded and smaller(play.object.spec, claims):
        play.classes = await storage_classes(play)
    limits = expansion(play.object.spec, claims, play.classes)
    judged = partial(judge, play.object, play.recorded, limits, recorded_domain(claims))
    play.verdict = judged()
    if refusal := await _refusal(play):
        play.verdict = judged(refusal=refusal)
    if play.verdict.desired is None:
        raise no_valid_spec(play.verdict.mistakes)


async def _refusal(play: EtcdClusterPlay) -> str:
    """Returns why the API server refuses pods of a spec that has no other mistakes, for a founded cluster.

    Empty: it does not, or was not asked.
    """
    verdict, record = _known(play.verdict), play.recorded
    if verdict.mistakes or verdict.desired is None or not record.founded or not record.seats:
        return ""
    members = [each.name for each in record.seats]
    return await refused_spec(play, play.blueprint, verdict.desired, members, play.settings)


@task("the cluster is observed")
async def observe_cluster(play: EtcdClusterPlay) -> None:
    """Asks Kubernetes and the members for their state, and decides the next step."""
    await play.look()
    tls = _known(play.sight).tls
    if tls.mistakes and not play.recorded.founded:
        raise secret_unusable(tls)


@task("the Services and the PodDisruptionBudget match the spec")
async def apply_services(play: EtcdClusterPlay) -> None:
    """Applies the Services and the budget, unless nothing may be touched."""
    observation, blueprint = _known(play.sight).observation, play.blueprint
    founded, blocked = observation.record.founded, isinstance(_known(play.decision).step, Blocked)
    if observation.desired.paused or (blocked and not founded):
        play.skip()
        return
    for service in (headless_service(blueprint), client_service(blueprint)):
        with play.healing_goes_on():
            await _apply(play, SERVICE, service)
    with play.healing_goes_on():
        budget = disruption_budget(blueprint, *_voters(observation))
        if budget:
            await _apply(play, POD_DISRUPTION_BUDGET, budget)
        elif play.get(POD_DISRUPTION_BUDGET, blueprint.name):
            await play.delete(POD_DISRUPTION_BUDGET, blueprint.name)


async def _apply(play: EtcdClusterPlay, resource: Resource[Any], body: dict[str, Any]) -> None:
    """Applies a manifest, and records an Event if an object of a cluster that was complete is missing."""
    name = body["metadata"]["name"]
    complete = any(each.type == "Ready" and each.status == "True" for each in play.status.conditions)
    missing = complete and play.get(resource, name) is None
    await play.apply(resource, body)
    if missing:
        note = f"Applied the {resource.kind} {name}, which did not exist or had lost its labels."
        play.event(EventType.NORMAL, "ObjectApplied", note)


@task("the next step is taken")
async def take_steps(play: EtcdClusterPlay) -> None:
    """Takes the next step, and those that can follow without waiting, each on a new decision."""
    for _ in range(MAX_STEPS):
        sight, decision = _known(play.sight), _known(play.decision)
        members = Members(play, play.blueprint, sight, decision, play.settings)
        result = await members.carry_out()
        play.refusals, play.decision = members.refusals, members.decision
        match result:
            case Next.DECIDE:
                play.decide_again()
            case Next.OBSERVE if not play.check:
                await play.look()
            case _:
                return
    play.requeue_after(0.1)


@task("labels, sizes and owners match the spec")
async def keep_up_with_spec(play: EtcdClusterPlay) -> None:
    """Brings the changes of the spec that need no restart to the pods and volumes of a founded cluster."""
    sight = _known(play.sight)
    if play.recorded.founded and not sight.observation.desired.paused:
        with play.healing_goes_on():
            play.refusals += await keep_up(play, play.blueprint, sight)


@task("the status shows the cluster")
async def show_cluster(play: EtcdClusterPlay) -> None:
    """Writes what was observed and decided into the status."""
    play.show()


def _voters(observation: Observation) -> tuple[int, int]:
    """Returns how many voters the budget protects, and how many a user has added.

    They are those that etcd lists. Without a list, they are those that the status records.

    A promotion and a removal end their reconcile. So the next one raises the budget before it adds the new
    voter to the client Service, which the budget selects, and lowers it right after a removal. In between,
    the voter that the budget does not select yet makes up for the lower number.
    """
    cluster = Cluster(observation)
    if not observation.record.founded:
        return 0, 0
    if not cluster.known:
        return len(observation.record.seats), 0
    return len(cluster.voters), cluster.count - len(cluster.voters)


def etcd_watch(connections: Connections, settings: EtcdSettings) -> Watch:
    """Returns what the operator watches, and the playbook of EtcdClusters.

    There is no finalizer: Kubernetes deletes what an EtcdCluster owns, which includes its volumes if
    `storage.whenDeleted` is Delete.

    Args:
        connections: The connections to the members.
        settings: The operator's settings.
    """
    metrics = ClusterMetrics()

    def play(etcd_cluster: EtcdCluster, **engine: Any) -> EtcdClusterPlay:
        return EtcdClusterPlay(etcd_cluster, connections, settings, metrics, **engine)

    def gone(key: ObjectKey) -> None:
        forget(key, connections, metrics)

    tasks = [
        release_volumes,
        check_spec,
        observe_cluster,
        apply_services,
        take_steps,
        keep_up_with_spec,
        show_cluster,
    ]
    return Watch(
        ETCD_CLUSTER,
        Playbook(play, tasks=tasks, on_gone=gone),
        watches=[
            _labelled(POD),
            _labelled(PERSISTENT_VOLUME_CLAIM),
            _labelled(ENDPOINT_SLICE),
            _labelled(SERVICE),
            _labelled(POD_DISRUPTION_BUDGET),
        ],
    )


def forget(key: ObjectKey, connections: Connections, metrics: ClusterMetrics) -> None:
    """Closes the connections to the members of a cluster, and removes its metrics."""
    connections.members(key, ())
    metrics.forget(key)


def _known(value: T | None) -> T:
    """Returns what an earlier task has set."""
    assert value is not None, "the tasks run in order"  # noqa: S101
    return value


def _labelled(resource: Resource[Any]) -> Secondary:
    """Returns the objects of a kind that have the label with the name of their cluster."""
    return Secondary(resource, mapper=_clusters, selector=LABEL, indexes={BY_CLUSTER: _in_cluster})


def _in_cluster(obj: Any) -> Iterable[str]:
    return cluster_of(obj.metadata)


def _clusters(obj: Any, stores: Stores) -> Iterable[ObjectKey]:
    name = obj.metadata.labels.get(LABEL)
    return [ObjectKey(obj.metadata.namespace, name)] if name else []
