"""Manual plays: one reconcile of one object, started by a person outside of the running operator."""

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from pilothouse.cli.selection import Refused, Selection
from pilothouse.controller import (
    EventRecorder,
    Fence,
    Fenced,
    FencedApi,
    LeaderElector,
    PermanentError,
    SyncError,
)
from pilothouse.controller.lease import JITTER_FACTOR, LEASE
from pilothouse.controller.sharding import shard_lease, shard_of
from pilothouse.informer import Informer, InformerFactory, Store
from pilothouse.kube import Api, Conflict, KubeObject, NotFound, ObjectKey, Resource
from pilothouse.playbook.annotations import PAUSED, RECONCILE
from pilothouse.playbook.assembly import Surroundings, assemble
from pilothouse.playbook.playbook import Recap
from pilothouse.playbook.reconciler import Reconciler
from pilothouse.playbook.watch import Secondary, Watch
from pilothouse.process import Settings
from pilothouse.telemetry import now, object_context

log = logging.getLogger(__name__)

# A manual play gives up after this number of conflicts. The operator reconciles the object anyway.
TRIES = 5

# Seconds for reading the other kinds, and for writing Events.
READ_SECONDS = 30.0
FLUSH_SECONDS = 2.0


@dataclass(frozen=True)
class Played:
    """What a manual play did. In check mode: what it would do.

    Attributes:
        resource: The object's kind.
        key: The object's namespace and name.
        check: Whether this was check mode, which changes nothing.
        recap: How the tasks ended.
        status: The status fields that were written. A removed field is null.
        finalizers: The finalizers that were added (+) or removed (-).
        due: The names of the handlers that were notified and did not finish.
    """

    resource: Resource[Any]
    key: ObjectKey
    check: bool
    recap: Recap
    status: dict[str, object]
    finalizers: Sequence[str] = ()
    due: Sequence[str] = ()

    @property
    def changes(self) -> bool:
        """Whether the play changed anything. In check mode: whether it would."""
        tasks = any(result.diff for result in self.recap.results)
        return tasks or bool(self.status or self.finalizers)


class Hand:
    """Runs manual plays.

    Args:
        name: The operator's name, which is also the name of its Lease.
        settings: The operator's settings. `pod_namespace` is the namespace of the Lease.
        api: The client for the API server.
    """

    def __init__(self, name: str, settings: Settings, api: Api) -> None:
        self._name = name
        self._settings = settings
        self._api = api
        self._selection = Selection(settings, api)

    async def check(self, watch: Watch, key: ObjectKey) -> Played:
        """Returns what a play would do, without changing anything.

        Besides check mode, a closed fence blocks changes. Tasks that run in threads run here, too. They must
        test `play.check` before they change something.

        Raises:
            Refused: The operator does not reconcile this object, or there is nothing to do.
            KubeError: A request to the API server failed.
        """
        obj = await self._selection.read(watch, key)
        own, before = watch.playbook.finalizers, obj.metadata.finalizers
        leaving = obj.metadata.deletion_timestamp is not None
        if leaving and not own.hold(obj.metadata):
            raise _nothing_to_play(watch, key, before)
        async with self._reconciler(watch, key, Fence(-math.inf), []) as (reconciler, store):
            store.observe(obj)
            try:
                recap, status = await reconciler.check(store.get(key))
            except Fenced:
                raise Refused(
                    f"{watch.resource.kind} {key}: a task tried to change something in check mode and was "
                    "stopped. This is a bug in the playbook: the task must test `play.check` first."
                ) from None
        after = before if leaving else own.stored(before)
        if leaving and recap.failure is None and recap.waiting is None:
            after = own.released(before)
        if leaving and not after:
            status = {}  # The API server deletes the object, so its status is not written.
        return Played(watch.resource, key, True, recap, status, _finalizers(before, after))

    async def play(self, watch: Watch, key: ObjectKey) -> Played:
        """Reconciles one object while holding the operator's Lease, so that no other process does.

        Raises:
            Refused: The operator does not reconcile this object, the object is paused or keeps changing,
                another process holds the Lease, or leader election is off.
            KubeError: A request to the API server failed.
        """
        obj = await self._selection.read(watch, key)
        if obj.metadata.annotations.get(PAUSED) == "true":
            raise Refused(
                f"{watch.resource.kind} {key} is paused. Use --check to see what the operator would do, or "
                f"remove the annotation {PAUSED}."
            )
        if not (self._settings.leader_elect or self._settings.shards):
            raise Refused(
                "LEADER_ELECT is false, so no Lease shows whether an operator is running. Use --check to see "
                "what the operator would do, or set LEADER_ELECT=true for the operator and this command."
            )
        recaps: list[Recap] = []
        async with (
            self._leading(watch, obj) as fence,
            self._reconciler(watch, key, fence, recaps) as (reconciler, store),
        ):
            try:
                played = await self._try(watch, key, reconciler, store, recaps)
            except BaseException:
                if due := reconciler.plays.due(key):
                    log.warning("%s %s: %s", watch.resource.kind, key, still_due(due))
                raise
            return replace(played, due=reconciler.plays.due(key))

    async def _try(
        self,
        watch: Watch,
        key: ObjectKey,
        reconciler: Reconciler[Any],
        store: Store[Any],
        recaps: Sequence[Recap],
    ) -> Played:
        """Repeats the play until the object does not change during it. Runs handlers that are still due."""
        for _ in range(TRIES):
            before = await self._selection.read(watch, key)
            store.observe(before)
            try:
                await reconciler.sync(key)
            except Conflict as conflict:
                log.debug("The object has changed during the play, retrying: %s", conflict)
                continue
            except (SyncError, PermanentError) as error:
                if not recaps or recaps[-1].failure is None:
                    raise Refused(f"{watch.resource.kind} {key}: {error}") from error
            if not recaps:
                raise _nothing_to_play(watch, key, before.metadata.finalizers)
            after = store.get(key)
            finalizers = _finalizers(
                before.metadata.finalizers, () if after is None else after.metadata.finalizers
            )
            status = {} if after is None else reconciler.status_changes(before, after)
            return Played(watch.resource, key, False, recaps[-1], status, finalizers)
        raise Refused(
            f"{watch.resource.kind} {key} has changed during each of {TRIES} plays. Try again later."
        )

    @asynccontextmanager
    async def _reconciler(
        self, watch: Watch, key: ObjectKey, fence: Fence, recaps: list[Recap]
    ) -> AsyncIterator[tuple[Reconciler[Any], Store[Any]]]:
        """Yields a reconciler and its store. The recaps of its plays are appended to `recaps`.

        The store contains only the object that is played, so that the operator's pod does not hold all
        objects twice. If the watch also has this kind as a secondary one, all of its objects are read. Other
        kinds are read as in the operator.
        """
        api = FencedApi(self._api, fence)
        factory = InformerFactory(self._api)
        informers = [self._informer(factory, watch, each) for each in watch.secondaries]
        store: Store[Any] = Store(str(watch.resource), watch.transform, watch.resource)
        async with _running(factory.run()):
            try:
                async with asyncio.timeout(READ_SECONDS):
                    await factory.wait_synced()
            except TimeoutError:
                raise Refused("; ".join(factory.waiting_for)) from None
            recorder = EventRecorder(api, self._name, self._settings.pod_name)
            around = Surroundings(self._name, api, fence, recorder, self._selection.namespaces(watch))
            reconciler = assemble(watch, around, store, informers, played=recaps.append)
            async with _running(recorder.run()), asyncio.timeout(self._settings.sync_timeout):
                with object_context(watch.resource.kind, key.namespace, key.name):
                    yield reconciler, store
                await recorder.flush(FLUSH_SECONDS)

    def _informer(self, factory: InformerFactory, watch: Watch, other: Secondary) -> Informer[Any]:
        return factory.informer(
            other.resource,
            label_selector=other.selector,
            field_selector=other.field_selector,
            transform=other.transform,
            # All namespaces of the operator: an object that outlives its owner may be in another one.
            namespaces=self._selection.namespaces(watch),
        )

    @asynccontextmanager
    async def _leading(self, watch: Watch, obj: KubeObject) -> AsyncIterator[Fence]:
        """Holds the Lease for an object. If needed, waits until an abandoned Lease has expired."""
        key, shards = obj.metadata.key, self._settings.shards
        lease = ObjectKey(self._settings.pod_namespace, self._name)
        if shards:
            lease = shard_lease(lease, shard_of(obj.metadata.uid, shards))
        if holder := await self._leader(lease):
            raise _lease_held(watch, key, lease, holder)
        timing = self._settings.lease
        elector = LeaderElector(self._api, lease, f"{self._settings.pod_name}_manual-play", timing)
        try:
            async with asyncio.timeout(timing.duration + 2 * timing.retry_period * (1 + JITTER_FACTOR)):
                await elector.acquire()
        except TimeoutError:
            raise _lease_held(watch, key, lease, elector.holder or "another process") from None
        try:
            async with _running(elector.hold()):
                yield elector.fence
        finally:
            await elector.release()

    async def _leader(self, lease: ObjectKey) -> str:
        """Returns the holder of a Lease that has not expired; empty otherwise.

        This saves waiting for a Lease that is held. If a clock is wrong, `acquire` still decides correctly.
        """
        try:
            spec = (await self._api.get(LEASE, lease)).spec
        except NotFound:
            return ""
        if not spec.renew_time:
            return ""
        age = (now() - datetime.fromisoformat(spec.renew_time)).total_seconds()
        return spec.holder_identity if age < spec.lease_duration_seconds else ""


def still_due(handlers: Sequence[str]) -> str:
    """Returns the message about handlers that were notified and did not finish."""
    return (
        f"Handlers still due: {', '.join(handlers)}. The operator will not retry them. Run them manually, or "
        "trigger the task again."
    )


@asynccontextmanager
async def _running(part: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Runs a coroutine while the block runs, and cancels it afterwards."""
    task = asyncio.create_task(part)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _finalizers(old: Sequence[str], new: Sequence[str]) -> Sequence[str]:
    """Returns the finalizers that are added (+) and removed (-)."""
    added = [f"+{name}" for name in new if name not in old]
    return added + [f"-{name}" for name in old if name not in new]


def _nothing_to_play(watch: Watch, key: ObjectKey, finalizers: Sequence[str]) -> Refused:
    return Refused(
        f"{watch.resource.kind} {key} is being deleted and waits for the finalizers of others: "
        f"{', '.join(finalizers)}. This operator has nothing left to do."
    )


def _lease_held(watch: Watch, key: ObjectKey, lease: ObjectKey, holder: str) -> Refused:
    resource = watch.resource
    namespace = f" -n {key.namespace}" if key.namespace else ""
    return Refused(
        f"cannot reconcile {resource.kind} {key}: {holder} holds the Lease {lease}, and only one process may "
        "write at a time. Use --check to see what the operator would do. To make the running operator "
        f"reconcile the object now: kubectl annotate{namespace} {resource} {key.name} --overwrite "
        f'{RECONCILE}="$(date +%s)"'
    )
