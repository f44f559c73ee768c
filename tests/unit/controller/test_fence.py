"""The fence: a change happens in time or not at all, even if the process freezes or is cut off."""

import asyncio
import logging
import math
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from pilothouse.controller import Controller, Fence, Fenced, FencedApi, LeadershipLost, Outcome
from pilothouse.controller.lease import LEASE
from pilothouse.informer import Informer
from pilothouse.kube import KubeError, ObjectKey, PatchType, Unreachable
from pilothouse.process import Manager, Settings
from pilothouse.testing import Call, ModelApi, VirtualTimeLoop
from pilothouse.testing.freezing import Freezable
from tests.unit.tickets import TICKET

pytestmark = pytest.mark.usefixtures("virtual_time")

LEASE_KEY = ObjectKey("operators", "tickets")


class World:
    """The outside system: records every change that arrives, its time and its sender."""

    def __init__(self) -> None:
        self.landed: list[tuple[float, str]] = []

    def change(self, who: str, seconds: float = 0.0) -> Callable[[], Awaitable[str]]:
        async def effect() -> str:
            await asyncio.sleep(seconds)
            self.landed.append((asyncio.get_running_loop().time(), who))
            return "done"

        return effect


@pytest.fixture
def world() -> World:
    return World()


async def test_a_change_in_time_is_made_and_returns_its_result(
    world: World, virtual_time: VirtualTimeLoop
) -> None:
    assert await Fence().guard(world.change("me", 3600)) == "done"
    assert await Fence(virtual_time.time() + 10).guard(world.change("me", 9)) == "done"


async def test_no_change_begins_after_the_fence_has_closed(world: World) -> None:
    began = False

    async def effect() -> None:
        nonlocal began
        began = True

    with pytest.raises(Fenced, match="this process may have lost its Lease"):
        await Fence(-math.inf).guard(effect)
    assert not began


async def test_a_running_change_is_interrupted_when_the_fence_closes(
    world: World, virtual_time: VirtualTimeLoop
) -> None:
    began = virtual_time.time()
    with pytest.raises(Fenced):
        await Fence(began + 10).guard(world.change("me", 11))
    assert virtual_time.time() == began + 10
    assert not world.landed


async def test_a_renewed_lease_lets_a_long_change_continue(
    world: World, virtual_time: VirtualTimeLoop
) -> None:
    fence = Fence(virtual_time.time() + 10)
    change = asyncio.create_task(fence.guard(world.change("me", 25)))
    for _ in range(4):
        await asyncio.sleep(8)
        fence.until = virtual_time.time() + 10
    assert await change == "done"


async def test_a_closing_fence_interrupts_all_changes_at_the_same_time(
    world: World, virtual_time: VirtualTimeLoop
) -> None:
    fence = Fence()
    changes = [asyncio.create_task(fence.guard(world.change("me", 60))) for _ in range(5)]
    await asyncio.sleep(1)
    fence.close()
    began = virtual_time.time()
    results = await asyncio.gather(*changes, return_exceptions=True)
    assert [type(each) for each in results] == [Fenced] * 5
    assert virtual_time.time() == began


async def test_a_step_that_was_ready_in_time_does_not_run_after_the_fence_has_closed(
    virtual_time: VirtualTimeLoop,
) -> None:
    """A blocked event loop runs the callbacks that are ready before it checks its timers."""
    fence = Fence(virtual_time.time() + 10)
    connected = asyncio.Event()
    sent = False

    async def effect() -> None:
        nonlocal sent
        await connected.wait()
        sent = True

    change = asyncio.create_task(fence.guard(effect))
    await asyncio.sleep(1)
    connected.set()  # The step is in the loop's line now, and the loop stands still for a minute.
    virtual_time._jumping.clock += 60
    with pytest.raises(Fenced):
        await change
    assert not sent


async def test_an_effect_that_swallows_the_interruption_makes_no_further_change(
    virtual_time: VirtualTimeLoop,
) -> None:
    fence = Fence(virtual_time.time() + 10)
    sent = 0

    async def stubborn() -> None:
        nonlocal sent
        for _ in range(3):
            try:
                await asyncio.sleep(8)
                sent += 1
            except asyncio.CancelledError:
                pass

    await fence.guard(stubborn)
    assert sent == 1


async def test_a_cancelled_caller_ends_with_cancelled_error(world: World) -> None:
    fence = Fence()
    change = asyncio.create_task(fence.guard(world.change("me", 60)))
    await asyncio.sleep(1)
    fence.close()
    change.cancel()
    with pytest.raises(asyncio.CancelledError):
        await change
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await Fence().guard(world.change("me", 60))
    assert not world.landed


async def test_errors_of_the_effect_are_passed_on() -> None:
    async def refused() -> None:
        await asyncio.sleep(0)
        raise Unreachable("no route", maybe_sent=False)

    with pytest.raises(Unreachable, match="no route"):
        await Fence().guard(refused)


def soon(seconds: float, error: Exception | None = None) -> Callable[[], Awaitable[None]]:
    async def effect() -> None:
        await asyncio.sleep(seconds)
        if error is not None:
            raise error

    return effect


def client_that_gives_up(seconds: float) -> Callable[[], Awaitable[None]]:
    async def effect() -> None:
        try:
            async with asyncio.timeout(seconds):
                await asyncio.sleep(3600)
        except TimeoutError:
            raise KeyError("no answer in time") from None

    return effect


@pytest.mark.parametrize(
    "effect",
    [
        soon(3600),
        client_that_gives_up(5),
        soon(5, Unreachable("the connection was lost", maybe_sent=True)),
    ],
)
async def test_the_time_of_an_interrupted_change_is_recorded(
    effect: Callable[[], Awaitable[None]], virtual_time: VirtualTimeLoop
) -> None:
    fence = Fence()
    cut = virtual_time.time() + 5
    with pytest.raises((TimeoutError, KeyError, Unreachable)):
        async with asyncio.timeout(5.001):
            await fence.guard(effect)
    assert fence.last_cut == pytest.approx(cut, abs=0.01)


async def test_the_time_is_recorded_immediately_when_a_closed_fence_interrupts_changes(
    world: World, virtual_time: VirtualTimeLoop
) -> None:
    fence = Fence()
    change = asyncio.create_task(fence.guard(world.change("me", 60)))
    await asyncio.sleep(1)
    fence.close()
    assert fence.last_cut == virtual_time.time()
    await asyncio.gather(change, return_exceptions=True)


@pytest.mark.parametrize(
    "effect",
    [soon(5), soon(5, KeyError("refused")), soon(5, Unreachable("connection refused", maybe_sent=False))],
)
async def test_a_change_that_was_answered_or_never_sent_does_not_count_as_interrupted(
    effect: Callable[[], Awaitable[None]],
) -> None:
    fence = Fence()
    await asyncio.gather(fence.guard(effect), return_exceptions=True)
    fence.close()
    with pytest.raises(Fenced):
        await fence.guard(effect)
    assert fence.last_cut == -math.inf


async def test_a_fenced_client_reads_and_does_not_write(api: ModelApi) -> None:
    key = api.put(TICKET, "a")
    fenced = FencedApi(api, Fence(-math.inf))
    assert (await fenced.get(TICKET, key)).metadata.name == "a"
    assert [len(page.items) async for page in fenced.pages(TICKET)] == [1]
    changes: list[Callable[[], Awaitable[object]]] = [
        lambda: fenced.create(TICKET, {"metadata": {"name": "b"}}, namespace="default"),
        lambda: fenced.patch(
            TICKET, key, {"spec": {"number": 2}}, type=PatchType.MERGE, subresource="status"
        ),
        lambda: fenced.delete(TICKET, key),
    ]
    for change in changes:
        with pytest.raises(Fenced):
            await change()
    assert not api.writes


class Process:
    """An operator's process whose reconciles make an outside change, and then change the object."""

    def __init__(self, api: ModelApi, world: World, name: str, *, seconds: float) -> None:
        self.name = name
        self.frozen = Freezable()
        with self.frozen.running():
            settings = Settings(
                leader_elect=True,
                health_host="127.0.0.1",
                health_port=0,
                pod_namespace="operators",
                pod_name=name,
            )
            self.manager = Manager("tickets", settings, api)
            self._world = world
            self._seconds = seconds
            informer = self.manager.informer(TICKET)
            self.manager.add(Controller("ticket", self.manager.api, informer, self.sync, workers=4))
            self.task = asyncio.create_task(self.manager.run(asyncio.Event()))

    async def sync(self, key: ObjectKey) -> Outcome:
        try:
            await self.manager.fence.guard(self._world.change(self.name, self._seconds))
            body = {"status": {"phase": f"by {self.name}"}}
            await self.manager.api.patch(TICKET, key, body, type=PatchType.MERGE, subresource="status")
        except KubeError:
            return Outcome(1)
        return Outcome(5)

    @property
    def leading(self) -> bool:
        return self.manager.elector is not None and self.manager.elector.leading


def holder(api: ModelApi) -> str:
    name: str = api.read(LEASE, LEASE_KEY)["spec"]["holderIdentity"]
    return name.partition("_")[0]


async def test_keys_that_meet_a_closed_fence_wait_without_log_lines(
    api: ModelApi, caplog: pytest.LogCaptureFixture
) -> None:
    """A replica may lose a shard during its reconciles, and the process keeps running."""
    for n in range(50):
        api.put(TICKET, f"t{n}")
    fence = Fence()
    syncs = 0

    async def sync(key: ObjectKey) -> Outcome:
        nonlocal syncs
        syncs += 1
        await fence.guard(lambda: asyncio.sleep(1))
        return Outcome()

    informer = Informer(api, TICKET)
    controller = Controller("ticket", api, informer, sync, workers=16)
    running = [asyncio.create_task(part) for part in (informer.run(), controller.run())]
    await asyncio.sleep(0.5)
    fence.close()
    await asyncio.sleep(10)
    assert 50 <= syncs <= 50 * 11, "each once a second at most"
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    fence.until = math.inf
    await asyncio.sleep(10)
    before = syncs
    await asyncio.sleep(10)
    assert syncs == before, "all are done"
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)


async def ended(*processes: Process) -> None:
    for process in processes:
        process.task.cancel()
    await asyncio.gather(*(process.task for process in processes), return_exceptions=True)


async def test_a_leader_whose_renewals_hang_changes_nothing_once_another_one_leads(
    api: ModelApi, world: World
) -> None:
    api.put(TICKET, "a")
    first = Process(api, world, "pod-1", seconds=14)
    await asyncio.sleep(1)
    assert first.manager.elector
    identity = first.manager.elector.identity

    async def hang(call: Call) -> None:
        if call.resource == str(LEASE) and identity in str(call.body):
            await asyncio.sleep(3600)

    api.before = hang
    second = Process(api, world, "pod-2", seconds=0)
    with pytest.raises(LeadershipLost):
        await first.task
    await asyncio.sleep(30)
    assert {who for _, who in world.landed} == {"pod-2"}, "the first one's change would have landed at 14 s"
    assert holder(api) == "pod-2"
    await ended(second)


async def test_a_leader_frozen_in_the_middle_of_a_change_does_not_make_it_after_another_one_leads(
    api: ModelApi, world: World
) -> None:
    api.put(TICKET, "a")
    first = Process(api, world, "pod-1", seconds=2)
    await asyncio.sleep(1)
    assert first.leading
    second = Process(api, world, "pod-2", seconds=0)
    first.frozen.freeze()
    await asyncio.sleep(60)
    assert holder(api) == "pod-2"
    first.frozen.thaw()
    with pytest.raises(LeadershipLost):
        await first.task
    await asyncio.sleep(10)
    assert {who for _, who in world.landed} == {"pod-2"}
    assert {call.body["status"]["phase"] for call in api.writes if call.subresource} == {"by pod-2"}
    await ended(second)


@pytest.mark.parametrize("seed", range(20))
async def test_no_change_lands_while_the_lease_names_another(api: ModelApi, seed: int) -> None:
    """Processes freeze, requests are delayed or refused, responses are lost, and ended processes restart."""
    dice = random.Random(seed)
    strays: list[str] = []

    class WatchedWorld(World):
        def change(self, who: str, seconds: float = 0.0) -> Callable[[], Awaitable[str]]:
            async def effect() -> str:
                await asyncio.sleep(dice.choice([0, 0.1, 3, 12]))
                check(who)
                self.landed.append((0.0, who))
                return "done"

            return effect

    def check(who: str) -> None:
        if holder(api) != who:
            strays.append(f"{who} beside {holder(api)}")

    async def trouble(_call: Call) -> None:
        await asyncio.sleep(dice.choice([0, 0, 0, 0.5, 3]))
        if dice.random() < 0.1:
            raise Unreachable("trouble", maybe_sent=True)

    async def arrive(call: Call) -> None:
        await trouble(call)
        if call.subresource:
            check(call.body["status"]["phase"].removeprefix("by "))

    for name in "abc":
        api.put(TICKET, name)
    world = WatchedWorld()
    processes = {name: Process(api, world, name, seconds=0) for name in ("pod-1", "pod-2", "pod-3")}
    await asyncio.sleep(1)
    api.before, api.after = arrive, trouble
    leaders: set[Any] = set()
    for _ in range(60):
        await asyncio.sleep(dice.choice([1, 5, 20]))
        leaders.add(holder(api))
        name = dice.choice(list(processes))
        if dice.random() < 0.5:
            processes[name].frozen.freeze()
        for other, process in processes.items():
            if dice.random() < 0.5:
                process.frozen.thaw()
            if process.task.done():
                assert isinstance(process.task.exception(), LeadershipLost)
                processes[other] = Process(api, world, other, seconds=0)
    assert not strays
    assert len(leaders) > 1, "the faults did not change the leader"
    assert len(world.landed) > 10
    for process in processes.values():
        process.frozen.thaw()
    await asyncio.sleep(5)
    await ended(*processes.values())
