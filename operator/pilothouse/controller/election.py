"""Leader election with a Lease: one of several replicas is active.

The algorithm is that of client-go (tools/leaderelection). A candidate takes a Lease that has no holder, or
that it has not seen change for the duration that the Lease states. Clocks need not agree: each process
measures the time since it saw the Lease change on its own clock. That clock also counts the time in which the
machine is suspended (CLOCK_BOOTTIME): a leader that wakes up knows that another process may lead. A candidate
that wakes up does not take the Lease from a leader that has renewed it: it reads the Lease first, and its
write carries the version that it has read.

In addition to client-go there is a fence (controller/fence.py): the leader's changes end `renew_deadline`
after its last successful renewal *began*. Other processes see that renewal after it began, and then wait for
the whole `duration`. So at least `duration - renew_deadline` (5 s by default) pass between the leader's last
change and its successor's first. This margin allows for interrupted requests that still reach the API server,
and for clocks that run at different speeds.

A leader that stops releases the Lease, and its successor takes it immediately. It does not release the Lease
if a change was interrupted within the last margin, or if one still runs in a thread: then the Lease expires.

An operator that OLM uninstalls cannot release its Lease, because its permissions are deleted before its pod
is stopped. The pod logs that the request was refused, and the Lease expires.
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

# Time limit for releasing the Lease, in seconds: the process has 10 for its whole stop.
RELEASE_SECONDS = 2.0
# By which factor a failed renewal is retried sooner. With client-go's 4 attempts until the fence closes, an
# API server that fails 3 of 10 requests deposes a leader within minutes.
RENEW_HASTE = 4


class LeadershipLost(Exception):
    """The process must stop its work immediately, because another one may be the leader."""


class Observed(NamedTuple):
    """The Lease as it was last read, and when it was last seen to change (boottime)."""

    lease: Lease
    since: float


class LeaderElector:
    """Acquires and holds a Lease for one term. After the Lease was lost or released, create a new elector.

    Attributes:
        identity: The holder identity in the Lease while this process holds it: the holder's name and a UUID.
        fence: The fence, which is open as long as no other process can hold the Lease.

    Args:
        client: The client of the API server. It needs permission to get, create and patch the Lease.
        lease: The namespace and name of the Lease.
        holder: The name of this process, for people.
        timing: The durations of the election.
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
        # Set by `release`: the late response to a renewal must not open the fence again.
        self._over = False
        self._slowpath = metrics.LEADER_SLOWPATH.labels(name=lease.name)

    @property
    def leading(self) -> bool:
        """Whether this process held the Lease when it last read or wrote it."""
        return self._observed is not None and self._observed.lease.spec.holder_identity == self.identity

    @property
    def holder(self) -> str:
        """The identity in the Lease when this process last read or wrote it; empty without a holder."""
        return self._observed.lease.spec.holder_identity if self._observed else ""

    async def acquire(self) -> None:
        """Waits until this process holds the Lease."""
        log.info("Waiting for the Lease %s as %s", self._key, self.identity)
        holder = ""
        while not await self._try():
            if self.holder != holder:
                holder = self.holder
                log.info(
                    "Waiting: the Lease %s is held by %s, and expires %g s after its last renewal",
                    self._key,
                    holder,
                    self._timing.duration,
                )
            # wait.JitterUntil(RetryPeriod, JitterFactor): 1 to 2.2 periods, so that candidates spread.
            await asyncio.sleep(self._timing.retry_period * (1 + JITTER_FACTOR * random.random()))  # noqa: S311
        self._gauge.set(1)
        log.info("Acquired the Lease %s", self._key)

    async def hold(self) -> None:
        """Renews the Lease until cancelled.

        Raises:
            LeadershipLost: The Lease was not renewed in time, or another process holds it.
        """
        began, period = self._time(), self._timing.retry_period
        try:
            while True:
                # If an attempt took longer than the period, the next one follows immediately, as in
                # client-go: the time until the fence closes is for attempts.
                due = min(began + period, self.fence.until)
                await asyncio.sleep(due - self._time())
                began, deadline = self._time(), self.fence.until
                if began < deadline and await self._try(deadline):
                    period = self._timing.retry_period
                    continue
                period = self._timing.retry_period / RENEW_HASTE
                if not self.leading:
                    holder = f"is held by {self.holder}" if self.holder else "has no holder"
                    raise LeadershipLost(f"The Lease {self._key} now {holder}.")
                if self._time() >= deadline:
                    raise LeadershipLost(
                        f"The Lease {self._key} was not renewed within {self._timing.renew_deadline:g} s."
                    )
        finally:
            self._gauge.set(0)

    async def release(self) -> None:
        """Releases the Lease, if this process holds it, so that another process can take it immediately.

        Call it after `hold` was cancelled and all work has stopped. It closes the fence first. If a change
        may still be carried out, it does not release the Lease, which then expires.
        """
        self._over = True
        self.fence.close()
        if self.leading and (why := self._may_land()):
            log.warning("Not releasing the Lease %s, it will expire: %s", self._key, why)
            return
        try:
            async with asyncio.timeout(RELEASE_SECONDS):
                while self.leading and not await self._try_release():
                    log.debug("The Lease %s has changed, reading it again", self._key)
        except (KubeError, TimeoutError) as error:
            why = str(error) or "no response in time"
            log.warning("Could not release the Lease %s, it will expire: %s", self._key, why)

    def _may_land(self) -> str:
        """Returns why changes may still be carried out although the fence is closed; empty if none may."""
        if threads := len(self.fence.threads):
            return f"{threads} threads of tasks are still running"
        ago = self._time() - self.fence.last_cut
        if ago < self._timing.margin:
            return f"a change was interrupted {ago:.1f} s ago and may still be carried out"
        return ""

    @property
    def _request_deadline(self) -> float:
        """The time limit of a request: half the renew deadline, at least 1 s, as in controller-runtime."""
        return max(1.0, self._timing.renew_deadline / 2)

    async def _try(self, until: float = math.inf) -> bool:
        """Makes one attempt to acquire or renew the Lease, which ends at the time `until` at the latest."""
        began = self._time()
        try:
            async with asyncio.timeout(min(until - began, self._request_deadline)):
                if not self._over and await self._acquire_or_renew() and not self._over:
                    self.fence.until = began + self._timing.renew_deadline
                    return True
        except (Conflict, AlreadyExists) as error:
            log.debug("Another process has written the Lease %s first: %s", self._key, error)
        except (KubeError, TimeoutError) as error:
            log.warning(
                "Could not acquire or renew the Lease %s: %s", self._key, str(error) or "no response in time"
            )
        return False

    async def _acquire_or_renew(self) -> bool:
        # 1. The leader renews without reading, assuming that the Lease has not changed.
        if self._observed is not None and self.leading and not self._expired(self._observed):
            try:
                return await self._write(self._observed.lease)
            except Conflict:
                log.debug("The Lease %s has changed, reading it again", self._key)
            except NotFound:
                log.warning("The Lease %s was deleted, creating it again", self._key)
            self._slowpath.inc()
        # 2. Otherwise read it, or create it.
        try:
            lease = await self._client.get(LEASE, self._key)
        except NotFound:
            body = {"metadata": {"name": self._key.name}, "spec": self._record(None)}
            self._see(await self._client.create(LEASE, body, namespace=self._key.namespace))
            return True
        # 3. Take the Lease if it has no holder, or if it has not changed for its whole duration.
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
        log.info("Released the Lease %s", self._key)
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
