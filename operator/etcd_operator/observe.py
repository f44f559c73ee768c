"""Gathers everything that a decision depends on: the cluster's objects, and what its members answer.

Before the founding is complete, the objects are listed live, because a stale store could hide a volume that
was replaced. After that they come from the stores, and `members` checks its targets live.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple, TypeVar

from msgspec.structs import replace

from etcd_operator.authorities import distrusting
from etcd_operator.blueprint import Blueprint
from etcd_operator.certificates import Certificates, certificates, secrets_of
from etcd_operator.cluster_scoped import node_signals
from etcd_operator.endpoints import (
    Answer,
    alarms,
    ask,
    blindness,
    chosen_list,
    recalled_list,
    rivals,
    state_of,
)
from etcd_operator.errors import CredentialsError
from etcd_operator.etcd import Connections, Endpoint, Etcd, Member, MemberList
from etcd_operator.labels import lacks_label
from etcd_operator.model import (
    Action,
    Desired,
    EndpointState,
    Failure,
    MemberState,
    Observation,
    PodState,
    Record,
    Signal,
    Trace,
    VolumeState,
)
from etcd_operator.pod_states import addressed_uids, pod_state
from etcd_operator.services import trace_of
from etcd_operator.settings import EtcdSettings
from etcd_operator.types import LABEL, EtcdCluster, EtcdClusterStatus
from etcd_operator.views import ENDPOINT_SLICE, POD, EndpointSlice, Pod, has_ended
from etcd_operator.volumes import volume_of_claim, volume_of_pod
from pilothouse import PERSISTENT_VOLUME_CLAIM, SECRET, SERVICE, ObjectMeta, Play, Resource
from pilothouse.telemetry import now
from pilothouse.views import PersistentVolumeClaim

T = TypeVar("T", Pod, PersistentVolumeClaim)

BY_CLUSTER = "cluster"
"""The index of pods, claims and EndpointSlices by the namespace and name of the cluster in their label."""

SERVICE_NAME = "kubernetes.io/service-name"
"""The label of an EndpointSlice with the name of its Service."""


class Sight(NamedTuple):
    """What one reconcile sees.

    Attributes:
        observation: What the plan decides on.
        clients: The clients of the members that answered Status, by the names of their pods.
        listed: The linearizable member list as etcd returned it, with all peer URLs. None: there is none.
        tls: What the Secrets with certificates hold.
        pods: The labelled pods.
        claims: The labelled PVCs.
    """

    observation: Observation
    clients: Mapping[str, Etcd]
    listed: MemberList | None
    tls: Certificates
    pods: Sequence[Pod]
    claims: Sequence[PersistentVolumeClaim]


class _Hidden(NamedTuple):
    """The objects of members that have lost the label. The pods are those that the EtcdCluster owns."""

    pods: Sequence[Pod] = ()
    claims: Sequence[PersistentVolumeClaim] = ()


def cluster_of(metadata: ObjectMeta) -> Iterable[str]:
    """Returns the value of an object in the index `BY_CLUSTER`."""
    name = metadata.labels.get(LABEL)
    return [f"{metadata.namespace}/{name}"] if name else []


async def observe(
    play: Play[EtcdCluster, EtcdClusterStatus],
    blueprint: Blueprint,
    desired: Desired,
    record: Record,
    connections: Connections,
    settings: EtcdSettings,
) -> Sight:
    """Observes a cluster.

    This makes 2 calls to each member. Once the cluster is founded, only its Secrets, the nodes of unready
    pods, and missing pods and PVCs are read from Kubernetes.

    Args:
        play: The reconcile.
        blueprint: The cluster.
        desired: The spec in force.
        record: The record in the status.
        connections: The connections to the members.
        settings: The operator's settings, for the images of versions.

    Raises:
        TaskFailed: The API server refused a request.
    """
    labelled, claims = await _objects(play, live=not record.founded)
    hidden = await _hidden(play, record, labelled, claims, ephemeral=desired.ephemeral)
    pods = (*labelled, *hidden.pods)
    addressed = addressed_uids(_headless_slices(play))
    moment = now()
    nodes = await node_signals(play, pods, moment)
    states = tuple(
        pod_state(
            blueprint,
            each,
            lambda version: settings.image(blueprint.spec, version),
            now=moment,
            addressed=each.metadata.uid in addressed,
            node=nodes.get(each.spec.node_name, Signal.HEALTHY),
        )
        for each in pods
    )
    tls = await _tls(play, blueprint, moment)
    members, blind = _members(connections, play.object, blueprint, pods, tls)
    ending = {each.name for each in states if each.deleting}
    answers = await ask(members, hashes=not record.founded, ending=ending)
    chosen = chosen_list(answers, record.cluster_id)
    found = await alarms(members, answers)
    listed = chosen.listed if chosen else None
    recalled = recalled_list(answers, record.cluster_id) if listed is None else None
    observation = Observation(
        name=play.object.metadata.name,
        uid=play.object.metadata.uid,
        now=moment,
        desired=desired,
        record=record,
        volumes=_volumes(desired, claims, pods, hidden),
        claims=tuple(map(volume_of_claim, claims)) if desired.ephemeral and not record.founded else (),
        pods=states,
        members=_member_states(blueprint, listed),
        members_cluster_id=listed.cluster_id if listed else 0,
        rivals=rivals(answers, record.cluster_id) if record.founded else (),
        recalled=_member_states(blueprint, recalled) or (),
        endpoints=_endpoints(states, answers, tuple(state_of(each, answers, found) for each in answers)),
        alarms=found,
        blind=blind or blindness(answers),
        trace=await _trace(play, live=not record.founded),
        peer_secret=blueprint.peer_secret,
        distrusting=distrusting(tls.authorities, pods),
        peer_url=blueprint.peer_url("{}"),
        service=blueprint.service,
        namespace=blueprint.namespace,
    )
    clients = {each.name: members[each.name] for each in answers if each.status}
    return Sight(observation, clients, listed, tls, labelled, claims)


async def _objects(
    play: Play[EtcdCluster, EtcdClusterStatus], *, live: bool
) -> tuple[Sequence[Pod], Sequence[PersistentVolumeClaim]]:
    if live:
        selector = f"{LABEL}={play.object.metadata.name}"
        return (
            await play.read_list(POD, selector=selector),
            await play.read_list(PERSISTENT_VOLUME_CLAIM, selector=selector),
        )
    key = str(play.object.metadata.key)
    return play.list(POD, BY_CLUSTER, key), play.list(PERSISTENT_VOLUME_CLAIM, BY_CLUSTER, key)


async def _hidden(
    play: Play[EtcdCluster, EtcdClusterStatus],
    record: Record,
    pods: Iterable[Pod],
    claims: Iterable[PersistentVolumeClaim],
    *,
    ephemeral: bool,
) -> _Hidden:
    """Reads the pods and the PVCs that the members of a founded cluster should have, and that no watch shows.

    Without its label, an object would count as deleted although the member runs. This sends no request while
    each recorded member has its labelled pod and PVC.
    """
    if not record.founded:
        return _Hidden()
    claim = record.claim
    names = {each.name for each in record.seats}
    if claim is not None and claim.action is Action.ADD:
        names.add(claim.name)
    found = await _unlabelled(play, POD, names - {each.metadata.name for each in pods})
    own = [each for each in found if _owned(each, play.object)]
    if ephemeral:
        return _Hidden(own)
    names |= {each.metadata.name for each in pods if _owned(each, play.object)}
    missing = names - {each.metadata.name for each in claims}
    return _Hidden(own, await _unlabelled(play, PERSISTENT_VOLUME_CLAIM, missing))


async def _unlabelled(
    play: Play[EtcdCluster, EtcdClusterStatus], resource: Resource[T], names: Iterable[str]
) -> list[T]:
    """Reads objects, and returns those without the label. A watch soon shows those that have it."""
    cluster = play.object.metadata.name
    found = [await play.read(resource, name) for name in sorted(names)]
    return [each for each in found if each is not None and lacks_label(each.metadata, cluster)]


async def _trace(play: Play[EtcdCluster, EtcdClusterStatus], *, live: bool) -> Trace | None:
    """Returns the marks of the headless Service, which has the name of the cluster."""
    metadata = play.object.metadata
    service = await play.read(SERVICE, metadata.name) if live else play.get(SERVICE, metadata.name)
    return trace_of(service.metadata, metadata.uid) if service else None


def _headless_slices(play: Play[EtcdCluster, EtcdClusterStatus]) -> list[EndpointSlice]:
    """Returns the slices of the headless Service. Those of the client Service have the label, too."""
    key = play.object.metadata.key
    found = play.list(ENDPOINT_SLICE, BY_CLUSTER, str(key))
    return [each for each in found if each.metadata.labels.get(SERVICE_NAME) == key.name]


async def _tls(
    play: Play[EtcdCluster, EtcdClusterStatus], blueprint: Blueprint, moment: datetime
) -> Certificates:
    """Reads the Secrets by name: the operator may not list Secrets."""
    secrets = {name: await play.read(SECRET, name) for name in secrets_of(blueprint)}
    return certificates(blueprint, secrets, moment)


def _members(
    connections: Connections,
    cluster: EtcdCluster,
    blueprint: Blueprint,
    pods: Iterable[Pod],
    tls: Certificates,
) -> tuple[Mapping[str, Etcd], str]:
    """Returns the clients by the names of the pods, and why there are none. Empty: there is no obstacle."""
    if tls.mistakes:
        return {}, tls.mistakes[0].message
    names = {
        Endpoint(each.status.pod_ip, blueprint.host(each.metadata.name)): each.metadata.name
        for each in pods
        if each.status.pod_ip and not has_ended(each) and _owned(each, cluster)
    }
    try:
        clients = connections.members(cluster.metadata.key, names, tls.credentials)
    except CredentialsError as error:
        secret = blueprint.tls.operator_secret
        return {}, f"The Secret {secret} cannot be used: {error}. Replace its certificate."
    return {names[endpoint]: client for endpoint, client in clients.items()}, ""


def _owned(pod: Pod, cluster: EtcdCluster) -> bool:
    return any(each.uid == cluster.metadata.uid for each in pod.metadata.owner_references)


def _volumes(
    desired: Desired, claims: Iterable[PersistentVolumeClaim], pods: Iterable[Pod], hidden: _Hidden
) -> tuple[VolumeState, ...]:
    objects = {each.metadata.uid for each in hidden.pods} | {each.metadata.uid for each in hidden.claims}
    volumes = (
        [volume_of_pod(each) for each in pods]
        if desired.ephemeral
        else [volume_of_claim(each) for each in (*claims, *hidden.claims)]
    )
    return tuple(replace(each, unlabelled=each.uid in objects) for each in volumes)


def _member_states(blueprint: Blueprint, listed: MemberList | None) -> tuple[MemberState, ...] | None:
    if listed is None:
        return None
    return tuple(_member_state(blueprint, each) for each in listed.members)


def _member_state(blueprint: Blueprint, member: Member) -> MemberState:
    seats, domains = map(blueprint.seat, member.peer_urls), map(blueprint.domain, member.peer_urls)
    name = next(filter(None, seats), "")
    expected = name and member.peer_urls == (blueprint.peer_url(name),)
    return MemberState(
        id=member.id,
        name=name,
        learner=member.is_learner,
        started=member.started,
        urls=() if expected else member.peer_urls,
        outside=not all(map(blueprint.seat, member.peer_urls)),
        domain=next((each for each in domains if each is not None), None),
    )


def _endpoints(
    pods: Iterable[PodState], answers: Iterable[Answer], states: Iterable[EndpointState]
) -> tuple[EndpointState, ...]:
    """Adds what the kubelet reports: a container that does not run is certainly not healthy."""
    answered = {each.name for each in answers if each.status}
    known = {each.name: each for each in states}
    stopped = frozenset(Failure) - {Failure.PENDING}
    for pod in pods:
        if pod.name not in answered and not pod.deleting and (not pod.ran or pod.failure in stopped):
            known[pod.name] = EndpointState(name=pod.name, health=Signal.UNHEALTHY)
    return tuple(known[name] for name in sorted(known))
