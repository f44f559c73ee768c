"""Sharding: all replicas work, each on the objects of its shards.

An object belongs to a shard by a hash of its UID, for ever. A shard belongs to the replica that holds its
Lease, and is fenced by it as a single leader is: no two replicas ever change one object's world. Each term
has an elector and a fence of its own: by what a sync saw in one term nothing is changed in a later one. Which
replica should hold which Lease is worked out by each from the same list of replicas, so they need not talk;
where their lists differ for a moment the Leases decide.

The list is one more Lease, on which each replica puts an annotation of its own and changes it every few
seconds. A replica whose annotation stands still for a Lease's duration is taken for dead, and the others
share its shards out; what it held they have after another such duration.
"""

import asyncio
import logging
import math
import zlib
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from contextvars import ContextVar
from typing import Any, Protocol, TypeVar

from pilothouse.controller.cancelling import cancel
from pilothouse.controller.election import LeaderElector, LeadershipLost
from pilothouse.controller.fence import Fence, Fenced
from pilothouse.controller.lease import LeaseTiming
from pilothouse.controller.replicas import Replicas, assign
from pilothouse.kube import AlreadyExists, Api, KubeError, KubeObject, ObjectKey
from pilothouse.telemetry import log_defect

log = logging.getLogger(__name__)

R = TypeVar("R")

# How often a shard that is handed over is asked whether its last sync has ended, seconds.
DRAIN_PERIOD = 0.05
# How long what is stopped may take to end, seconds: its syncs, the renewal of its Lease. What then goes on
# changes nothing.
STOP_SECONDS = 0.5


def shard_of(uid: str, shards: int) -> int:
    """The shard of an object: the same in every process and version."""
    return zlib.crc32(uid.encode()) % shards


def shard_lease(lease: ObjectKey, shard: int) -> ObjectKey:
    """Where a shard's Lease is, given where a single leader's would be."""
    return lease._replace(name=f"{lease.name}-shard-{shard}")


class Sharded(Protocol):
    """What is done for shards: a Controller."""

    admits: Callable[[Any], bool]

    def enqueue_all(self, where: Callable[[Any], bool]) -> None:
        """Has every object that is meant synced."""

    @property
    def syncing(self) -> Iterable[KubeObject]:
        """The objects that are being synced right now."""

    def stop_syncs(self, where: Callable[[Any], bool]) -> None:
        """Has the syncs of the objects that are meant end at once."""


# The fence of the term in which the current task syncs an object: closed for ever once the shard is lost.
_fence: ContextVar[Fence | None] = ContextVar("pilothouse_shard_fence", default=None)


class ShardFence(Fence):
    """Lets changes through that are made in the sync of an object, while its shard's Lease is held."""

    def __init__(self) -> None:
        super().__init__(-math.inf)

    async def guard(self, effect: Callable[[], Awaitable[R]]) -> R:
        """Makes a change, as `Fence.guard` does, behind the fence of the shard in whose sync it is called.

        Raises:
            Fenced: The shard is not held any more, or this is no sync.
        """
        fence = _fence.get()
        if fence is None:
            raise Fenced
        return await fence.guard(effect)

    async def in_thread(self, function: Callable[..., R], *arguments: Any) -> R:
        """Runs what blocks in a thread, as `Fence.in_thread` does, behind the fence that `guard` would take.

        Raises:
            Fenced: The shard is not held any more, or this is no sync.
        """
        fence = _fence.get()
        if fence is None:
            raise Fenced
        return await fence.in_thread(function, *arguments)


class AnyShardFence(Fence):
    """Lets through what belongs to no sync, such as an Event, while any shard's Lease is held.

    Args:
        present: Returns the fence of the shard that is to let the next change through.
    """

    def __init__(self, present: Callable[[], Fence]) -> None:
        super().__init__(-math.inf)
        self._present = present

    async def guard(self, effect: Callable[[], Awaitable[R]]) -> R:
        """Makes a change, as `Fence.guard` does, behind the fence of a shard that is held.

        Raises:
            Fenced: None is, or that one was lost meanwhile.
        """
        return await self._present().guard(effect)


class Sharding:
    """Holds this replica's share of the shards' Leases, and has their objects synced.

    Attributes:
        fence: Lets changes through.
        event_fence: Lets Events through: a replica that holds no shard says nothing.

    Args:
        api: Reaches the API server; its identity may get, create and patch the Leases.
        lease: The Leases' namespace, and what their names begin with.
        replica: This replica's name, for people.
        shards: How many shards there are; all replicas have to agree.
        timing: The durations of the Leases.
        patience: How long a sync in flight may go on in a shard that another replica should have, seconds.
    """

    def __init__(
        self,
        api: Api,
        lease: ObjectKey,
        replica: str,
        shards: int,
        timing: LeaseTiming,
        patience: float,
    ) -> None:
        self.fence = ShardFence()
        self.event_fence = AnyShardFence(self._safest_fence)
        self._shards = shards
        self._timing = timing
        self._patience = patience
        self._replicas = Replicas(
            api, lease._replace(name=f"{lease.name}-replicas"), replica, timing.duration
        )
        self._new_elector: Callable[[int], LeaderElector] = lambda shard: LeaderElector(
            api, shard_lease(lease, shard), replica, timing
        )
        # The elector of each shard's present term; there is one from the start, for its metric.
        self._electors = [self._new_elector(shard) for shard in range(shards)]
        self._controllers: list[Sharded] = []
        # The shards whose objects are synced here.
        self._open: set[int] = set()
        # What takes and renews the Lease of a shard; what hands one over.
        self._serving: dict[int, asyncio.Task[None]] = {}
        self._leaving: dict[int, asyncio.Task[None]] = {}

    @property
    def held(self) -> Collection[int]:
        """The shards whose objects are synced here."""
        return frozenset(self._open)

    def add(self, controllers: Sequence[Sharded]) -> None:
        """Has controllers sync the objects of this replica's shards, and no others."""
        for controller in controllers:
            controller.admits = self._admits
            self._controllers.append(controller)

    async def run(self) -> None:
        """Takes, renews and hands over Leases, until cancelled; `release` gives them up."""
        while True:
            try:
                async with asyncio.timeout(self._timing.renew_deadline / 2):
                    replicas = await self._replicas.beat()
            except AlreadyExists:
                log.debug("another replica has just begun the list")
                continue
            except (KubeError, TimeoutError) as error:
                log.warning(
                    "the list of replicas cannot be reached, all stays as it is: %s",
                    str(error) or "no answer",
                )
            else:
                self._share(replicas)
            await asyncio.sleep(self._timing.retry_period)

    async def release(self) -> None:
        """Gives all Leases up, so that others take them at once. Call it when nothing is synced any more."""
        self._open.clear()
        await cancel([*self._serving.values(), *self._leaving.values()], STOP_SECONDS)
        await asyncio.gather(self._replicas.leave(), *(elector.release() for elector in self._electors))

    def _share(self, replicas: set[str]) -> None:
        due = {shard for shard, name in assign(replicas, self._shards).items() if name == self._replicas.own}
        for shard in sorted(due - self._serving.keys() - self._leaving.keys()):
            self._electors[shard] = self._new_elector(shard)
            self._begin(self._serving, shard, self._serve(shard, self._electors[shard]))
        for shard in sorted(self._serving.keys() - due):
            self._begin(self._leaving, shard, self._hand_over(shard, self._serving.pop(shard)))

    def _begin(self, tasks: dict[int, asyncio.Task[None]], shard: int, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        tasks[shard] = task

        def ended(_: asyncio.Task[None]) -> None:
            if tasks.get(shard) is task:
                del tasks[shard]
            if not task.cancelled() and (error := task.exception()):
                log_defect(log, error, "shard %d is tried again after an unexpected error", shard)

        task.add_done_callback(ended)

    async def _serve(self, shard: int, elector: LeaderElector) -> None:
        await elector.acquire()
        self._open.add(shard)
        for controller in self._controllers:
            controller.enqueue_all(lambda obj: self._shard(obj) == shard)
        try:
            await elector.hold()
        except LeadershipLost as error:
            log.warning("a shard is lost: %s", error)
            self._stop_syncs(shard)
        finally:
            self._open.discard(shard)

    async def _hand_over(self, shard: int, serving: asyncio.Task[None]) -> None:
        """Lets the shard's syncs end, while the Lease is renewed, and gives it up."""
        self._open.discard(shard)
        try:
            if not await self._syncs_end(shard, self._patience):
                log.warning("syncs in flight in a shard that is handed over did not end and are stopped")
                self._stop_syncs(shard)
                await self._syncs_end(shard, STOP_SECONDS)
        finally:
            # Also when the process stops meanwhile: nobody else knows of it.
            await cancel([serving], STOP_SECONDS)
        await self._electors[shard].release()

    async def _syncs_end(self, shard: int, seconds: float) -> bool:
        """Whether the syncs in flight in a shard end within so many seconds."""
        try:
            async with asyncio.timeout(seconds):
                while self._is_synced_now(shard):  # noqa: ASYNC110 - nothing tells when a sync ends
                    await asyncio.sleep(DRAIN_PERIOD)
        except TimeoutError:
            return False
        return True

    def _admits(self, obj: KubeObject) -> bool:
        """Whether an object is ours. Asked in the task that is going to sync it: its changes are fenced."""
        shard = self._shard(obj)
        fence = self._electors[shard].fence
        if shard not in self._open or not fence.open:
            return False
        _fence.set(fence)
        return True

    def _safest_fence(self) -> Fence:
        """The fence that is open for longest; of a shard that is handed over only when there is no other.

        What is under way when that one's Lease is given up would be cut, and the Lease be left to expire.
        """
        shards = self._open or range(self._shards)
        return max((self._electors[shard].fence for shard in shards), key=lambda fence: fence.until)

    def _stop_syncs(self, shard: int) -> None:
        for controller in self._controllers:
            controller.stop_syncs(lambda obj: self._shard(obj) == shard)

    def _is_synced_now(self, shard: int) -> bool:
        return any(
            self._shard(obj) == shard for controller in self._controllers for obj in controller.syncing
        )

    def _shard(self, obj: KubeObject) -> int:
        return shard_of(obj.metadata.uid, self._shards)
