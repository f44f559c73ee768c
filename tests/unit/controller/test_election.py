"""Leader election: one leader at a time. A Lease is acquired, renewed, lost and released as in client-go."""

import asyncio
import itertools
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from pilothouse.controller import LeaderElector, LeadershipLost, LeaseTiming
from pilothouse.controller.lease import LEASE
from pilothouse.kube import Unreachable
from pilothouse.telemetry import metrics
from pilothouse.testing import Call, Json, ModelApi, VirtualTimeLoop
from tests.unit.controller.leases import KEY, TIMING, elector, held_by_other

pytestmark = pytest.mark.usefixtures("virtual_time")


def spec(api: ModelApi) -> Json:
    found: Json = api.read(LEASE, KEY)["spec"]
    return found


@asynccontextmanager
async def holding(leader: LeaderElector) -> AsyncIterator[asyncio.Task[None]]:
    await leader.acquire()
    task = asyncio.create_task(leader.hold())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def unreachable() -> Unreachable:
    return Unreachable("connection refused", maybe_sent=False)


async def test_a_missing_lease_is_created(api: ModelApi) -> None:
    leader = elector(api)
    await leader.acquire()
    assert leader.leading
    assert spec(api)["holderIdentity"] == leader.identity
    assert leader.identity.startswith("pod-1_")
    assert spec(api)["leaseDurationSeconds"] == 15
    assert spec(api)["leaseTransitions"] == 0
    assert metrics.REGISTRY.get_sample_value("leader_election_master_status", {"name": KEY.name}) == 1


async def test_a_released_lease_is_taken_immediately(api: ModelApi, virtual_time: VirtualTimeLoop) -> None:
    held_by_other(api, holderIdentity="")
    began = virtual_time.time()
    await elector(api).acquire()
    assert virtual_time.time() == began
    assert spec(api)["leaseTransitions"] == 4


async def test_a_lease_is_taken_over_when_it_has_not_changed_for_its_duration(
    api: ModelApi, virtual_time: VirtualTimeLoop
) -> None:
    # Its renewTime says that it ended years ago: the other's clock may be wrong, so that counts for nothing.
    held_by_other(api)
    began = virtual_time.time()
    await elector(api).acquire()
    assert 15 <= virtual_time.time() - began <= 15 + 2 * 2.2


async def test_a_lease_that_is_renewed_is_not_taken(api: ModelApi) -> None:
    held_by_other(api)
    candidate = elector(api)
    acquiring = asyncio.create_task(candidate.acquire())
    for second in range(1, 20):
        await asyncio.sleep(9)
        held_by_other(api, renewTime=f"2020-01-01T00:00:{second:02}.000000Z")
    assert not acquiring.done()
    assert candidate.holder == "other"
    assert not [call for call in api.calls if call.writes]
    acquiring.cancel()


async def test_the_leader_renews_every_two_seconds_and_keeps_the_acquire_time(api: ModelApi) -> None:
    leader = elector(api)
    async with holding(leader) as task:
        acquired = dict(spec(api))
        api.calls.clear()
        await asyncio.sleep(60.5)
        assert not task.done()
    assert len(api.writes) == 30
    assert len(api.calls) == 30, "a renewal is one request"
    assert spec(api)["acquireTime"] == acquired["acquireTime"]
    assert spec(api)["renewTime"] >= acquired["renewTime"]
    assert spec(api)["leaseTransitions"] == 0


async def test_failures_of_most_requests_do_not_depose_the_leader(api: ModelApi) -> None:
    tries = itertools.count()

    async def fail(_call: Call) -> None:
        if next(tries) % 10:
            raise unreachable()

    leader = elector(api)
    async with holding(leader) as task:
        api.before = fail
        await asyncio.sleep(600)
        assert not task.done()
        assert leader.fence.open


async def test_leadership_is_lost_when_the_lease_is_not_renewed_within_the_deadline(
    api: ModelApi, virtual_time: VirtualTimeLoop
) -> None:
    async def down(_call: Call) -> None:
        raise unreachable()

    async with holding(elector(api)) as task:
        await asyncio.sleep(20.5)
        last_renewal = virtual_time.time() - 0.5
        api.before = down
        with pytest.raises(LeadershipLost, match=r"not renewed within 10 s"):
            await task
        assert virtual_time.time() - last_renewal <= 10
        assert metrics.REGISTRY.get_sample_value("leader_election_master_status", {"name": KEY.name}) == 0


async def test_a_loss_is_reported_when_the_fence_closes_and_not_a_period_later(
    api: ModelApi, virtual_time: VirtualTimeLoop
) -> None:
    async def down(_call: Call) -> None:
        raise unreachable()

    # Tries begin at 0, 4, 8 and, were the fence not looked at, 12 s after the last renewal.
    leader = elector(api, timing=LeaseTiming(duration=15, renew_deadline=10, retry_period=4))
    async with holding(leader) as task:
        api.before = down
        closes = leader.fence.until
        with pytest.raises(LeadershipLost):
            await task
        assert virtual_time.time() == pytest.approx(closes)


async def test_an_attempt_that_hung_longer_than_the_period_is_followed_by_the_next_immediately(
    api: ModelApi,
) -> None:
    hung = 0

    async def hang_once(call: Call) -> None:
        nonlocal hung
        hung += 1
        # The first is given up after 5 s, at 7 s; from then on an answer takes 2.5 s: in time before 10 s.
        await asyncio.sleep(3600 if hung == 1 else 2.5)

    async with holding(elector(api)) as task:
        api.before = hang_once
        await asyncio.sleep(60)
        assert not task.done()


async def test_hanging_requests_lose_the_lease_within_the_deadline(
    api: ModelApi, virtual_time: VirtualTimeLoop, caplog: pytest.LogCaptureFixture
) -> None:
    async def hang(_call: Call) -> None:
        await asyncio.sleep(3600)

    async with holding(elector(api)) as task:
        began = virtual_time.time()
        api.before = hang
        with pytest.raises(LeadershipLost):
            await task
        assert virtual_time.time() - began <= 10
    assert "Could not acquire or renew the Lease operators/flights: no response in time" in caplog.text


async def test_a_short_outage_is_survived(api: ModelApi) -> None:
    async def down(_call: Call) -> None:
        raise unreachable()

    async with holding(elector(api)) as task:
        before = api.before
        api.before = down
        await asyncio.sleep(7)
        api.before = before
        await asyncio.sleep(60)
        assert not task.done()


async def test_a_lease_that_another_process_has_taken_is_lost_immediately(
    api: ModelApi, virtual_time: VirtualTimeLoop
) -> None:
    async with holding(elector(api)) as task:
        held_by_other(api)
        began = virtual_time.time()
        with pytest.raises(LeadershipLost, match="other"):
            await task
        assert virtual_time.time() - began <= 2
        assert spec(api)["holderIdentity"] == "other"


async def test_an_edited_lease_is_kept(api: ModelApi) -> None:
    async with holding(elector(api)) as task:
        api.put(LEASE, KEY.name, KEY.namespace, metadata={"annotations": {"note": "hello"}})
        await asyncio.sleep(30)
        assert not task.done()
    assert api.read(LEASE, KEY)["metadata"]["annotations"] == {"note": "hello"}


async def test_a_deleted_lease_is_created_again(api: ModelApi) -> None:
    leader = elector(api)
    async with holding(leader) as task:
        api.remove(LEASE, KEY)
        await asyncio.sleep(3)
        assert not task.done()
        assert spec(api)["holderIdentity"] == leader.identity


async def test_a_renewal_whose_response_is_lost_is_repeated(api: ModelApi) -> None:
    lost = 0

    async def lose(call: Call) -> None:
        nonlocal lost
        lost += call.writes
        if call.writes and lost % 3:
            raise Unreachable("connection reset", maybe_sent=True)

    async with holding(elector(api)) as task:
        api.after = lose
        await asyncio.sleep(60)
        assert not task.done()
    assert lost > 20


async def test_a_released_lease_has_no_holder_and_is_taken_by_the_next(
    api: ModelApi, virtual_time: VirtualTimeLoop
) -> None:
    leader, standby = elector(api), elector(api, "pod-2")
    async with holding(leader):
        acquiring = asyncio.create_task(standby.acquire())
        await asyncio.sleep(30)
        assert not acquiring.done()
    released = virtual_time.time()
    await leader.release()
    assert spec(api)["holderIdentity"] == ""
    assert spec(api)["leaseDurationSeconds"] == 1
    assert not leader.leading
    await acquiring
    assert virtual_time.time() - released <= 2 * 2.2
    assert spec(api)["leaseTransitions"] == 1


async def test_a_release_that_meets_a_renewal_in_flight_succeeds(api: ModelApi) -> None:
    leader = elector(api)
    async with holding(leader):
        pass
    stale = True

    async def in_between(call: Call) -> None:
        nonlocal stale
        if call.writes and stale:
            stale = False
            api.put(LEASE, KEY.name, KEY.namespace, metadata={"annotations": {"renewed": "just now"}})

    api.before = in_between
    await leader.release()
    assert spec(api)["holderIdentity"] == ""


async def cut_a_change(leader: LeaderElector) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await leader.fence.guard(lambda: asyncio.sleep(3600))


async def test_a_lease_is_not_released_right_after_an_interrupted_change(
    api: ModelApi, virtual_time: VirtualTimeLoop, caplog: pytest.LogCaptureFixture
) -> None:
    leader, standby = elector(api), elector(api, "pod-2")
    async with holding(leader):
        acquiring = asyncio.create_task(standby.acquire())
        await asyncio.sleep(30)
        await cut_a_change(leader)
        cut = virtual_time.time()
    await asyncio.sleep(TIMING.margin - 0.1)
    await leader.release()
    assert "it will expire: a change was interrupted 4.9 s ago" in caplog.text
    assert spec(api)["holderIdentity"] == leader.identity
    await acquiring
    assert virtual_time.time() - cut > TIMING.margin


async def test_a_change_that_was_interrupted_long_ago_does_not_prevent_the_release(api: ModelApi) -> None:
    leader = elector(api)
    async with holding(leader):
        await cut_a_change(leader)
        await asyncio.sleep(TIMING.margin)
    await leader.release()
    assert spec(api)["holderIdentity"] == ""


async def test_a_release_does_not_change_the_lease_of_another_process(api: ModelApi) -> None:
    leader = elector(api)
    await leader.acquire()
    held_by_other(api)
    await leader.release()
    assert spec(api)["holderIdentity"] == "other"


async def test_a_release_without_an_api_server_ends_soon(
    api: ModelApi, virtual_time: VirtualTimeLoop
) -> None:
    async def hang(_call: Call) -> None:
        await asyncio.sleep(3600)

    leader = elector(api)
    await leader.acquire()
    api.before = hang
    began = virtual_time.time()
    await leader.release()
    assert virtual_time.time() - began <= 5


@pytest.mark.parametrize("seed", range(20))
async def test_two_never_lead_at_once_however_the_network_behaves(api: ModelApi, seed: int) -> None:
    """Each candidate restarts when it loses. Requests are delayed or refused, and responses are lost."""
    dice = random.Random(seed)
    leading: set[str] = set()
    terms = 0

    async def trouble(_call: Call) -> None:
        await asyncio.sleep(dice.choice([0, 0, 0, 0.5, 3, 12]))
        if dice.random() < 0.2:
            raise Unreachable("trouble", maybe_sent=True)

    api.before = api.after = trouble

    async def candidate(name: str) -> None:
        nonlocal terms
        while True:
            one = elector(api, name)
            await one.acquire()
            assert not leading, f"{name} leads beside {leading}"
            leading.add(name)
            terms += 1
            try:
                await one.hold()
            except LeadershipLost:
                leading.remove(name)

    async with asyncio.timeout(3600), asyncio.TaskGroup() as group:
        tasks = [group.create_task(candidate(name)) for name in ("pod-1", "pod-2", "pod-3")]
        await asyncio.sleep(3000)
        for task in tasks:
            task.cancel()
    assert terms > 3, "the faults did not change the leader"
