"""The Lease (coordination.k8s.io/v1) that replicas use as a lock, and the durations of an election."""

from dataclasses import dataclass

import msgspec

from pilothouse.kube import ObjectMeta, Resource

# client-go tools/leaderelection/leaderelection.go: JitterFactor.
JITTER_FACTOR = 1.2


@dataclass(frozen=True)
class LeaseTiming:
    """The durations of an election, in seconds. The defaults are controller-runtime's (pkg/manager)."""

    duration: float = 15.0
    """LEASE_DURATION: How long other replicas wait after the Lease last changed before they take it."""
    renew_deadline: float = 10.0
    """RENEW_DEADLINE: How long the leader tries to renew the Lease before it stops leading."""
    retry_period: float = 2.0
    """RETRY_PERIOD: The time between two attempts to acquire or renew the Lease."""

    @property
    def margin(self) -> float:
        """The minimum time in seconds between a leader's last change and its successor's first."""
        return self.duration - self.renew_deadline

    def mistake(self) -> str:
        """Returns why these durations do not work together, as a clause; empty if they do."""
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
    """The spec of a Lease. Times are in RFC 3339 format with microseconds."""

    holder_identity: str = ""
    lease_duration_seconds: int = 0
    acquire_time: str | None = None
    renew_time: str | None = None
    lease_transitions: int = 0


class Lease(msgspec.Struct, frozen=True, gc=False):
    """The fields of a Lease that an election needs."""

    metadata: ObjectMeta
    spec: LeaseSpec = LeaseSpec()


LEASE: Resource[Lease] = Resource("coordination.k8s.io", "v1", "Lease", "leases", Lease)
