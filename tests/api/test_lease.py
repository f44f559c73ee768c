"""Election and Events against a real API server: it accepts what we write, and keeps what others wrote."""

import asyncio
import json
from typing import Any

import pytest

from pilothouse.controller import (
    Event,
    EventRecorder,
    EventType,
    LeaderElector,
    LeadershipLost,
    LeaseTiming,
    ObjectReference,
)
from pilothouse.controller.events import EVENT
from pilothouse.controller.lease import LEASE
from pilothouse.kube import Client, ObjectKey, PatchType
from pilothouse.testing import eventually, objects
from tests.api.versions import ON_BOTH

pytestmark = ON_BOTH

# Whole seconds are the least that a Lease can say.
TIMING = LeaseTiming(duration=3, renew_deadline=2, retry_period=0.3)


async def lease_of(client: Client, key: ObjectKey) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(await client.request("GET", LEASE.path(*key)))
    return found


@pytest.fixture
def key(namespace: str) -> ObjectKey:
    return ObjectKey(namespace, "tickets")


async def test_a_lease_is_made_renewed_released_and_taken_over(client: Client, key: ObjectKey) -> None:
    first, second = (LeaderElector(client, key, name, TIMING) for name in ("pod-1", "pod-2"))
    await first.acquire()
    made = await lease_of(client, key)
    assert made["spec"]["holderIdentity"] == first.identity
    assert made["spec"]["leaseDurationSeconds"] == 3
    holding = asyncio.create_task(first.hold())
    waiting = asyncio.create_task(second.acquire())

    async def renewed() -> bool:
        spec = (await lease_of(client, key))["spec"]
        return bool(spec["renewTime"] > made["spec"]["renewTime"])

    await eventually(renewed, describe=objects(client, LEASE, key.namespace))
    assert (await lease_of(client, key))["spec"]["acquireTime"] == made["spec"]["acquireTime"]
    assert not waiting.done()
    assert not holding.done()
    holding.cancel()
    await asyncio.wait([holding])
    await first.release()
    async with asyncio.timeout(10):
        await waiting
    taken = (await lease_of(client, key))["spec"]
    assert taken["holderIdentity"] == second.identity
    assert taken["leaseTransitions"] == 1


async def test_a_dead_leader_is_replaced_after_its_duration(client: Client, key: ObjectKey) -> None:
    dead, standby = (LeaderElector(client, key, name, TIMING) for name in ("pod-1", "pod-2"))
    await dead.acquire()
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with asyncio.timeout(20):
        await standby.acquire()
    assert loop.time() - began >= 3


async def test_a_deposed_leader_notices(client: Client, key: ObjectKey) -> None:
    leader = LeaderElector(client, key, "pod-1", TIMING)
    await leader.acquire()
    holding = asyncio.create_task(leader.hold())
    await client.patch(LEASE, key, {"spec": {"holderIdentity": "usurper"}}, type=PatchType.MERGE)
    async with asyncio.timeout(5):
        with pytest.raises(LeadershipLost, match="usurper"):
            await holding


async def test_what_others_wrote_into_the_lease_stays(client: Client, key: ObjectKey) -> None:
    leader = LeaderElector(client, key, "pod-1", TIMING)
    await leader.acquire()
    await client.patch(LEASE, key, {"metadata": {"labels": {"team": "travel"}}}, type=PatchType.MERGE)
    holding = asyncio.create_task(leader.hold())
    version = (await lease_of(client, key))["metadata"]["resourceVersion"]

    async def renewed() -> bool:
        return bool((await lease_of(client, key))["metadata"]["resourceVersion"] != version)

    await eventually(renewed)
    assert (await lease_of(client, key))["metadata"]["labels"] == {"team": "travel"}
    assert not holding.done()
    holding.cancel()
    await asyncio.wait([holding])


async def test_events_are_accepted_and_become_a_series(client: Client, namespace: str) -> None:
    recorder = EventRecorder(client, "tests.dev/operator", "pod-1")
    recording = asyncio.create_task(recorder.run())
    regarding = ObjectReference("tests.dev/v1", "Ticket", ObjectKey(namespace, "my-ticket"), "uid-1")
    long = Event(regarding, EventType.NORMAL, "Told", "seats are booked", "ö" * 3000)
    down = Event(regarding, EventType.WARNING, "AirlineDown", "booking is known", "It does not answer.")
    recorder.record(long)
    for _ in range(3):
        recorder.record(down)
    await recorder.flush(5)
    recorder.record(down)
    await recorder.flush(5)
    recording.cancel()
    items = json.loads(await client.request("GET", EVENT.path(namespace)))["items"]
    by_reason = {item["reason"]: item for item in items}
    assert len(items) == 2, items
    assert by_reason["AirlineDown"]["series"]["count"] >= 3
    assert by_reason["AirlineDown"]["action"] == "booking is known"
    assert len(by_reason["Told"]["note"].encode()) <= 1024
    # What `kubectl describe` asks for.
    core = await client.request(
        "GET",
        f"/api/v1/namespaces/{namespace}/events",
        params={"fieldSelector": "involvedObject.name=my-ticket,involvedObject.uid=uid-1"},
    )
    assert len(json.loads(core)["items"]) == 2


async def test_a_singular_event_becomes_a_series_by_a_patch(client: Client, namespace: str) -> None:
    recorder = EventRecorder(client, "tests.dev/operator", "pod-1")
    recording = asyncio.create_task(recorder.run())
    regarding = ObjectReference("tests.dev/v1", "Ticket", ObjectKey(namespace, "my-ticket"), "uid-1")
    down = Event(regarding, EventType.WARNING, "AirlineDown", "booking is known", "It does not answer.")
    for _ in range(2):
        recorder.record(down)
        await recorder.flush(5)
    recording.cancel()
    [item] = json.loads(await client.request("GET", EVENT.path(namespace)))["items"]
    assert item["series"]["count"] == 2
