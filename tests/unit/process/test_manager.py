"""The manager: the order of start and stop, and what ends the process."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from pilothouse.controller import (
    Controller,
    Event,
    EventType,
    LeadershipLost,
    LeaseTiming,
    ObjectReference,
    Outcome,
)
from pilothouse.controller.events import EVENT
from pilothouse.controller.lease import LEASE
from pilothouse.kube import Forbidden, KubeError, NotFound, ObjectKey, Resource, Unreachable
from pilothouse.process import Manager, Settings, SettingsError
from pilothouse.testing import Call, ModelApi, VirtualTimeLoop
from tests.unit.tickets import TICKET, Ticket

pytestmark = pytest.mark.usefixtures("virtual_time")

LEASE_KEY = ObjectKey("operators", "tickets")


class Process:
    """An operator's process whose reconciles take `seconds`."""

    def __init__(self, api: ModelApi, *, seconds: float = 0.0, **settings: Any) -> None:
        usual = Settings(health_host="127.0.0.1", health_port=0, pod_namespace="operators", pod_name="pod-1")
        values = {name: getattr(usual, name) for name in Settings.__dataclass_fields__} | settings
        self.manager = Manager("tickets", Settings(**values), api)
        self.seconds = seconds
        self._sync: Callable[[ObjectKey], Awaitable[Outcome]] | None = None
        self.began: list[str] = []
        self.ended: list[str] = []
        informer = self.manager.informer(TICKET)
        admits = self.manager.admits
        self.manager.add(Controller[Ticket]("ticket", api, informer, self.sync, workers=2, admits=admits))
        self.stop = asyncio.Event()
        self.task = asyncio.create_task(self.manager.run(self.stop))

    def sync_is(self, sync: Callable[[ObjectKey], Awaitable[Outcome]]) -> None:
        """Replaces the reconcile that takes `seconds`."""
        self._sync = sync

    async def sync(self, key: ObjectKey) -> Outcome:
        if self._sync:
            return await self._sync(key)
        self.began.append(key.name)
        await asyncio.sleep(self.seconds)
        self.ended.append(key.name)
        return Outcome()

    @property
    def not_ready(self) -> list[str]:
        return self.manager._not_ready()

    async def terminate(self) -> float:
        """Stops the process and returns how many seconds that took."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        self.stop.set()
        await self.task
        return loop.time() - began


async def test_a_process_reconciles_existing_objects_and_stops_on_request(api: ModelApi) -> None:
    api.put(TICKET, "a")
    process = Process(api)
    await asyncio.sleep(1)
    assert process.ended == ["a"]
    assert process.not_ready == []
    assert await process.terminate() < 0.1
    assert asyncio.all_tasks() == {asyncio.current_task()}, "nothing is left running"


async def test_a_process_is_not_ready_until_its_stores_are_filled_and_says_why(api: ModelApi) -> None:
    api.connected.clear()
    process = Process(api)
    await asyncio.sleep(1)
    assert process.not_ready == ["tickets.tests.dev have not been listed yet"]
    assert process.began == []
    api.connected.set()
    await asyncio.sleep(1)
    assert process.not_ready == []
    await process.terminate()


async def test_a_kind_that_cannot_be_read_is_named_with_its_reason(
    api: ModelApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def pages(*_: Any, **__: Any) -> Any:
        raise Forbidden(403, "Forbidden", "tickets is forbidden: cannot list")
        yield

    monkeypatch.setattr(api, "pages", pages)
    process = Process(api)
    await asyncio.sleep(1)
    [reason] = process.not_ready
    assert "tickets.tests.dev have not been listed yet: " in reason
    assert "forbidden" in reason
    await process.terminate()


class Taking(ModelApi):
    """Refuses lists and watches, and ends open ones, once a kind or a permission has been removed."""

    refusal: KubeError | None = None

    def _refuse(self) -> None:
        if self.refusal:
            raise self.refusal

    async def pages(self, *resource: Any, **options: Any) -> Any:
        self._refuse()
        async for page in super().pages(*resource, **options):
            yield page

    async def watch_list(self, *resource: Any, **options: Any) -> Any:
        self._refuse()
        async for event in super().watch_list(*resource, **options):
            self._refuse()
            yield event

    async def watch(self, *resource: Any, **options: Any) -> Any:
        self._refuse()
        async for event in super().watch(*resource, **options):
            self._refuse()
            yield event


@pytest.mark.parametrize(
    ("refusal", "said"),
    [
        (Forbidden(403, "Forbidden", "no"), "the service account needs permission to list and watch"),
        (NotFound(404, "NotFound", "no"), "install its CustomResourceDefinition"),
    ],
)
async def test_a_kind_that_is_removed_later_is_reported_and_the_process_stays_ready(
    refusal: KubeError, said: str
) -> None:
    api = Taking()
    process = Process(api)

    async def readiness() -> tuple[int, str]:
        answer = await process.manager.server._answer(b"GET /readyz HTTP/1.1\r\n\r\n")
        return answer.status, answer.body.decode()

    await asyncio.sleep(1)
    assert await readiness() == (200, "ok\n")
    api.refusal = refusal
    api.put(TICKET, "a")
    await asyncio.sleep(10)
    status, body = await readiness()
    assert status == 200
    assert body.startswith("ok, but\ntickets.tests.dev cannot be read: ")
    assert said in body
    api.refusal = None
    await asyncio.sleep(60)
    assert await readiness() == (200, "ok\n")
    assert process.ended == ["a"]
    await process.terminate()


async def test_syncs_in_flight_end_before_the_process_does(api: ModelApi) -> None:
    for n in range(10):
        api.put(TICKET, f"t{n}")
    process = Process(api, seconds=5)
    await asyncio.sleep(1)
    took = await process.terminate()
    assert took == pytest.approx(4, abs=0.1)
    assert sorted(process.ended) == ["t0", "t1"]
    assert len(process.began) == 2, "nothing new is begun"


async def test_syncs_that_do_not_end_are_cancelled_after_the_grace(api: ModelApi) -> None:
    api.put(TICKET, "a")
    process = Process(api, seconds=3600)
    await asyncio.sleep(1)
    assert await process.terminate() == pytest.approx(5, abs=0.1)
    assert process.ended == []


async def test_what_was_recorded_is_written_before_the_end(api: ModelApi) -> None:
    process = Process(api)
    await asyncio.sleep(1)
    regarding = ObjectReference("v1", "Ticket", ObjectKey("default", "a"), "uid")
    for n in range(20):
        process.manager.recorder.record(Event(regarding, EventType.NORMAL, "Said", "say", f"thing {n}"))
    await process.terminate()
    assert len(api.all(EVENT)) == 20


async def test_it_stops_inside_10_seconds_though_everything_hangs(api: ModelApi) -> None:
    async def hang(_call: Call) -> None:
        await asyncio.sleep(3600)

    async def stubborn(_key: ObjectKey) -> Outcome:
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                await asyncio.sleep(1)
                raise

    api.put(TICKET, "a")
    process = Process(api, leader_elect=True)
    process.sync_is(stubborn)
    await asyncio.sleep(1)
    api.before = hang
    regarding = ObjectReference("v1", "Ticket", ObjectKey("default", "a"), "uid")
    process.manager.recorder.record(Event(regarding, EventType.NORMAL, "Said", "say", "thing"))
    assert await process.terminate() < 9.5
    await asyncio.sleep(2)  # Abandoned tasks end, too.


async def test_only_the_leader_works_and_a_standby_is_ready(api: ModelApi) -> None:
    api.put(TICKET, "a")
    leader = Process(api, leader_elect=True)
    await asyncio.sleep(1)
    standby = Process(api, leader_elect=True, pod_name="pod-2")
    await asyncio.sleep(60)
    assert leader.ended == ["a"]
    assert standby.began == []
    assert standby.not_ready == []
    await leader.terminate()
    assert api.read(LEASE, LEASE_KEY)["spec"]["holderIdentity"] == ""
    await asyncio.sleep(5)
    assert standby.ended == ["a"], "it takes over within seconds"
    await standby.terminate()


async def test_the_lease_is_kept_until_the_last_sync_has_ended(api: ModelApi) -> None:
    api.put(TICKET, "a")
    leader = Process(api, leader_elect=True, seconds=25, graceful_stop=30)
    await asyncio.sleep(1)
    standby = Process(api, leader_elect=True, pod_name="pod-2")
    stopping = asyncio.create_task(leader.terminate())
    await asyncio.sleep(23)
    assert standby.began == []
    await stopping
    assert leader.ended == ["a"]
    await asyncio.sleep(5)
    assert standby.began == ["a"]
    await standby.terminate()


async def test_a_process_that_loses_its_leadership_stops_at_once_and_fails(
    api: ModelApi, virtual_time: VirtualTimeLoop
) -> None:
    api.put(TICKET, "a")
    process = Process(api, leader_elect=True, seconds=3600)
    await asyncio.sleep(1)
    lost = virtual_time.time()
    api.put(LEASE, LEASE_KEY.name, LEASE_KEY.namespace, spec={"holderIdentity": "other"})
    with pytest.raises(LeadershipLost):
        await process.task
    assert virtual_time.time() - lost <= 2.1
    assert process.ended == []
    assert api.read(LEASE, LEASE_KEY)["spec"] == {"holderIdentity": "other"}


async def test_a_sync_that_swallows_its_end_does_not_keep_a_deposed_process(
    api: ModelApi, virtual_time: VirtualTimeLoop, caplog: pytest.LogCaptureFixture
) -> None:
    stubborn = True

    async def sync(_key: ObjectKey) -> Outcome:
        while stubborn:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(1)
        return Outcome()

    api.put(TICKET, "a")
    process = Process(api, leader_elect=True)
    process.sync_is(sync)
    await asyncio.sleep(1)
    lost = virtual_time.time()
    api.put(LEASE, LEASE_KEY.name, LEASE_KEY.namespace, spec={"holderIdentity": "other"})
    with pytest.raises(LeadershipLost):
        await process.task
    assert virtual_time.time() - lost <= 3
    assert "Left asyncio tasks running that did not end when cancelled: 1." in caplog.text
    stubborn = False
    await asyncio.sleep(2)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_worker_that_swallowed_its_end_once_takes_no_other_key(api: ModelApi) -> None:
    async def sync(key: ObjectKey) -> Outcome:
        process.began.append(key.name)
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)
        return Outcome()

    for name in ("a", "b", "c"):
        api.put(TICKET, name)
    process = Process(api, leader_elect=True)
    process.sync_is(sync)
    await asyncio.sleep(1)
    api.put(LEASE, LEASE_KEY.name, LEASE_KEY.namespace, spec={"holderIdentity": "other"})
    with pytest.raises(LeadershipLost):
        await process.task
    assert process.began == ["a", "b"]
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_no_sync_runs_when_another_one_can_take_the_lease(api: ModelApi) -> None:
    """Only the leader cannot reach the API server. Its last reconcile ends before the standby's first."""
    api.put(TICKET, "a")
    timing = LeaseTiming()
    process = Process(api, leader_elect=True, seconds=3600, lease=timing)
    await asyncio.sleep(1)
    identity = process.manager.elector.identity if process.manager.elector else ""

    async def cut(call: Call) -> None:
        if call.resource == str(LEASE) and call.verb == "patch":
            holder = call.body["spec"].get("holderIdentity")
            if holder in (identity, ""):
                raise Unreachable("no route", maybe_sent=False)

    api.before = cut
    standby = Process(api, leader_elect=True, pod_name="pod-2")
    with pytest.raises(LeadershipLost):
        await process.task
    assert standby.began == []
    await asyncio.sleep(20)
    assert standby.began == ["a"]
    standby.task.cancel()
    await asyncio.gather(standby.task, return_exceptions=True)


@pytest.mark.parametrize("settings", [{"leader_elect": True}, {"shards": 1}])
async def test_the_lease_is_not_given_up_while_a_thread_may_still_change_something(
    api: ModelApi, settings: dict[str, Any]
) -> None:
    api.put(TICKET, "a")
    leader = Process(api, graceful_stop=0, **settings)
    called, begun, ends = asyncio.Event(), threading.Event(), threading.Event()

    def blocks() -> None:
        begun.set()
        ends.wait(10)

    async def sync(_key: ObjectKey) -> Outcome:
        called.set()
        await leader.manager.fence.in_thread(blocks)
        return Outcome()

    leader.sync_is(sync)
    await called.wait()
    await asyncio.to_thread(begun.wait, 10)
    await leader.terminate()
    ends.set()
    name = "tickets-shard-0" if "shards" in settings else "tickets"
    holder = api.read(LEASE, LEASE_KEY._replace(name=name))["spec"]["holderIdentity"]
    assert holder.startswith("pod-1")


@pytest.mark.parametrize("settings", [{"leader_elect": True}, {"shards": 1}])
async def test_a_change_cut_by_the_stop_lands_before_its_successor_looks(
    api: ModelApi, settings: dict[str, Any]
) -> None:
    """The airline books 9 s after the request; the process ends 5 s after the stop."""
    bookings: list[str] = []
    seen: list[list[str]] = []
    landing: set[asyncio.Task[None]] = set()

    async def land(who: str) -> None:
        await asyncio.sleep(9)
        bookings.append(who)

    def syncs_of(process: Process) -> None:
        async def book() -> None:
            request = asyncio.create_task(land(process.manager.settings.pod_name))
            landing.add(request)
            await asyncio.shield(request)

        async def sync(_key: ObjectKey) -> Outcome:
            seen.append(list(bookings))
            if not bookings:
                await process.manager.fence.guard(book)
            return Outcome()

        process.sync_is(sync)

    api.put(TICKET, "a")
    leader = Process(api, **settings)
    syncs_of(leader)
    await asyncio.sleep(0.1)
    assert landing
    standby = Process(api, pod_name="pod-2", **settings)
    syncs_of(standby)
    assert await leader.terminate() == pytest.approx(5, abs=0.1)
    await asyncio.sleep(60)
    assert bookings == ["pod-1"]
    assert seen == [[], ["pod-1"]]
    await standby.terminate()


async def test_stopping_while_it_waits_for_the_lease_is_quick(api: ModelApi) -> None:
    leader = Process(api, leader_elect=True)
    await asyncio.sleep(1)
    standby = Process(api, leader_elect=True, pod_name="pod-2")
    await asyncio.sleep(10)
    assert await standby.terminate() < 1
    assert api.read(LEASE, LEASE_KEY)["spec"]["holderIdentity"].startswith("pod-1")
    await leader.terminate()


async def test_a_part_that_breaks_ends_the_process(api: ModelApi, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken() -> None:
        raise ValueError("a defect in the informer")

    process = Process(api)
    monkeypatch.setattr(process.manager.informer(TICKET), "run", broken)
    with pytest.raises(ValueError, match="a defect in the informer"):
        await process.task


async def test_a_worker_that_ends_ends_the_process(api: ModelApi) -> None:
    """A process that is ready and leads must not go on with fewer workers."""
    api.put(TICKET, "a")

    async def sync(_key: ObjectKey) -> Outcome:
        worker = asyncio.current_task()
        assert worker is not None
        asyncio.get_running_loop().call_later(1, worker.cancel)
        return Outcome()

    process = Process(api, leader_elect=True)
    process.sync_is(sync)
    with pytest.raises(RuntimeError, match="A worker of the controller ticket has ended"):
        await process.task


async def test_a_taken_port_is_a_settings_error(api: ModelApi) -> None:
    first = Process(api)
    await asyncio.sleep(1)
    second = Process(api, health_port=first.manager.server.port)
    with pytest.raises(SettingsError, match=r"^HEALTH_ADDRESS is '127.0.0.1:\d+', and .+ cannot listen"):
        await second.task
    await first.terminate()


async def test_a_controller_that_would_ignore_the_shards_is_refused(api: ModelApi) -> None:
    async def sync(key: ObjectKey) -> Outcome:
        return Outcome()

    settings = Settings(shards=2, health_host="127.0.0.1", health_port=0, pod_namespace="operators")
    manager = Manager("tickets", settings, api)
    with pytest.raises(
        ValueError, match=r"'ticket' would reconcile .* all shards\. .* admits=manager\.admits"
    ):
        manager.add(Controller[Ticket]("ticket", api, manager.informer(TICKET), sync))


async def test_two_kinds_share_a_process_its_lease_and_its_probes(api: ModelApi) -> None:
    """Two controllers of one kind also share its watch."""
    settings = Settings(leader_elect=True, health_host="127.0.0.1", health_port=0, pod_namespace="operators")
    manager = Manager("both", settings, api)
    synced: list[str] = []

    def add(name: str, resource: Resource[Any]) -> Controller[Any]:
        async def sync(key: ObjectKey) -> Outcome:
            synced.append(f"{name} {key.name}")
            if name == "boat":
                raise ValueError("a defect in one of them")
            return Outcome()

        controller: Controller[Any] = Controller(name, manager.api, manager.informer(resource), sync)
        manager.add(controller)
        return controller

    lists: list[str] = []
    pages = api.pages

    def counted(resource: Resource[Any], **selectors: Any) -> Any:
        lists.append(str(resource))
        return pages(resource, **selectors)

    api.pages = counted  # type: ignore[method-assign]
    add("ticket", TICKET)
    add("audit", TICKET)
    boat: Resource[Ticket] = Resource("tests.dev", "v1", "Boat", "boats", Ticket)
    add("boat", boat)
    api.put(TICKET, "t")
    api.put(boat, "b")
    stop = asyncio.Event()
    running = asyncio.create_task(manager.run(stop))
    await asyncio.sleep(1)
    assert {"ticket t", "audit t", "boat b"} == set(synced)
    assert sorted(lists) == ["boats.tests.dev", "tickets.tests.dev"]
    assert manager._not_ready() == []
    assert [each["metadata"]["name"] for each in api.all(LEASE)] == ["both"]
    api.put(TICKET, "t", spec={"seats": 2})
    await asyncio.sleep(1)
    assert synced.count("ticket t") == 2, "a failing controller must not affect another one"
    stop.set()
    await running


async def test_the_logs_level_follows_its_file(
    api: ModelApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    levels: list[str] = []
    monkeypatch.setattr("pilothouse.process.loglevel.set_level", levels.append)
    (tmp_path / "level").write_text("debug")
    process = Process(api, log_level_file=str(tmp_path / "level"))
    await asyncio.sleep(1)
    assert levels == ["debug"]
    await process.terminate()


@pytest.mark.parametrize(
    "name", ["", "Tickets", "tickets_1", "a" * 64, "a..b", "-a", "a-", "a/b", "a b", "ä"]
)
async def test_a_name_that_leases_or_events_cannot_have_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="Use at most 63 lower-case letters"):
        Manager(name, Settings(), ModelApi())
