"""Sharding: all replicas are active, and each reconciles the objects of its shards.

A hash of its UID assigns an object to a shard, permanently. A shard belongs to the replica that holds its
Lease. The Lease fences it as it fences a single leader: two replicas never make changes for the same object.
Each term has its own elector and fence: a reconcile that began in one term changes nothing in a later one.
Each replica calculates from the list of replicas which replica should hold which Lease, so they need not
communicate. Where their lists differ for a moment, the Leases decide.

The list is stored on one more Lease: each replica has an annotation there, its heartbeat, and changes it
every few seconds. A replica whose annotation has not changed for a Lease's duration counts as dead, and its
shards are assigned to the others. They can take its Leases after another such duration.
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

# How often to check whether the last reconcile of a shard that is handed over has ended, in seconds.
DRAIN_PERIOD = 0.05
# How long cancelled reconciles and renewals of a Lease may take to end, in seconds. If they still run after
# that, the fence stops their changes.
STOP_SECONDS = 0.5


def shard_of(uid: str, shards: int) -> int:
    """Returns the shard of an object. It is the same in every process and version."""
    return zlib.crc32(uid.encode()) % shards


def shard_lease(lease: ObjectKey, shard: int) -> ObjectKey:
    """Returns the key of a shard's Lease, given the key of a single leader's Lease."""
    return lease._replace(name=f"{lease.name}-shard-{shard}")


class Sharded(Protocol):
    """What sharding needs of a Controller."""

    def enqueue_all(self, where: Callable[[Any], bool]) -> None:
        """Queues every matching object."""

    @property
    def syncing(self) -> Iterable[KubeObject]:
        """The objects that are being reconciled now."""

    def stop_syncs(self, where: Callable[[Any], bool]) -> None:
        """Cancels the running reconciles of matching objects immediately."""


# The fence of the term in which the current asyncio task reconciles an object. Once the shard is lost, it
# stays closed.
_fence: ContextVar[Fence | None] = ContextVar("pilothouse_shard_fence", default=None)


class ShardFence(Fence):
    """Allows the changes of a reconcile while this replica holds the Lease of the object's shard."""

    def __init__(self) -> None:
        super().__init__(-math.inf)

    async def guard(self, effect: Callable[[], Awaitable[R]]) -> R:
        """Makes a change behind the fence of the shard whose object is being reconciled; see `Fence.guard`.

        Raises:
            Fenced: This replica no longer holds the shard, or the caller is not part of a reconcile.
        """
        fence = _fence.get()
        if fence is None:
            raise Fenced
        return await fence.guard(effect)

    async def in_thread(self, function: Callable[..., R], *arguments: Any) -> R:
        """Runs a blocking function in a thread, behind the same fence as `guard`; see `Fence.in_thread`.

        Raises:
            Fenced: This replica no longer holds the shard, or the caller is not part of a reconcile.
        """
        fence = _fence.get()
        if fence is None:
            raise Fenced
        return await fence.in_thread(function, *arguments)


class AnyShardFence(Fence):
    """Allows changes outside of reconciles, such as Events, while this replica holds any shard's Lease.

    Args:
        present: Returns the shard's fence that guards the next change.
    """

    def __init__(self, present: Callable[[], Fence]) -> None:
        super().__init__(-math.inf)
        self._present = present

    async def guard(self, effect: Callable[[], Awaitable[R]]) -> R:
        """Makes a change behind the fence of a held shard; see `Fence.guard`.

        Raises:
            Fenced: This replica holds no shard, or has lost that shard during the change.
        """
        return await self._present().guard(effect)


class Sharding:
    """Holds the Leases of this replica's shards, and has controllers reconcile their objects.

    Attributes:
        fence: The fence for the changes of reconciles.
        event_fence: The fence for Events: a replica that holds no shard writes none.

    Args:
        api: The client of the API server. It needs permission to get, create and patch the Leases.
        lease: The namespace of the Leases, and the prefix of their names.
        replica: The name of this replica, for people.
        shards: The number of shards, which must be the same in all replicas.
        timing: The durations of the Leases.
        patience: How long running reconciles may continue, in seconds, after their shard was assigned to
            another replica.
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
        # The elector of each shard's current term. Each shard has one from the start, for its metric.
        self._electors = [self._new_elector(shard) for shard in range(shards)]
        self._controllers: list[Sharded] = []
        # The shards whose objects this replica reconciles.
        self._open: set[int] = set()
        # The asyncio tasks that hold the Lease of a shard, and those that hand one over.
        self._serving: dict[int, asyncio.Task[None]] = {}
        self._leaving: dict[int, asyncio.Task[None]] = {}

    @property
    def held(self) -> Collection[int]:
        """The shards whose objects this replica reconciles."""
        return frozenset(self._open)

    def add(self, controllers: Sequence[Sharded]) -> None:
        """Adds controllers, which were created with `admits`, before the shards are acquired."""
        self._controllers.extend(controllers)

    async def run(self) -> None:
        """Acquires, renews and hands over Leases, until cancelled. Call `release` after that."""
        while True:
            try:
                async with asyncio.timeout(self._timing.renew_deadline / 2):
                    replicas = await self._replicas.beat()
            except AlreadyExists:
                log.debug("Another replica has just created the list of replicas")
                continue
            except (KubeError, TimeoutError) as error:
                log.warning(
                    "Could not update the list of replicas, keeping the current shards: %s",
                    str(error) or "no response in time",
                )
            else:
                self._share(replicas)
            await asyncio.sleep(self._timing.retry_period)

    async def release(self) -> None:
        """Releases all Leases, so that others can take them. Call it when all reconciles have ended."""
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
                log_defect(log, error, "Unexpected error in shard %d, retrying", shard)

        task.add_done_callback(ended)

    async def _serve(self, shard: int, elector: LeaderElector) -> None:
        await elector.acquire()
        self._open.add(shard)
        for controller in self._controllers:
            controller.enqueue_all(lambda obj: self._shard(obj) == shard)
        try:
            await elector.hold()
        except LeadershipLost as error:
            log.warning("Lost shard %d: %s", shard, error)
            self._stop_syncs(shard)
        finally:
            self._open.discard(shard)

    async def _hand_over(self, shard: int, serving: asyncio.Task[None]) -> None:
        """Waits for the shard's running reconciles while the Lease is renewed, then releases the Lease."""
        self._open.discard(shard)
        try:
            if not await self._syncs_end(shard, self._patience):
                log.warning(
                    "Cancelling reconciles in shard %d, which is handed over to another replica: they "
                    "did not end within %g s",
                    shard,
                    self._patience,
                )
                self._stop_syncs(shard)
                await self._syncs_end(shard, STOP_SECONDS)
        finally:
            # Also if the process stops in between: nothing else has a reference to this asyncio task.
            await cancel([serving], STOP_SECONDS)
        await self._electors[shard].release()

    async def _syncs_end(self, shard: int, seconds: float) -> bool:
        """Returns whether the running reconciles of a shard end within the given number of seconds."""
        try:
            async with asyncio.timeout(seconds):
                while self._is_synced_now(shard):  # noqa: ASYNC110 - no notification when a reconcile ends
                    await asyncio.sleep(DRAIN_PERIOD)
        except TimeoutError:
            return False
        return True

    def admits(self, obj: KubeObject) -> bool:
        """Returns whether this replica reconciles an object, and sets the fence of the current asyncio task.

        Call it in the asyncio task that will reconcile the object.
        """
        shard = self._shard(obj)
        fence = self._electors[shard].fence
        if shard not in self._open or not fence.open:
            return False
        _fence.set(fence)
        return True

    def _safest_fence(self) -> Fence:
        """Returns the fence that is open for longest, if possible of a shard that is not being handed over.

        A change that is running when its shard's Lease is released would be interrupted, and the Lease could
        not be released.
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
