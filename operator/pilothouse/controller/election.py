"""Leader election over a Lease: of several replicas one works.

The algorithm is client-go's (tools/leaderelection): a candidate takes a Lease that nobody holds, or that it
has not seen change for as long as the Lease says. Whose clock is right never matters: each process measures,
on its own clock, the time since it saw the Lease change. That clock goes on while the machine is suspended
(CLOCK_BOOTTIME): a leader that wakes up knows that it may have been succeeded. A candidate that wakes up does
not take the Lease from a leader that has renewed it meanwhile: it reads the Lease first, and its write
carries the version that it has read.

Beyond client-go there is a fence (controller/fence.py): the leader's changes end `renew_deadline` after its
last successful renewal *began*. Another process sees that renewal later than it began, and waits the whole
`duration` from then on; so at least `duration - renew_deadline` (5 s unless set otherwise) lie between the
leader's last change and its successor's first. That margin is for what a request cut off may still do on its
way through network and server, and for clocks that do not run alike.

A leader that stops gives the Lease up, and its successor follows at once. So it may not as long as the margin
has not passed since a change was cut on its way, nor while one runs in a thread: then the Lease expires.

An operator that OLM uninstalls does not give its Lease up: its rights are deleted before its pod is told to
stop. Nothing can be done about it from here; the Lease expires, and the pod only logs that it was refused.
"""

import asyncio
import logging
import math
import random
import uuid
from typing import NamedTuple

from pilothouse.controller.fence import Fence
from pilothouse.controller.lease import JITTER_FACTOR, LEASE, Lease, LeaseSpec, LeaseTiming
from pilothouse.kube import AlreadyExists, Api, Conflict, KubeError, NotFound, ObjectKey, PatchType
from pilothouse.telemetry import clock, metrics

log = logging.getLogger(__name__)

# How long giving the Lease up may take, seconds: the process has 10 for its whole stop.
RELEASE_SECONDS = 2.0
# By how much sooner than usual a renewal that failed is tried again: with 4 tries until the fence closes, as
# client-go has, a server that fails 3 of 10 requests deposes a leader within minutes.
RENEW_HASTE = 4


class LeadershipLost(Exception):
    """The process must stop working at once: another one may have become leader."""


class Observed(NamedTuple):
    """The Lease as it was last seen to change, and when that was (boottime)."""

    lease: Lease
    since: float


class LeaderElector:
    """Takes and holds one Lease for one term: who has lost it or given it up makes another elector.

    Attributes:
        identity: What the Lease says of its holder while this process has it.
        fence: Open as long as nobody else can have the Lease.

    Args:
        client: Reaches the API server; its identity may get, create and patch the Lease.
        lease: Where the Lease is.
        holder: The name of the process; a unique part is added.
        timing: The durations.
    """

    def __init__(self, client: Api, lease: ObjectKey, holder: str, timing: LeaseTiming) -> None:
        self._client = client
        self._key = lease
        self._timing = timing
        self._observed: Observed | None = None
        self._time = clock.boottime(asyncio.get_running_loop())
        self.identity = f"{holder}_{uuid.uuid4()}"
        self.fence = Fence(-math.inf)
        self._gauge = metrics.LEADER.labels(name=lease.name)
        self._gauge.set(0)
        # `release` was called: a renewal that is answered late changes nothing any more.
        self._over = False
        self._slowpath = metrics.LEADER_SLOWPATH.labels(name=lease.name)

    @property
    def leading(self) -> bool:
        """Whether this process held the Lease when it last looked."""
        return self._observed is not None and self._observed.lease.spec.holder_identity == self.identity

    @property
    def holder(self) -> str:
        """Who held the Lease when this process last looked; empty when nobody."""
        return self._observed.lease.spec.holder_identity if self._observed else ""

    async def acquire(self) -> None:
        """Tries until this process holds the Lease."""
        log.info("waiting for the lease %s as %s", self._key, self.identity)
        holder = ""
        while not await self._try():
            if self.holder != holder:
                holder = self.holder
                log.info(
                    "the lease %s is held by %s; it is free %g s after its last renewal at the latest",
                    self._key,
                    holder,
                    self._timing.duration,
                )
            # wait.JitterUntil(RetryPeriod, JitterFactor): 1 to 2.2 periods, so that candidates spread.
            await asyncio.sleep(self._timing.retry_period * (1 + JITTER_FACTOR * random.random()))  # noqa: S311
        self._gauge.set(1)
        log.info("holding the lease %s", self._key)

    async def hold(self) -> None:
        """Renews the Lease until cancelled.

        Raises:
            LeadershipLost: It was not renewed in time, or somebody else holds it.
        """
        began, period = self._time(), self._timing.retry_period
        try:
            while True:
                # A try that took longer than the period is followed by the next at once, as client-go does
                # it: what is left until the fence closes is for trying.
                due = min(began + period, self.fence.until)
                await asyncio.sleep(due - self._time())
                began, deadline = self._time(), self.fence.until
                if began < deadline and await self._try(deadline):
                    period = self._timing.retry_period
                    continue
                period = self._timing.retry_period / RENEW_HASTE
                if not self.leading:
                    raise LeadershipLost(f"The lease {self._key} is now held by {self.holder or 'nobody'}.")
                if self._time() >= deadline:
                    raise LeadershipLost(
                        f"The lease {self._key} was not renewed within {self._timing.renew_deadline:g} s."
                    )
        finally:
            self._gauge.set(0)

    async def release(self) -> None:
        """Gives the Lease up, if this process holds it, so that another one takes it at once.

        Call it after `hold` has been cancelled and nothing works any more: the fence is closed first. As long
        as something may still land, the Lease is left to expire.
        """
        self._over = True
        self.fence.close()
        if self.leading and (why := self._may_land()):
            log.warning("the lease %s is not given up, it expires by itself: %s", self._key, why)
            return
        try:
            async with asyncio.timeout(RELEASE_SECONDS):
                while self.leading and not await self._try_release():
                    log.debug("the lease %s has changed, reading it again", self._key)
        except (KubeError, TimeoutError) as error:
            why = str(error) or "no answer in time"
            log.warning("the lease %s was not released, it expires by itself: %s", self._key, why)

    def _may_land(self) -> str:
        """What may still change something though the fence is closed; empty when nothing does."""
        if threads := len(self.fence.threads):
            return f"{threads} threads of tasks still run"
        ago = self._time() - self.fence.last_cut
        if ago < self._timing.margin:
            return f"a change was cut on its way {ago:.1f} s ago and may still be carried out"
        return ""

    @property
    def _request_deadline(self) -> float:
        """controller-runtime pkg/leaderelection: half the renew deadline, one second at least."""
        return max(1.0, self._timing.renew_deadline / 2)

    async def _try(self, until: float = math.inf) -> bool:
        """One try to take or renew the Lease, ended at the time `until` at the latest."""
        began = self._time()
        try:
            async with asyncio.timeout(min(until - began, self._request_deadline)):
                if not self._over and await self._acquire_or_renew() and not self._over:
                    self.fence.until = began + self._timing.renew_deadline
                    return True
        except (Conflict, AlreadyExists) as error:
            log.debug("another process was quicker at the lease %s: %s", self._key, error)
        except (KubeError, TimeoutError) as error:
            log.warning(
                "the lease %s cannot be taken or renewed: %s", self._key, str(error) or "no answer in time"
            )
        return False

    async def _acquire_or_renew(self) -> bool:
        # 1. The leader renews at once, assuming that the Lease is as it left it.
        if self._observed is not None and self.leading and not self._expired(self._observed):
            try:
                return await self._write(self._observed.lease)
            except Conflict:
                log.debug("the lease %s has changed, reading it again", self._key)
            except NotFound:
                log.warning("the lease %s was deleted, making it again", self._key)
            self._slowpath.inc()
        # 2. Otherwise read it, or make it.
        try:
            lease = await self._client.get(LEASE, self._key)
        except NotFound:
            body = {"metadata": {"name": self._key.name}, "spec": self._record(None)}
            self._see(await self._client.create(LEASE, body, namespace=self._key.namespace))
            return True
        # 3. Somebody else's Lease is taken when it is empty, or has not changed for its whole duration.
        observed = self._see(lease)
        if lease.spec.holder_identity and not self.leading and not self._expired(observed):
            return False
        return await self._write(lease)

    async def _write(self, lease: Lease) -> bool:
        body = {
            "metadata": {"resourceVersion": lease.metadata.resource_version},
            "spec": self._record(lease.spec),
        }
        self._see(await self._client.patch(LEASE, self._key, body, type=PatchType.MERGE))
        return True

    async def _try_release(self) -> bool:
        lease = self._see(await self._client.get(LEASE, self._key)).lease
        if not self.leading:
            return True
        now = _timestamp()
        spec = {"holderIdentity": "", "leaseDurationSeconds": 1, "acquireTime": now, "renewTime": now}
        body = {"metadata": {"resourceVersion": lease.metadata.resource_version}, "spec": spec}
        try:
            self._see(await self._client.patch(LEASE, self._key, body, type=PatchType.MERGE))
        except Conflict:
            return False
        log.info("released the lease %s", self._key)
        return True

    def _record(self, old: LeaseSpec | None) -> dict[str, object]:
        now = _timestamp()
        renewal = old is not None and old.holder_identity == self.identity
        transitions = 0 if old is None else old.lease_transitions + (not renewal)
        return {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": math.ceil(self._timing.duration),
            "acquireTime": old.acquire_time if old is not None and renewal else now,
            "renewTime": now,
            "leaseTransitions": transitions,
        }

    def _see(self, lease: Lease) -> Observed:
        if self._observed is None or self._observed.lease.spec != lease.spec:
            self._observed = Observed(lease, self._time())
        else:
            self._observed = Observed(lease, self._observed.since)
        if not self.leading:
            self.fence.close()
        return self._observed

    def _expired(self, observed: Observed) -> bool:
        duration = observed.lease.spec.lease_duration_seconds
        return observed.since + duration < self._time()


def _timestamp() -> str:
    return clock.now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
