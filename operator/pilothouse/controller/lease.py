"""The Lease (coordination.k8s.io/v1) as a lock: what is stored, and how it is taken, renewed and given up."""

from dataclasses import dataclass

import msgspec

from pilothouse.kube import ObjectMeta, Resource

# client-go tools/leaderelection/leaderelection.go: JitterFactor.
JITTER_FACTOR = 1.2


@dataclass(frozen=True)
class LeaseTiming:
    """The durations of an election, in seconds. The usual values are controller-runtime's (pkg/manager)."""

    duration: float = 15.0
    """LEASE_DURATION: how long others wait, after they last saw the Lease change, before they take it."""
    renew_deadline: float = 10.0
    """RENEW_DEADLINE: how long the leader tries to renew the Lease before it gives up leading."""
    retry_period: float = 2.0
    """RETRY_PERIOD: how long between two tries to take or renew the Lease."""

    @property
    def margin(self) -> float:
        """What lies at least between the time at which a leader's changes end and its successor's first."""
        return self.duration - self.renew_deadline

    def mistake(self) -> str:
        """What is wrong with these durations, as half a sentence; empty when they fit together."""
        if self.duration <= self.renew_deadline:
            return (
                f"LEASE_DURATION ({self.duration:g} s) must be longer than RENEW_DEADLINE "
                f"({self.renew_deadline:g} s)"
            )
        if self.renew_deadline <= self.retry_period * JITTER_FACTOR:
            return (
                f"RENEW_DEADLINE ({self.renew_deadline:g} s) must be longer than {JITTER_FACTOR} times "
                f"RETRY_PERIOD ({self.retry_period:g} s)"
            )
        return ""


class LeaseSpec(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """The holder of the Lease. Times are RFC 3339 with microseconds."""

    holder_identity: str = ""
    lease_duration_seconds: int = 0
    acquire_time: str | None = None
    renew_time: str | None = None
    lease_transitions: int = 0


class Lease(msgspec.Struct, frozen=True, gc=False):
    """The view of a Lease that an election needs."""

    metadata: ObjectMeta
    spec: LeaseSpec = LeaseSpec()


LEASE: Resource[Lease] = Resource("coordination.k8s.io", "v1", "Lease", "leases", Lease)
