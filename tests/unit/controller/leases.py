"""A Lease, and the electors that compete for it, for tests of leader election."""

from pilothouse.controller import LeaderElector, LeaseTiming
from pilothouse.controller.lease import LEASE
from pilothouse.kube import ObjectKey
from pilothouse.testing import ModelApi

KEY = ObjectKey("operators", "flights")
TIMING = LeaseTiming()


def elector(api: ModelApi, holder: str = "pod-1", timing: LeaseTiming = TIMING) -> LeaderElector:
    return LeaderElector(api, KEY, holder, timing)


def held_by_other(api: ModelApi, **more: object) -> None:
    """Stores the Lease as another process holds it, with other values for some fields of its spec."""
    values = {
        "holderIdentity": "other",
        "leaseDurationSeconds": 15,
        "acquireTime": "2020-01-01T00:00:00.000000Z",
        "renewTime": "2020-01-01T00:00:00.000000Z",
        "leaseTransitions": 3,
    }
    api.put(LEASE, KEY.name, KEY.namespace, spec=values | more)
