"""Carries out one step of the plan through the play's modules and the client of etcd.

Every step can be repeated after a crash. Etcd's refusals, such as an unhealthy cluster in the first seconds
after a restart, are waits and not failures.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from enum import Enum
from typing import Any, assert_never

from msgspec.structs import replace

from etcd_operator import model
from etcd_operator.acceptance import refused_pod, unchecked
from etcd_operator.authorities import authorities_annotation
from etcd_operator.blueprint import Blueprint, InitialCluster
from etcd_operator.endpoints import AUTH
from etcd_operator.entries import write_entries
from etcd_operator.errors import (
    EtcdError,
    MemberExists,
    MemberNotFound,
    NotALearner,
    PermissionDenied,
    UnhealthyCluster,
)
from etcd_operator.etcd import Etcd, MemberList
from etcd_operator.failures import KUBERNETES_REFUSED
from etcd_operator.labels import label_missing, lacks_label
from etcd_operator.model import Configuration, Decision, PodPlan, Problem
from etcd_operator.observe import Sight
from etcd_operator.old_logs import may_have_old_log, renew_logs
from etcd_operator.pod_metadata import flip, patch_image, rejoin, serve, unserve
from etcd_operator.pods import member_pod
from etcd_operator.records import with_record
from etcd_operator.services import mark_service
from etcd_operator.settings import EtcdSettings
from etcd_operator.types import EtcdCluster, EtcdClusterStatus, Retention
from etcd_operator.views import LIVE_POD, POD
from etcd_operator.volumes import mark, volume_claim
from pilothouse import PERSISTENT_VOLUME_CLAIM, SERVICE, EventType, ObjectMeta, Play, Resource, TaskFailed

# Seconds after which a call that etcd has refused is made again, and after which a pod is checked.
REFUSED = 0.5
# Seconds until the next reconcile goes on: the shortest delay that a controller accepts. 0 would mean a
# back-off.
IMMEDIATELY = 0.1
RETRY = 1.0
# Seconds between the pods of a founding. Two members that start in the same moment ask for each other's name
# before DNS has it, and DNS answers for the next 5 s that there is none. If one starts a little later, it
# finds the other, and its connection serves both.
FOUNDING_PAUSE = 0.35
# Seconds until a user's action is looked for that no watch reports.
BLOCKED = 30.0


# Reasons of Events of the coreos operator, which scripts read.
ADDED = "New Member Added"
REMOVED = "Member Removed"
REPLACING = "Replacing Dead Member"
UPGRADED = "Member Upgraded"


Recording = (
    model.RecordFounding
    | model.RecordVolumes
    | model.RecordAbandoning
    | model.RecordFounded
    | model.RecordResumed
    | model.RecordSeats
    | model.Announce
)
"""The steps that only write the status."""


class Next(Enum):
    """What follows after a step in the same reconcile."""

    DECIDE = "decide"
    """Only the status was written: decide again on the same observation."""
    OBSERVE = "observe"
    """Something has changed: observe again."""
    LATER = "later"
    """End the reconcile. Another one is queued."""


class Members:
    """Carries out the steps of one observation.

    Attributes:
        decision: What is done: what was decided, unless the API server refuses it.
        refusals: What etcd or the API server refused although it will not accept it later on its own.

    Args:
        play: The reconcile.
        blueprint: The cluster.
        sight: What was observed.
        decision: What the plan decided on the observation.
        settings: The operator's settings.
    """

    def __init__(
        self,
        play: Play[EtcdCluster, EtcdClusterStatus],
        blueprint: Blueprint,
        sight: Sight,
        decision: Decision,
        settings: EtcdSettings,
    ) -> None:
        self._play = play
        self._blueprint = blueprint
        self._sight = sight
        self.decision = decision
        self._settings = settings
        self.refusals: list[Problem] = []

    async def carry_out(self) -> Next:
        """Carries out the decided step.

        Raises:
            TaskFailed: The API server refused a request.
            Conflict: An object has changed. The engine reconciles again.
        """
        if self.decision.creates:
            await self._wait_unless_accepted(self.decision.creates)
        step = self.decision.step
        match step:
            case model.Wait(seconds=seconds, nudge=nudge):
                self._play.requeue_after(seconds)
                if nudge:
                    await self._nudge()
                return Next.LATER
            case model.Blocked():
                self._play.requeue_after(BLOCKED)
                return Next.LATER
            case model.Settled():
                self._play.requeue_after(self._settings.poll)
                return Next.LATER
            case (
                model.RecordFounding()
                | model.RecordVolumes()
                | model.RecordAbandoning()
                | model.RecordFounded()
                | model.RecordResumed()
                | model.RecordSeats()
                | model.Announce()
            ):
                return await self._record(step)
            case model.AddLearner() | model.Promote() | model.RemoveMember() | model.MoveLeader():
                return await self._change_membership(step)
            case _:
                return await self._change_objects(step)

    async def _wait_unless_accepted(self, plan: PodPlan) -> None:
        """Decides to wait if the API server would not create the pod: its member keeps the old one."""
        try:
            refused = await refused_pod(self._play, self._blueprint, plan, self._settings)
        except TaskFailed as failure:
            # Not raised: the rest of the play, such as the growth of volumes, does not depend on it.
            message = unchecked(plan.name, failure)
        else:
            if refused is None:
                return
            message = refused.advice(plan.name)
        self.refusals.append(Problem(KUBERNETES_REFUSED, message))
        self.decision = replace(
            self.decision, step=model.Wait(BLOCKED), reason=KUBERNETES_REFUSED, message=message
        )

    # The status.

    async def _record(self, step: Recording) -> Next:
        if may_have_old_log(self._sight.observation, step.record.claim):
            speakers = self._speakers()
            what = "write entries to etcd's log, so that 3.7 can read it"
            if not speakers:
                self._play.requeue_after(RETRY)
                return Next.LATER
            if await self._call(what, lambda: renew_logs(speakers[0])) is Next.LATER:
                return Next.LATER
            # That takes seconds, so the next decision needs another look.
            return await self._write_record(step, Next.OBSERVE)
        return await self._write_record(step, Next.DECIDE)

    async def _write_record(self, step: Recording, then: Next) -> Next:
        await self._play.record(with_record(self._play.status, step.record))
        self._play.changed(self.decision.message)
        if isinstance(step, model.RecordVolumes) and step.pods:
            await self._create_pods(step.pods)
            self._play.requeue_after(RETRY)
            return Next.LATER
        if self._play.check:
            return Next.DECIDE
        match step:
            case model.RecordFounding() | model.RecordFounded() | model.RecordResumed():
                return self._ended()
            case model.RecordAbandoning():
                return self._ended(EventType.WARNING)
            case model.Announce(record=record) if record.claim and record.claim.interrupts:
                return self._ended(EventType.WARNING)
            case model.Announce() if self.decision.reason == "ReplacingMember":
                return self._ended(reason=REPLACING)
            case model.Announce(record=record) if record.claim is None:
                self._event()  # The change that an earlier Event began is complete.
                return then
            case _:
                return then

    # The objects.

    async def _change_objects(
        self,
        step: model.CreateVolumes
        | model.CreatePods
        | model.DeletePods
        | model.DeleteVolumes
        | model.Flip
        | model.Rejoin
        | model.MarkVolumes
        | model.MarkService
        | model.Serve
        | model.Unserve
        | model.PatchImage,
    ) -> Next:
        match step:
            case model.CreateVolumes(names=names):
                await self._create_volumes(names)
                self._event()
            case model.CreatePods(pods=pods):
                await self._create_pods(pods)
                self._play.requeue_after(RETRY)
                return Next.LATER
            case model.DeletePods(names=names):
                for name in names:
                    await self._play.delete(POD, name)
                self._event()
                self._play.requeue_after(RETRY)
                return Next.LATER
            case model.DeleteVolumes(names=names):
                await self._delete_volumes(names)
                self._play.requeue_after(RETRY)
                return Next.LATER
            case model.Flip(names=names):
                await self._patch_pods(names, flip())
                self._event()
            case model.Rejoin(name=name):
                await self._patch_pods((name,), rejoin(self._joining(name)))
                self._event()
            case model.MarkVolumes(marks=marks):
                await self._mark(marks)
                if any(each.removed for each in marks):
                    self._event()
            case model.MarkService(trace=trace):
                await self._play.patch(SERVICE, self._blueprint.name, mark_service(trace))
            case model.Serve(names=names):
                await self._patch_pods(names, serve())
                self._event()
            case model.Unserve(names=names):
                await self._patch_pods(names, unserve())
                self._event()
            case model.PatchImage(name=name, version=version):
                return await self._patch_image(name, version)
            case _:
                assert_never(step)
        return Next.OBSERVE

    async def _create_volumes(self, names: Iterable[str]) -> None:
        # Kubernetes deletes owned volumes together with the EtcdCluster. Retained ones have no owner.
        owned = self._blueprint.spec.storage.when_deleted is Retention.DELETE
        for name in names:
            claim = volume_claim(self._blueprint, name)
            await self._play.create(PERSISTENT_VOLUME_CLAIM, claim, owned=owned)

    async def _create_pods(self, pods: Iterable[PodPlan]) -> None:
        for number, plan in enumerate(pods):
            if number and plan.configuration is Configuration.FOUNDING and not self._play.check:
                await asyncio.sleep(FOUNDING_PAUSE)
            joining = plan.configuration is Configuration.JOINING
            pod = member_pod(
                self._blueprint,
                plan,
                image=self._settings.image(self._blueprint.spec, plan.version),
                initial_cluster=self._joining(plan.name) if joining else (),
            )
            pod["metadata"]["annotations"] |= authorities_annotation(self._sight.tls.authorities)
            await self._play.create(POD, pod)
        self._event()

    async def _delete_volumes(self, names: Iterable[str]) -> None:
        for name in names:
            if await self._as_observed(PERSISTENT_VOLUME_CLAIM, name):
                # After a resumption, the annotation with the owner is that of the deleted EtcdCluster.
                await self._play.delete(PERSISTENT_VOLUME_CLAIM, name, owned=False)
        self._event()

    async def _patch_pods(self, names: Iterable[str], patch: dict[str, Any]) -> None:
        for name in names:
            await self._play.patch(POD, name, patch)

    async def _mark(self, marks: Iterable[model.Mark]) -> None:
        record = self._sight.observation.record
        for each in marks:
            patch = mark(each, self._blueprint, record.cluster_id)
            if self._blueprint.spec.storage.ephemeral:
                await self._play.patch(POD, each.name, patch)
            else:
                await self._play.patch(PERSISTENT_VOLUME_CLAIM, each.name, patch, owned=False)

    async def _patch_image(self, name: str, version: str) -> Next:
        live = await self._play.read(LIVE_POD, name)
        if live is None:
            return Next.OBSERVE
        spec = self._blueprint.spec
        image = self._settings.image(spec, version)
        patch = patch_image(spec, live, version, image)
        patch["metadata"]["annotations"] |= authorities_annotation(self._sight.tls.authorities)
        await self._play.patch(POD, name, patch)
        return self._ended(reason=UPGRADED, note=f"Set the image of {name} to {image}. Its etcd restarts.")

    def _joining(self, name: str) -> InitialCluster:
        listed = self._sight.listed
        assert listed is not None, "the plan lets a member join only with a member list"  # noqa: S101
        return self._blueprint.joining(listed.members, name)

    async def _as_observed(self, resource: Resource[Any], name: str) -> bool:
        """Whether an object is on the API server as it was observed: the same one, or as absent.

        An object without the label of the cluster is reported, because no watch shows it.
        """
        observation = self._sight.observation
        states = observation.pods if resource is POD else observation.volumes
        seen = next(((each.uid, each.deleting) for each in states if each.name == name), None)
        live = await self._play.read(resource, name)
        if live is not None and seen is None and lacks_label(live.metadata, observation.name):
            names = {"cluster": observation.name, "namespace": observation.namespace}
            self.refusals.append(label_missing(resource, name, **names))
        return seen == (None if live is None else _identity(live.metadata))

    # The members.

    async def _change_membership(
        self, step: model.AddLearner | model.Promote | model.RemoveMember | model.MoveLeader
    ) -> Next:
        """Changes the membership, after a linearizable list that still shows what was decided on (law 9).

        A change of the voters ends the reconcile, so that the next one begins with the budget.
        """
        speakers = self._speakers(step.member_id if isinstance(step, model.RemoveMember) else 0)
        if not speakers or not await self._confirmed(speakers[0]):
            self._play.requeue_after(RETRY)
            return Next.LATER
        leader, reason, note = speakers[0], "", ""
        match step:
            case model.AddLearner(name=name):
                url = self._blueprint.peer_url(name)
                done = await self._call(
                    f"add {name} to etcd as a learner",
                    lambda: _first_connected(speakers, lambda etcd: etcd.member_add([url])),
                )
            case model.Promote(name=name, member_id=number):
                reason, note = ADDED, f"The member {name} has a vote."
                done = await self._call(f"promote {name} to a voter", lambda: leader.member_promote(number))
            case model.RemoveMember(name=name, member_id=number):
                if not await self._target_as_observed(name):
                    self._play.requeue_after(BLOCKED if self.refusals else RETRY)
                    return Next.LATER
                reason, note = REMOVED, f"Removed the member {name} from etcd."
                done = await self._call(
                    f"remove {name} from etcd",
                    lambda: _first_connected(speakers, lambda etcd: etcd.member_remove(number)),
                )
            case model.MoveLeader(name=name, member_id=number):
                done = await self._call(f"move the leader to {name}", lambda: leader.move_leader(number))
        if done is not Next.OBSERVE:
            return done
        if reason:
            return self._ended(reason=reason, note=note)
        self._event()
        return done

    async def _target_as_observed(self, name: str) -> bool:
        """Whether the pod and the volume of a member are live as they were observed (law 12)."""
        if not await self._as_observed(POD, name):
            return False
        ephemeral = self._blueprint.spec.storage.ephemeral
        return ephemeral or await self._as_observed(PERSISTENT_VOLUME_CLAIM, name)

    def _speakers(self, leaving: int = 0) -> tuple[Etcd, ...]:
        """Returns the clients of the leader, which comes first, and of the voters that follow it.

        Etcd forwards most calls to the leader, but not all.

        Args:
            leaving: The ID of the member that is to be removed, which is asked only if it leads. 0: none.
        """
        observation, clients, listed = self._sight.observation, self._sight.clients, self._sight.listed
        voters = {each.id for each in listed.members if not each.is_learner} if listed else set()
        own = [
            each
            for each in observation.endpoints
            if each.cluster_id == observation.members_cluster_id and each.name in clients
        ]
        leader = next((each for each in own if each.leader_id and each.leader_id == each.member_id), None)
        if leader is None:
            return ()
        followers = (
            each
            for each in own
            if each.leader_id == leader.member_id and each.member_id in voters - {leader.member_id, leaving}
        )
        return tuple(clients[each.name] for each in (leader, *followers))

    async def _confirmed(self, etcd: Etcd) -> bool:
        """Whether the member list is still the one that was decided on."""
        if self._play.check:
            return True
        try:
            listed = await etcd.member_list()
        except EtcdError as error:
            self._play.log.info("Waiting for etcd: %s", error)
            return False
        return self._sight.listed is not None and _membership(listed) == _membership(self._sight.listed)

    async def _call(self, what: str, effect: Callable[[], Awaitable[Any]]) -> Next:
        try:
            await self._play.call(what, effect)
        except (MemberExists, MemberNotFound, NotALearner) as error:
            # An earlier call was executed, and its answer was lost.
            self._play.log.info("Observing again: %s", error)
            self._play.requeue_after(IMMEDIATELY)
            return Next.LATER
        except PermissionDenied as error:
            message = f"The operator cannot {what}: {error}. {AUTH}"
            self.refusals.append(Problem("PermissionDenied", message))
            self._play.requeue_after(BLOCKED)
            return Next.LATER
        except EtcdError as error:
            self._play.log.info("Waiting for etcd: %s", error)
            self._play.requeue_after(REFUSED)
            return Next.LATER
        return Next.OBSERVE

    async def _nudge(self) -> None:
        """Writes an entry to etcd's log. Without one, a member may only serve later, so no failure counts."""
        speakers = self._speakers()
        if not speakers:
            return
        try:
            await self._play.call("write an entry to etcd's log", lambda: write_entries(speakers[0]))
        except EtcdError as error:
            self._play.log.info("Could not write an entry to etcd's log: %s", error)

    def _event(self, kind: EventType = EventType.NORMAL, *, reason: str = "", note: str = "") -> None:
        self._play.event(kind, reason or self.decision.reason, note or self.decision.message)

    def _ended(self, kind: EventType = EventType.NORMAL, *, reason: str = "", note: str = "") -> Next:
        """Records an Event, and ends the reconcile: a conflict in a later step would discard the Event.

        That is accepted for the Events of the steps that do not end their reconcile.
        """
        self._event(kind, reason=reason, note=note)
        self._play.requeue_after(IMMEDIATELY)
        return Next.LATER


async def _first_connected(members: Iterable[Etcd], call: Callable[[Etcd], Awaitable[object]]) -> None:
    """Makes a call to one member after the other, until one is not held back by its own connections.

    A member may refuse a change forever. If a request to the old address of a peer fails after the peer is
    connected again, the peer stays inactive until that connection breaks (etcd: pipeline.handle in
    server/etcdserver/api/rafthttp/pipeline.go). The others are not affected.
    """
    refused: UnhealthyCluster | None = None
    for etcd in members:
        try:
            await call(etcd)
            return
        except UnhealthyCluster as error:
            refused = refused or error
    if refused:
        raise refused


def _identity(metadata: ObjectMeta) -> tuple[str, bool]:
    return metadata.uid, metadata.deletion_timestamp is not None


def _membership(listed: MemberList) -> tuple[int, frozenset[tuple[int, bool]]]:
    return listed.cluster_id, frozenset((each.id, each.is_learner) for each in listed.members)
