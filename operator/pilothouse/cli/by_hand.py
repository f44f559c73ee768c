"""A play by hand: one object, played once because a person asked for it, outside of the running operator."""

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

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
from pilothouse.kube import (
    Api,
    ApiError,
    Conflict,
    Discovery,
    KubeObject,
    NotFound,
    ObjectKey,
    PartialObjectMetadata,
    Resource,
    Undecodable,
)
from pilothouse.playbook.assembly import Surroundings, assemble
from pilothouse.playbook.playbook import Recap
from pilothouse.playbook.reconciler import PAUSED, RECONCILE, Reconciler
from pilothouse.playbook.watch import Secondary, Watch
from pilothouse.process import Settings
from pilothouse.telemetry import now, object_context

log = logging.getLogger(__name__)

# An object that changes under every play is left to the operator.
TRIES = 5

# How long the other kinds may take to be read, and Events to be written, seconds.
READ_SECONDS = 30.0
FLUSH_SECONDS = 2.0


class Refused(Exception):
    """What a person asked for is not done. The text says why, and what to do instead."""


@dataclass(frozen=True)
class Played:
    """What a play by hand did; in check mode, what one would do.

    Attributes:
        resource: The object's kind.
        key: The object.
        check: Nothing was changed.
        recap: How the tasks ended.
        status: The fields of the status that were written; with null where one was taken away.
        finalizers: The finalizers that were added (+) or taken away (-).
        due: The handlers that were notified and did not come to their end, by their names.
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
        """Whether the play changes anything."""
        tasks = any(result.diff for result in self.recap.results)
        return tasks or bool(self.status or self.finalizers)


def watches_of(watches: Sequence[Watch], kind: str) -> Sequence[Watch]:
    """The watches of a kind, named as kubectl takes it: flightticket or flighttickets.flights.com.

    A watch's own name is taken, too, and stands for that one alone.

    Raises:
        Refused: The operator has none.
    """
    for names in (_own_name, _kind_names):
        if found := [watch for watch in watches if kind.lower() in names(watch)]:
            return found
    known = ", ".join(dict.fromkeys(watch.resource.kind for watch in watches))
    raise Refused(f"the kind {kind!r} is not one of this operator's; it has: {known or 'none'}")


def _own_name(watch: Watch) -> Sequence[str]:
    kind = watch.resource.kind.lower()
    return () if watch.name == kind else (watch.name.lower(),)


def _kind_names(watch: Watch) -> Sequence[str]:
    resource = watch.resource
    return resource.kind.lower(), resource.plural, str(resource)


class Hand:
    """Plays objects by hand.

    Args:
        name: The operator's name; its Lease has the same.
        settings: How the operator runs; `pod_namespace` is where the Lease is.
        api: Reaches the API server.
    """

    def __init__(self, name: str, settings: Settings, api: Api) -> None:
        self._name = name
        self._settings = settings
        self._api = api

    async def watches_of(self, watches: Sequence[Watch], kind: str) -> Sequence[Watch]:
        """What the function `watches_of` finds; else by the short and other names that the server knows.

        Raises:
            Refused: The operator has no such watch, or the server does not tell.
            Unreachable: The server gave no answer.
        """
        try:
            return watches_of(watches, kind)
        except Refused as refused:
            with suppress(ApiError, Undecodable, Refused):
                served = await Discovery(self._api).resolve(kind, PartialObjectMetadata)
                return watches_of(watches, str(served))
            raise refused

    async def choose(self, watches: Sequence[Watch], key: ObjectKey) -> Watch:
        """Finds the one of a kind's watches that the operator plays an object by.

        Raises:
            Refused: Of several watches none selects it, or more than one.
            KubeError: The API server cannot be reached or refused to tell.
        """
        if len(watches) == 1:
            return watches[0]  # Whether it selects the object is asked anyway when that is read.
        refusals: list[Refused] = []
        found: list[Watch] = []
        for watch in watches:
            try:
                await self._read(watch, key)
            except Refused as refused:
                refusals.append(refused)
            else:
                found.append(watch)
        if not found:
            raise refusals[0]
        if len(found) > 1:
            names = ", ".join(watch.name for watch in found)
            raise Refused(
                f"{found[0].resource.kind} {key} is played by several watches: {names}; write the name of "
                "one instead of the kind"
            )
        return found[0]

    async def check(self, watch: Watch, key: ObjectKey) -> Played:
        """Tells what a play would do, and does nothing: a closed fence stands behind check mode.

        Tasks that block run, too, in their threads: they look at things and heed `play.check`.

        Raises:
            Refused: There is no such object for this operator, or nothing to play.
            KubeError: The API server cannot be reached or refused to tell.
        """
        obj = await self._read(watch, key)
        own, before = watch.playbook.finalizers, obj.metadata.finalizers
        leaving = obj.metadata.deletion_timestamp is not None
        if leaving and not own.hold(obj.metadata):
            raise _nothing_to_play(watch, key)
        async with self._reconciler(watch, key, Fence(-math.inf), []) as (reconciler, store):
            store.observe(obj)
            try:
                recap, status = await reconciler.check(store.get(key))
            except Fenced:
                raise Refused(
                    f"{watch.resource.kind} {key}: a task would have changed something in check mode and was "
                    "stopped: that is a defect of the playbook, which must ask `play.check`"
                ) from None
        after = before if leaving else own.stored(before)
        if leaving and recap.failure is None and recap.waiting is None:
            after = own.released(before)
        if leaving and not after:
            status = {}  # The object goes, and with it its status.
        return Played(watch.resource, key, True, recap, status, _finalizers(before, after))

    async def play(self, watch: Watch, key: ObjectKey) -> Played:
        """Plays one object while holding the operator's Lease, so that nobody else works meanwhile.

        Raises:
            Refused: There is no such object for this operator, it is paused, it keeps changing, another
                process holds the Lease, or the operator takes none.
            KubeError: The API server cannot be reached or refused a write.
        """
        obj = await self._read(watch, key)
        if obj.metadata.annotations.get(PAUSED) == "true":
            raise Refused(
                f"{watch.resource.kind} {key} is paused: see what a play would do with --check, or take the "
                f"annotation {PAUSED} away"
            )
        if not (self._settings.leader_elect or self._settings.shards):
            raise Refused(
                "LEADER_ELECT is off, so no Lease tells whether an operator is at work: see what a "
                "play would do with --check, or set LEADER_ELECT=true for both"
            )
        recaps: list[Recap] = []
        async with (
            self._leading(watch, obj) as fence,
            self._reconciler(watch, key, fence, recaps) as (reconciler, store),
        ):
            try:
                played = await self._try(watch, key, reconciler, store, recaps)
            except BaseException:
                if due := reconciler.due(key):
                    log.warning("%s %s: %s", watch.resource.kind, key, still_due(due))
                raise
            return replace(played, due=reconciler.due(key))

    async def _try(
        self,
        watch: Watch,
        key: ObjectKey,
        reconciler: Reconciler[Any],
        store: Store[Any],
        recaps: Sequence[Recap],
    ) -> Played:
        """Plays until the object does not change meanwhile; a try runs the handlers that the last left."""
        for _ in range(TRIES):
            before = await self._read(watch, key)
            store.observe(before)
            try:
                await reconciler.sync(key)
            except Conflict as conflict:
                log.debug("changed meanwhile, playing again: %s", conflict)
                continue
            except (SyncError, PermanentError) as error:
                if not recaps or recaps[-1].failure is None:
                    raise Refused(f"{watch.resource.kind} {key}: {error}") from error
            if not recaps:
                raise _nothing_to_play(watch, key)
            after = store.get(key)
            finalizers = _finalizers(
                before.metadata.finalizers, () if after is None else after.metadata.finalizers
            )
            status = {} if after is None else reconciler.status_changes(before, after)
            return Played(watch.resource, key, False, recaps[-1], status, finalizers)
        raise Refused(f"{watch.resource.kind} {key} changed under each of {TRIES} plays: try again later")

    @asynccontextmanager
    async def _reconciler(
        self, watch: Watch, key: ObjectKey, fence: Fence, recaps: list[Recap]
    ) -> AsyncIterator[tuple[Reconciler[Any], Store[Any]]]:
        """Yields a reconciler and its store; the recaps of its plays are appended to `recaps`.

        The store holds only the object that is played, unless the watch declares the played kind as a
        secondary one, too: the operator's pod need not hold all objects twice. Other kinds are read as the
        operator does.
        """
        api = FencedApi(self._api, fence)
        factory = InformerFactory(self._api)
        informers = [self._informer(factory, watch, each) for each in watch.secondaries]
        store: Store[Any] = Store(str(watch.resource), watch.transform)
        async with _running(factory.run()):
            try:
                async with asyncio.timeout(READ_SECONDS):
                    await factory.wait_synced()
            except TimeoutError:
                raise Refused("; ".join(factory.waiting_for)) from None
            recorder = EventRecorder(api, self._name, self._settings.pod_name)
            around = Surroundings(self._name, api, fence, recorder, self._namespaces(watch))
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
            # All of them: an object that outlives its owner may be in another namespace.
            namespaces=self._namespaces(watch),
        )

    def _namespaces(self, watch: Watch) -> Sequence[str]:
        return self._settings.watch_namespaces or watch.namespaces

    async def _read(self, watch: Watch, key: ObjectKey) -> Any:
        resource, namespaces = watch.resource, self._namespaces(watch)
        if resource.namespaced and namespaces and key.namespace not in namespaces:
            raise Refused(
                f"the operator does not watch namespace {key.namespace!r}, only {', '.join(namespaces)} "
                "(WATCH_NAMESPACE)"
            )
        try:
            obj = await self._api.get(resource, key)
        except NotFound as error:
            raise Refused(
                f"there is no {resource.kind} {key} ({error}); see what there is: "
                f"kubectl get {resource}{' -A' if resource.namespaced else ''}"
            ) from error
        if not await self._selects(watch, key):
            selected = " and ".join(filter(None, (watch.selector, watch.field_selector)))
            raise Refused(
                f"{resource.kind} {key} is not one that the operator plays: the watch {watch.name} selects "
                f"{selected}"
            )
        return obj

    async def _selects(self, watch: Watch, key: ObjectKey) -> bool:
        """Whether a watch's selectors admit an object, as the server reads them: field selectors, too."""
        if not (watch.selector or watch.field_selector):
            return True
        pages = self._api.pages(
            watch.resource,
            namespace=key.namespace,
            label_selector=watch.selector,
            field_selector=",".join(filter(None, (f"metadata.name={key.name}", watch.field_selector))),
        )
        return any([page.items async for page in pages])

    @asynccontextmanager
    async def _leading(self, watch: Watch, obj: KubeObject) -> AsyncIterator[Fence]:
        """Holds the Lease of an object; waits once for the time after which an abandoned one may be taken."""
        key, shards = obj.metadata.key, self._settings.shards
        lease = ObjectKey(self._settings.pod_namespace, self._name)
        if shards:
            lease = shard_lease(lease, shard_of(obj.metadata.uid, shards))
        if holder := await self._leader(lease):
            raise _led(watch, key, lease, holder)
        timing = self._settings.lease
        elector = LeaderElector(self._api, lease, f"{self._settings.pod_name}_by-hand", timing)
        try:
            async with asyncio.timeout(timing.duration + 2 * timing.retry_period * (1 + JITTER_FACTOR)):
                await elector.acquire()
        except TimeoutError:
            raise _led(watch, key, lease, elector.holder or "somebody") from None
        try:
            async with _running(elector.hold()):
                yield elector.fence
        finally:
            await elector.release()

    async def _leader(self, lease: ObjectKey) -> str:
        """Who has renewed the Lease lately. It spares the wait; if a clock is wrong, `acquire` finds out."""
        try:
            spec = (await self._api.get(LEASE, lease)).spec
        except NotFound:
            return ""
        if not spec.renew_time:
            return ""
        age = (now() - datetime.fromisoformat(spec.renew_time)).total_seconds()
        return spec.holder_identity if age < spec.lease_duration_seconds else ""


def still_due(handlers: Sequence[str]) -> str:
    """What a person should know of handlers that were notified and not run to their end."""
    return (
        f"still due: {', '.join(handlers)}. No later play knows of it: do by hand what that does, or change "
        "again what notifies it"
    )


@asynccontextmanager
async def _running(part: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Runs something beside the block, and ends it with that."""
    task = asyncio.create_task(part)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _finalizers(old: Sequence[str], new: Sequence[str]) -> Sequence[str]:
    """The finalizers that are added (+) and removed (-)."""
    added = [f"+{name}" for name in new if name not in old]
    return added + [f"-{name}" for name in old if name not in new]


def _nothing_to_play(watch: Watch, key: ObjectKey) -> Refused:
    return Refused(f"{watch.resource.kind} {key} is being deleted and waits for others: nothing to play")


def _led(watch: Watch, key: ObjectKey, lease: ObjectKey, holder: str) -> Refused:
    resource = watch.resource
    namespace = f" -n {key.namespace}" if key.namespace else ""
    return Refused(
        f"{resource.kind} {key} is not played: {holder} holds the Lease {lease}, and two must not write at "
        "once. See what a play would do: add --check. Have the running operator play it now: "
        f'kubectl annotate{namespace} {resource} {key.name} --overwrite {RECONCILE}="$(date +%s)"'
    )
