"""A seeded sample of the fault matrix on the real node. A hook in the operator's pod injects the faults."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

import pytest

from devcluster.folders import CHECKOUT
from pilothouse.testing import Fault
from release import packages
from tests.cluster.flights import Flights

pytestmark = pytest.mark.timeout(900)

SEED = 20260102
#: The number of tickets. Each is created, changed and deleted, which takes 9 calls without faults.
TICKETS = 8
#: After each kill the kubelet waits longer before it restarts the container: 10 s, 20 s.
KILLS = [Fault.KILLED_BEFORE, Fault.KILLED_AFTER]
OTHERS = [
    Fault.REPLY_LOST,
    Fault.THROTTLED,
    Fault.ERROR_BEFORE,
    Fault.ERROR_AFTER,
    Fault.WATCH_CUT,
    Fault.WATCH_EXPIRED,
]
#: Only a change can fail with a conflict, and one of two consecutive calls is a change. These come after the
#: kills: a process continues with the next fault, and a fault that has no effect would repeat a kill.
LAST = [(3, Fault.CONFLICT), (1, Fault.CONFLICT)]
HOOK = "operator-faults"
FILES = [
    CHECKOUT / "tests" / "faults" / "hook" / "sitecustomize.py",
    CHECKOUT / "tests" / "faults" / "airline.py",
    *(
        CHECKOUT / "operator" / "pilothouse" / "testing" / f"{name}.py"
        for name in ("faults", "faulty", "freezing", "naming", "process", "threads", "virtual_time")
    ),
]


def sample() -> str:
    """Returns faults in random order, some calls apart, in the hook's format."""
    draw = random.Random(SEED)
    faults = KILLS + OTHERS
    draw.shuffle(faults)
    drawn = [(draw.randint(3, 7), fault) for fault in faults]
    return ";".join(f"{calls}:{fault}" for calls, fault in drawn + LAST)


@pytest.fixture
def under_faults(flights: Flights) -> Iterator[None]:
    """Mounts the hook into the operator's pod through the Subscription, and removes it afterwards."""
    kubectl, name = flights.kubectl, flights.package.name
    before = kubectl.read("subscription", name, "-n", packages.NAMESPACE)["spec"].get("config")
    files = [f"--from-file={path}" for path in FILES]
    kubectl("create", "configmap", HOOK, "-n", packages.NAMESPACE, *files)
    configure(
        flights,
        {
            "env": [
                {"name": "FAULTS", "value": sample()},
                {"name": "FAULTS_STRUCK", "value": "/struck/faults"},
                {"name": "PYTHONPATH", "value": "/hook:/opt/pilothouse/operator:/opt/pilothouse/site"},
                {"name": "LEASE_DURATION", "value": "4s"},
                {"name": "RENEW_DEADLINE", "value": "2s"},
                {"name": "RETRY_PERIOD", "value": "0.5s"},
            ],
            "volumes": [
                {"name": "hook", "configMap": {"name": HOOK}},
                {"name": "struck", "emptyDir": {}},
            ],
            "volumeMounts": [
                {"name": "hook", "mountPath": "/hook"},
                {"name": "struck", "mountPath": "/struck"},
            ],
        },
    )
    yield
    configure(flights, before)
    kubectl("delete", "configmap", HOOK, "-n", packages.NAMESPACE)


def configure(flights: Flights, config: object) -> None:
    """Sets the config of the Subscription, and waits until OLM has rolled out the operator with it."""
    name, kubectl = flights.package.name, flights.kubectl
    # Set to null first, because a merge patch would keep fields of the old config.
    for value in (None, config):
        patch = json.dumps({"spec": {"config": value}})
        kubectl("patch", "subscription", name, "-n", packages.NAMESPACE, "--type=merge", "-p", patch)
    faulty = bool(config) and "FAULTS" in json.dumps(config)

    def rolled_out() -> bool:
        deployment = kubectl.read("deployment", name, "-n", packages.NAMESPACE)
        status = deployment["status"]
        return (
            ("FAULTS_STRUCK" in json.dumps(deployment["spec"])) == faulty
            and status.get("observedGeneration") == deployment["metadata"]["generation"]
            and status.get("updatedReplicas") == status.get("readyReplicas") == status.get("replicas") == 1
            and len(flights.operator_pods()) == 1  # The Deployment does not count a terminating pod.
        )

    flights.until(rolled_out, "OLM has rolled out the operator with another config", seconds=120)


def test_a_sample_of_faults_books_once_and_loses_nothing(flights: Flights, under_faults: None) -> None:
    for number in range(TICKETS):
        name = f"fault-{number}"
        uid = flights.create(name)
        flights.wait_phase(name, "Booked", seconds=180)
        flights.change(name, number=4)
        flights.wait_phase(name, "Booked", seconds=180)
        flights.delete(name, wait=False)
        flights.until(lambda name=name: not flights.ticket(name), f"{name} is gone", seconds=180)  # type: ignore[misc]
        assert flights.airline.booking(uid) is None
        expected = {"created": 1, "changed": 1, "cancelled": 1, "closed": 1}
        assert dict(flights.airline.audit(uid)) == expected, name
    [pod] = flights.operator_pods()
    assert pod["status"]["containerStatuses"][0]["restartCount"] == len(KILLS)
    struck = flights.kubectl(
        "exec", pod["metadata"]["name"], "-n", packages.NAMESPACE, "--", "python3", "-c",
        "print(open('/struck/faults').read())",
    )  # fmt: skip
    kinds = {line.partition(" at ")[0] for line in struck.splitlines() if line}
    assert kinds == {*KILLS, *OTHERS, Fault.CONFLICT}, struck
