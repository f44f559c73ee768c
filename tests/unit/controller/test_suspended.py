"""A machine is suspended and wakes up, such as a laptop: its Lease may be lost."""

import asyncio
import time

import pytest

from pilothouse.controller import Fence, Fenced, LeadershipLost
from pilothouse.controller.lease import LEASE
from pilothouse.controller.replicas import Replicas
from pilothouse.process import Manager, Settings
from pilothouse.telemetry.clock import boottime
from pilothouse.testing import Call, ModelApi, VirtualTimeLoop
from tests.unit.controller.leases import KEY, TIMING, elector, held_by_other
from tests.unit.tickets import TICKET

LATER = "2020-01-01T01:00:00.000000Z"


@pytest.fixture
async def acquiring(api: ModelApi, virtual_time: VirtualTimeLoop) -> asyncio.Task[None]:
    """A candidate that has watched for 5 s the Lease that another process holds."""
    held_by_other(api)
    candidate = asyncio.create_task(elector(api).acquire())
    await asyncio.sleep(5)
    return candidate


async def test_the_real_clock_counts_suspended_time() -> None:
    clock = boottime(asyncio.get_running_loop())
    kind = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    before = time.clock_gettime(kind)
    assert before <= clock() <= time.clock_gettime(kind)


async def test_no_change_begins_after_the_machine_slept(virtual_time: VirtualTimeLoop) -> None:
    fence = Fence(virtual_time.boottime() + 10)
    assert fence.open
    virtual_time.suspend(11)
    assert not fence.open
    made = []

    async def effect() -> None:
        made.append("change")

    with pytest.raises(Fenced):
        await fence.guard(effect)
    with pytest.raises(Fenced):
        await fence.in_thread(made.append, "change in a thread")
    assert made == []


async def test_a_running_change_takes_no_further_step_after_the_machine_slept(
    virtual_time: VirtualTimeLoop,
) -> None:
    fence = Fence(virtual_time.boottime() + 10)
    steps = []

    async def effect() -> None:
        for step in range(3):
            steps.append(step)
            await asyncio.sleep(2)

    change = asyncio.create_task(fence.guard(effect))
    await asyncio.sleep(1)
    virtual_time.suspend(3600)
    with pytest.raises(Fenced):
        await change
    assert steps == [0]
    assert fence.last_cut == virtual_time.boottime(), "it may land now: the margin begins now"


async def test_a_short_sleep_closes_the_fence_by_that_much_earlier(virtual_time: VirtualTimeLoop) -> None:
    fence = Fence(virtual_time.boottime() + 10)
    virtual_time.suspend(4)

    async def effect() -> None:
        await asyncio.sleep(7)

    with pytest.raises(Fenced):
        await fence.guard(effect)
    assert virtual_time.boottime() == fence.until


async def test_a_leader_that_wakes_up_has_lost_its_lease(
    api: ModelApi, virtual_time: VirtualTimeLoop
) -> None:
    leader = elector(api)
    await leader.acquire()
    holding = asyncio.create_task(leader.hold())
    await asyncio.sleep(5)
    virtual_time.suspend(30)
    assert not leader.fence.open, "before anything else runs"
    held_by_other(api)
    with pytest.raises(LeadershipLost):
        await holding
    await leader.release()
    assert api.read(LEASE, KEY)["spec"]["holderIdentity"] == "other", (
        "it does not release the Lease of another process"
    )


async def test_a_renewal_that_was_answered_before_the_sleep_does_not_open_the_fence(
    api: ModelApi, virtual_time: VirtualTimeLoop
) -> None:
    """The API server has stored the Lease, and the machine slept before it read the response."""
    leader = elector(api)
    await leader.acquire()

    async def sleep(call: Call) -> None:
        virtual_time.suspend(60)

    api.after = sleep
    with pytest.raises(LeadershipLost):
        await leader.hold()
    assert not leader.fence.open


async def test_a_lease_that_was_taken_before_the_sleep_is_lost_after_it(
    api: ModelApi, virtual_time: VirtualTimeLoop
) -> None:
    leader = elector(api)

    async def sleep(call: Call) -> None:
        if call.writes:
            virtual_time.suspend(60)

    api.after = sleep
    await leader.acquire()
    assert not leader.fence.open
    with pytest.raises(LeadershipLost):
        await leader.hold()


async def test_a_candidate_that_wakes_up_does_not_take_a_lease_that_was_renewed(
    api: ModelApi, virtual_time: VirtualTimeLoop, acquiring: asyncio.Task[None]
) -> None:
    virtual_time.suspend(3600)
    held_by_other(api, renewTime=LATER)
    began = virtual_time.boottime()
    await acquiring
    assert virtual_time.boottime() - began >= 15, "it waits the whole duration after it saw the renewal"


async def test_a_response_from_before_the_sleep_takes_no_lease(
    api: ModelApi, virtual_time: VirtualTimeLoop, acquiring: asyncio.Task[None]
) -> None:
    """The response shows a Lease unchanged for an hour, but the leader has renewed it since."""

    async def sleep(call: Call) -> None:
        api.after = nothing
        virtual_time.suspend(3600)
        held_by_other(api, renewTime=LATER)

    async def nothing(call: Call) -> None:
        pass

    api.after = sleep
    await asyncio.sleep(6)
    assert not acquiring.done()
    assert api.read(LEASE, KEY)["spec"]["holderIdentity"] == "other"
    acquiring.cancel()


async def test_a_candidate_that_wakes_up_takes_a_lease_that_was_not_renewed(
    virtual_time: VirtualTimeLoop, acquiring: asyncio.Task[None]
) -> None:
    virtual_time.suspend(3600)
    began = virtual_time.time()
    await acquiring
    assert virtual_time.time() - began <= 2 * 2.2, "it need not wait again"


async def test_a_replica_that_wakes_up_counts_no_other_as_dead(
    api: ModelApi, virtual_time: VirtualTimeLoop
) -> None:
    first, second = (Replicas(api, KEY, name, TIMING.duration) for name in ("one", "two"))
    for each in (first, second, first):
        await each.beat()
    virtual_time.suspend(3600)
    assert await first.beat() == {first.own, second.own}
    await asyncio.sleep(1)
    assert await second.beat() == {first.own, second.own}


async def test_a_process_that_wakes_up_ends(api: ModelApi, virtual_time: VirtualTimeLoop) -> None:
    settings = Settings(
        health_host="127.0.0.1", health_port=0, pod_namespace="operators", pod_name="pod-1", leader_elect=True
    )
    manager = Manager("flights", settings, api)
    manager.informer(TICKET)
    running = asyncio.create_task(manager.run(asyncio.Event()))
    await asyncio.sleep(1)
    assert manager.fence.open
    writes = len(api.writes)
    virtual_time.suspend(600)
    with pytest.raises(Fenced):
        await manager.api.create(TICKET, {"metadata": {"name": "t"}}, namespace="default")
    with pytest.raises(LeadershipLost):
        await running
    assert all(call.resource == str(LEASE) for call in api.writes[writes:])
