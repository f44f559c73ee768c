"""The controller reconciles each key by one worker at a time, retries failures, and isolates keys."""

import asyncio
import logging
import math
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from itertools import pairwise
from typing import Any

import pytest

from pilothouse.controller import Controller, Outcome, PermanentError, SyncError
from pilothouse.informer import Informer
from pilothouse.kube import Conflict, EventType, ObjectKey, PatchType, Resource, TooManyRequests, Unreachable
from pilothouse.queue import Priority
from pilothouse.telemetry import current_object, metrics
from pilothouse.testing import Call, ModelApi
from tests.unit.tickets import TICKET, Ticket

pytestmark = pytest.mark.usefixtures("virtual_time")

Sync = Callable[["Setup", ObjectKey], Awaitable[Outcome]]


class Setup:
    """A running informer and controller. `synced` lists the reconciled keys and their times."""

    def __init__(self, api: ModelApi, sync: Sync | None, **options: Any) -> None:
        self.loop = asyncio.get_running_loop()
        self.began = self.loop.time()
        self.synced: list[tuple[str, float]] = []
        self.api = api
        self.informer = Informer(api, TICKET)
        self._sync = sync
        self.controller = Controller[Ticket]("ticket", api, self.informer, self.sync, **options)

    async def sync(self, key: ObjectKey) -> Outcome:
        self.synced.append((key.name, self.loop.time() - self.began))
        return await self._sync(self, key) if self._sync else Outcome()

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.synced]

    async def patch(self, key: ObjectKey, body: dict[str, object], subresource: str = "") -> None:
        """Makes an own write, as a reconcile does."""
        written = await self.api.patch(TICKET, key, body, type=PatchType.MERGE, subresource=subresource)
        self.controller.own_writes.wrote(written)


@asynccontextmanager
async def running(api: ModelApi, sync: Sync | None = None, **options: Any) -> AsyncIterator[Setup]:
    setup = Setup(api, sync, **options)
    tasks = [asyncio.create_task(setup.informer.run())]
    await setup.informer.wait_synced()
    tasks.append(asyncio.create_task(setup.controller.run()))
    await asyncio.sleep(0.01)
    try:
        yield setup
        assert not any(task.done() for task in tasks), "a part has ended"
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def raising(*errors: Exception | None) -> Sync:
    """Returns a sync function that raises these errors in turn, and then succeeds."""
    left = list(errors)

    async def sync(setup: Setup, key: ObjectKey) -> Outcome:
        error = left.pop(0) if left else None
        if error is not None:
            raise error
        return Outcome()

    return sync


def count(name: str, **labels: str) -> float:
    return metrics.REGISTRY.get_sample_value(name, {"controller": "ticket", **labels}) or 0.0


async def test_existing_and_new_objects_are_reconciled(api: ModelApi) -> None:
    api.put(TICKET, "old")
    async with running(api) as setup:
        assert setup.names == ["old"]
        api.put(TICKET, "new")
        await asyncio.sleep(1)
        assert setup.names == ["old", "new"]


@pytest.mark.parametrize(
    "change",
    [
        {"spec": {"seats": 3}},
        {"metadata": {"annotations": {"pilothouse.dev/reconcile": "now"}}},
        {"metadata": {"finalizers": ["somebody.else/s"]}},
        {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}},
    ],
)
async def test_a_meaningful_change_causes_a_reconcile(api: ModelApi, change: dict[str, Any]) -> None:
    api.put(TICKET, "a", spec={"seats": 1})
    async with running(api) as setup:
        api.put(TICKET, "a", **change)
        await asyncio.sleep(1)
        assert setup.names == ["a", "a"]


@pytest.mark.parametrize("change", [{"status": {"phase": "Booked"}}, {"metadata": {"labels": {"a": "b"}}}])
async def test_a_change_of_only_the_status_causes_no_reconcile(api: ModelApi, change: dict[str, Any]) -> None:
    api.put(TICKET, "a", spec={"seats": 1})
    async with running(api) as setup:
        api.put(TICKET, "a", **change)
        await asyncio.sleep(1)
        assert setup.names == ["a"]


async def test_own_writes_cause_no_reconcile(api: ModelApi) -> None:
    async def sync(setup: Setup, key: ObjectKey) -> Outcome:
        await setup.patch(key, {"metadata": {"finalizers": ["ours/f"]}})
        await setup.patch(key, {"status": {"phase": "Booked"}}, "status")
        return Outcome()

    key = api.put(TICKET, "a")
    async with running(api, sync) as setup:
        await asyncio.sleep(60)
        assert setup.names == ["a"]
        api.put(TICKET, "a", metadata={"finalizers": ["ours/f", "other/f"]})
        await asyncio.sleep(60)
        assert setup.names == ["a", "a"], "a change of the same field by another client causes a reconcile"
        assert setup.informer.store.get(key) is not None


async def test_a_change_during_a_reconcile_causes_another_one_after_it(api: ModelApi) -> None:
    at_once = 0

    async def sync(setup: Setup, key: ObjectKey) -> Outcome:
        nonlocal at_once
        at_once += 1
        assert at_once == 1
        await asyncio.sleep(10)
        at_once -= 1
        return Outcome()

    api.put(TICKET, "a", spec={"seats": 1})
    async with running(api, sync) as setup:
        for seats in (2, 3, 4):
            await asyncio.sleep(1)
            api.put(TICKET, "a", spec={"seats": seats})
        await asyncio.sleep(60)
        assert len(setup.synced) == 2


async def test_at_most_as_many_keys_as_workers_are_reconciled_at_the_same_time(api: ModelApi) -> None:
    async def sync(setup: Setup, key: ObjectKey) -> Outcome:
        await asyncio.sleep(10)
        return Outcome()

    for n in range(40):
        api.put(TICKET, f"t{n}")
    async with running(api, sync, workers=16) as setup:
        await asyncio.sleep(1)
        assert len(setup.synced) == 16
        assert count("controller_runtime_active_workers") == 16
        assert count("controller_runtime_max_concurrent_reconciles") == 16
        await asyncio.sleep(30)
        assert len(setup.synced) == 40


async def test_an_error_is_retried_with_back_off_and_delays_no_other_key(api: ModelApi) -> None:
    async def sync(setup: Setup, key: ObjectKey) -> Outcome:
        if key.name == "bad":
            raise ValueError("a defect")
        return Outcome()

    api.put(TICKET, "bad")
    async with running(api, sync, workers=1) as setup:
        for n in range(5):
            api.put(TICKET, f"good{n}")
        await asyncio.sleep(1000)
        times = [time for name, time in setup.synced if name == "bad"]
        pauses = [later - earlier for earlier, later in pairwise(times)]
        assert pauses[:3] == pytest.approx([0.005, 0.01, 0.02])
        assert pauses[-1] == pytest.approx(0.005 * 2 ** (len(pauses) - 1))
        assert set(setup.names) == {"bad", *(f"good{n}" for n in range(5))}


async def await_what_is_cancelled() -> None:
    """Raises a CancelledError although the worker was not cancelled."""
    other = asyncio.ensure_future(asyncio.sleep(3600))
    await asyncio.sleep(0)
    other.cancel()
    await other


async def test_a_cancelled_awaitable_is_a_failure_of_its_key(
    api: ModelApi, caplog: pytest.LogCaptureFixture
) -> None:
    async def sync(setup: Setup, key: ObjectKey) -> Outcome:
        if key.name == "bad":
            await await_what_is_cancelled()
        return Outcome()

    panics = count("controller_runtime_reconcile_panics_total")
    api.put(TICKET, "bad")
    async with running(api, sync, workers=1) as setup:
        await asyncio.sleep(1)
        times = [time for name, time in setup.synced if name == "bad"]
        assert [later - earlier for earlier, later in pairwise(times)][:2] == pytest.approx([0.005, 0.01])
        api.put(TICKET, "good")
        await asyncio.sleep(1)
        assert "good" in setup.names
        assert count("controller_runtime_reconcile_panics_total") >= panics + 2
        assert count("controller_runtime_active_workers") == 0
    failed = [record for record in caplog.records if "Unexpected error" in record.getMessage()]
    assert failed[0].exc_info


async def test_a_timeout_report_that_is_cancelled_does_not_end_the_worker(
    api: ModelApi, caplog: pytest.LogCaptureFixture
) -> None:
    async def sync(setup: Setup, key: ObjectKey) -> Outcome:
        await asyncio.sleep(3600)
        return Outcome()

    async def on_timeout(key: ObjectKey, seconds: float) -> None:
        await await_what_is_cancelled()

    api.put(TICKET, "a")
    async with running(api, sync, workers=1, sync_timeout=20.0, on_timeout=on_timeout) as setup:
        await asyncio.sleep(30)
        assert len(setup.synced) == 2
    assert "Could not record the failure in the object's status" in caplog.text


@pytest.mark.parametrize("waits", [True, False])
async def test_a_reconcile_that_cancels_its_worker_delays_no_other_key(
    api: ModelApi, waits: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def sync(setup: Setup, key: ObjectKey) -> Outcome:
        if key.name == "bad":
            worker = asyncio.current_task()
            assert worker is not None
            worker.cancel()
            if waits:
                await asyncio.sleep(1)
        return Outcome()

    api.put(TICKET, "bad")
    async with running(api, sync, workers=1) as setup:
        await asyncio.sleep(5)
        api.put(TICKET, "good")
        await asyncio.sleep(1)
        assert "good" in setup.names
        assert setup.names.count("bad") > 3, "it is retried"
        assert "Unexpected error" in caplog.text
        assert "bad" in caplog.text


@pytest.mark.parametrize("wrong", [math.nan, math.inf, "soon"])
async def test_an_invalid_delay_affects_no_other_key(api: ModelApi, wrong: Any) -> None:
    async def sync(setup: Setup, key: ObjectKey) -> Outcome:
        if key.name == "bad-outcome":
            return Outcome(wrong)
        if key.name == "bad-failure":
            raise SyncError("no", retry_after=wrong)
        return Outcome()

    for name in ("bad-outcome", "bad-failure"):
        api.put(TICKET, name)
    async with running(api, sync, workers=1) as setup:
        await asyncio.sleep(5)
        api.put(TICKET, "good")
        await asyncio.sleep(1)
        assert "good" in setup.names
        assert setup.names.count("bad-outcome") > 3
        assert setup.names.count("bad-failure") > 3


async def test_a_mapper_that_returns_no_object_keys_is_logged(
    api: ModelApi, caplog: pytest.LogCaptureFixture
) -> None:
    async def sync(setup: Setup, key: ObjectKey) -> Outcome:
        return Outcome()

    async with running(api, sync) as setup:
        wrong: Any = lambda obj: ["x"]  # noqa: E731
        setup.controller.watch(setup.informer, wrong)
        api.put(TICKET, "a")
        await asyncio.sleep(1)
        assert setup.names == ["a"]
        assert "The mapper returned 'x'" in caplog.text


async def test_cancelling_a_worker_from_outside_ends_the_controller(api: ModelApi) -> None:
    async def sync(setup: Setup, key: ObjectKey) -> Outcome:
        worker = asyncio.current_task()
        assert worker is not None
        asyncio.get_running_loop().call_later(1, worker.cancel)
        return Outcome()

    api.put(TICKET, "a")
    setup = Setup(api, sync, workers=4)
    informing = asyncio.create_task(setup.informer.run())
    await setup.informer.wait_synced()
    with pytest.raises(RuntimeError, match="A worker of the controller ticket has ended"):
        async with asyncio.timeout(60):
            await setup.controller.run()
    informing.cancel()


async def test_success_resets_the_back_off(api: ModelApi) -> None:
    api.put(TICKET, "a", spec={"seats": 1})
    async with running(api, raising(SyncError("no"), SyncError("no"), None, SyncError("no"))) as setup:
        await asyncio.sleep(1)
        assert len(setup.synced) == 3
        api.put(TICKET, "a", spec={"seats": 2})
        await asyncio.sleep(1)
        times = [time for _, time in setup.synced]
        assert times[4] - times[3] == pytest.approx(0.005)


async def test_an_expected_error_is_logged_as_one_line_and_a_defect_with_traceback(
    api: ModelApi, caplog: pytest.LogCaptureFixture
) -> None:
    api.put(TICKET, "a")
    errors = (
        SyncError("The airline is closed."),
        Unreachable("connection refused", maybe_sent=False),
        KeyError("x"),
    )
    async with running(api, raising(*errors)):
        await asyncio.sleep(1)
    lines = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [bool(record.exc_info) for record in lines] == [False, False, True]
    assert "The airline is closed." in lines[0].getMessage()


async def test_a_permanent_error_is_retried_after_a_change_and_not_by_resyncs(api: ModelApi) -> None:
    api.put(TICKET, "a", spec={"seats": 1})
    permanent = count("controller_runtime_terminal_reconcile_errors_total")
    async with running(api, raising(PermanentError("Too many seats.")), resync=10.0) as setup:
        await asyncio.sleep(100)
        assert len(setup.synced) == 1
        assert count("controller_runtime_terminal_reconcile_errors_total") == permanent + 1
        api.put(TICKET, "a", status={"phase": "Failed"})
        await asyncio.sleep(100)
        assert len(setup.synced) == 1
        changed = asyncio.get_running_loop().time() - setup.began
        api.put(TICKET, "a", spec={"seats": 2})
        await asyncio.sleep(100)
        assert setup.synced[1][1] == pytest.approx(changed)
        assert len(setup.synced) > 5, "after a success, resyncs reconcile it again"


async def test_a_conflict_is_retried_without_a_warning(
    api: ModelApi, caplog: pytest.LogCaptureFixture
) -> None:
    api.put(TICKET, "a")
    errors = count("controller_runtime_reconcile_errors_total")
    requeues = count("controller_runtime_reconcile_total", result="requeue")
    async with running(api, raising(Conflict(409, "Conflict", "modified"))) as setup:
        await asyncio.sleep(1)
        assert len(setup.synced) == 2
    assert count("controller_runtime_reconcile_errors_total") == errors
    assert count("controller_runtime_reconcile_total", result="requeue") == requeues + 1
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


async def test_repeated_conflicts_are_logged_as_warnings(
    api: ModelApi, caplog: pytest.LogCaptureFixture
) -> None:
    async def sync(setup: Setup, key: ObjectKey) -> Outcome:
        raise Conflict(409, "Conflict", "modified")

    api.put(TICKET, "a")
    async with running(api, sync):
        await asyncio.sleep(5)
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert [record.getMessage() for record in warnings] == [
        "Conflict, the object has changed, retrying in 1.28 s: modified",
        "Conflict, the object has changed, retrying in 2.56 s: modified",
    ]


@pytest.mark.parametrize("seconds", [0, -5])
async def test_an_immediate_requeue_uses_the_back_off(api: ModelApi, seconds: float) -> None:
    async def sync(setup: Setup, key: ObjectKey) -> Outcome:
        return Outcome(requeue_after=seconds)

    api.put(TICKET, "a")
    async with running(api, sync) as setup:
        await asyncio.sleep(10)
        assert 5 <= len(setup.synced) <= 12, "5 ms, doubled each time"


@pytest.mark.parametrize(
    "error", [SyncError("closed", retry_after=30), TooManyRequests(429, "", "", retry_after=30)]
)
async def test_retry_after_sets_the_time_of_the_retry(api: ModelApi, error: Exception) -> None:
    api.put(TICKET, "a")
    async with running(api, raising(error)) as setup:
        await asyncio.sleep(100)
        (_, first), (_, second) = setup.synced
        assert 30 <= second - first <= 33


@pytest.mark.parametrize("delay", [0.0, -3.0, 0.001, 0.9])
@pytest.mark.parametrize("from_server", [True, False])
async def test_a_short_retry_after_does_not_switch_the_back_off_off(
    api: ModelApi, delay: float, from_server: bool
) -> None:
    async def sync(setup: Setup, key: ObjectKey) -> Outcome:
        if len(setup.synced) > 100:
            return Outcome()
        if from_server:
            raise TooManyRequests(429, "", "", retry_after=delay)
        raise SyncError("no", retry_after=delay)

    api.put(TICKET, "a")
    async with running(api, sync) as setup:
        await asyncio.sleep(600)
        times = [time for _, time in setup.synced]
        assert 10 <= len(times) <= 18, "5 ms, doubled each time"
        for number, (earlier, later) in enumerate(pairwise(times)):
            assert later - earlier >= max(delay, 0.005 * 2**number) - 1e-6


async def test_requeue_after_sets_the_time_of_the_next_reconcile(api: ModelApi) -> None:
    async def sync(setup: Setup, key: ObjectKey) -> Outcome:
        return Outcome(requeue_after=10)

    api.put(TICKET, "a")
    async with running(api, sync) as setup:
        await asyncio.sleep(35)
        assert len(setup.synced) == 4


@pytest.mark.parametrize("how", ["outcome", "failure", "part"])
async def test_a_requested_delay_has_a_floor_that_is_logged_once(
    api: ModelApi, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def sync(setup: Setup, key: ObjectKey) -> Outcome:
        if len(setup.synced) > 1000:
            return Outcome()
        if how == "outcome":
            return Outcome(requeue_after=0.001)
        if how == "failure":
            raise SyncError("no", retry_after=0.001)
        raise PermanentError("no", requeue_after=0.001, resync=True)

    api.put(TICKET, "a")
    api.put(TICKET, "b")
    async with running(api, sync) as setup:
        await asyncio.sleep(10)
        times = [time for name, time in setup.synced if name == "a"]
    assert len(times) > 5
    assert all(later - earlier >= 0.1 - 1e-6 for earlier, later in pairwise(times))
    messages = [each.getMessage() for each in caplog.records]
    [warning] = [each for each in messages if "at least 0.1 s" in each]
    assert warning.startswith("The next reconcile was requested after 0.001 s. The controller ticket waits")


async def test_stop_syncs_cancels_only_matching_reconciles(
    api: ModelApi, caplog: pytest.LogCaptureFixture
) -> None:
    timed_out: list[str] = []

    async def on_timeout(key: ObjectKey, seconds: float) -> None:
        timed_out.append(key.name)

    async def sync(setup: Setup, key: ObjectKey) -> Outcome:
        if setup.names.count(key.name) == 1:
            await asyncio.sleep(60)
        return Outcome()

    for name in "abc":
        api.put(TICKET, name)
    async with running(api, sync, on_timeout=on_timeout) as setup:
        await asyncio.sleep(1)
        setup.controller.stop_syncs(lambda obj: obj.metadata.name != "b")
        await asyncio.sleep(0.001)
        assert {obj.metadata.name for obj in setup.controller.syncing} == {"b"}
        await asyncio.sleep(10)
        assert Counter(setup.names) == {"a": 2, "b": 1, "c": 2}, "their workers continue"
        await asyncio.sleep(60)
        assert not setup.controller.syncing
    assert not timed_out
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_reconcile_that_times_out_is_cancelled_and_retried(
    api: ModelApi, caplog: pytest.LogCaptureFixture
) -> None:
    async def sync(setup: Setup, key: ObjectKey) -> Outcome:
        await asyncio.sleep(3600)
        return Outcome()

    api.put(TICKET, "a")
    timeouts = count("controller_runtime_reconcile_timeouts_total")
    async with running(api, sync, sync_timeout=20.0) as setup:
        await asyncio.sleep(30)
        assert [round(time) for _, time in setup.synced] == [0, 20]
    assert count("controller_runtime_reconcile_timeouts_total") == timeouts + 1
    assert "Reconcile timed out after 20 s" in caplog.text


async def test_a_swallowed_cancellation_is_reported_and_repeated(
    api: ModelApi, caplog: pytest.LogCaptureFixture
) -> None:
    async def sync(setup: Setup, key: ObjectKey) -> Outcome:
        for _ in range(2):
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(3600)
        await asyncio.sleep(3600)
        return Outcome()

    api.put(TICKET, "a")
    async with running(api, sync, workers=1, sync_timeout=20.0) as setup:
        await asyncio.sleep(50)
        assert caplog.text.count("Still running after it was cancelled at its time limit of 20 s") == 1, (
            caplog.text
        )
        await asyncio.sleep(20)
        assert "Reconcile timed out after 20 s" in caplog.text
        assert setup.names == ["a", "a"]


@pytest.mark.parametrize("error", [Unreachable("refused", maybe_sent=False), TypeError("a defect")])
async def test_a_timeout_that_cannot_be_reported_does_not_end_the_worker(
    api: ModelApi, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    async def sync(setup: Setup, key: ObjectKey) -> Outcome:
        await asyncio.sleep(3600)
        return Outcome()

    async def on_timeout(key: ObjectKey, seconds: float) -> None:
        raise error

    api.put(TICKET, "a")
    async with running(api, sync, workers=1, sync_timeout=20.0, on_timeout=on_timeout) as setup:
        await asyncio.sleep(30)
        assert len(setup.synced) == 2
    assert "Could not record the failure in the object's status" in caplog.text


async def test_every_key_is_resynced_about_once_a_period_evenly_spread(api: ModelApi) -> None:
    for n in range(100):
        api.put(TICKET, f"t{n}")
    async with running(api, resync=100.0) as setup:
        assert len(setup.synced) == 100
        await asyncio.sleep(1000)
        resyncs = setup.synced[100:]
        assert 900 <= len(resyncs) <= 1200
        for name in ("t0", "t57", "t99"):
            times = [time for other, time in resyncs if other == name]
            pauses = [later - earlier for earlier, later in pairwise(times)]
            assert all(70 <= pause <= 130 for pause in pauses)
        busiest = max(sum(1 for _, time in resyncs if second <= time < second + 1) for second in range(1000))
        assert busiest <= 3


async def test_changed_objects_are_reconciled_before_the_initial_list(api: ModelApi) -> None:
    async def sync(setup: Setup, key: ObjectKey) -> Outcome:
        await asyncio.sleep(1)
        return Outcome()

    for n in range(50):
        api.put(TICKET, f"old{n}")
    async with running(api, sync, workers=1) as setup:
        await asyncio.sleep(5)
        api.put(TICKET, "new")
        await asyncio.sleep(3)
        assert setup.names.index("new") < 10


async def test_log_lines_of_a_reconcile_name_its_object(api: ModelApi) -> None:
    seen = []

    async def sync(setup: Setup, key: ObjectKey) -> Outcome:
        seen.append(str(current_object()))
        return Outcome()

    api.put(TICKET, "a")
    async with running(api, sync):
        assert seen == ["Ticket default/a"]
        assert current_object() is None


async def write_and_lose_the_watch(setup: Setup, key: ObjectKey) -> Outcome:
    """The first reconcile writes and asks for another one, before the watch has shown the write."""
    if len(setup.synced) == 1:
        await setup.patch(key, {"status": {"phase": "Booked"}}, "status")
        setup.api.connected.clear()
        setup.controller.queue.add(key)
    return Outcome()


async def test_a_key_waits_until_the_watch_shows_its_own_write(api: ModelApi) -> None:
    api.put(TICKET, "a")
    async with running(api, write_and_lose_the_watch, workers=1) as setup:
        api.put(TICKET, "b")
        await asyncio.sleep(3)
        assert setup.names == ["a"], "it waits"
        setup.controller.queue.add(ObjectKey("default", "other"))
        await asyncio.sleep(0.1)
        assert setup.names == ["a", "other"], "and does not occupy a worker"
        api.connected.set()
        await asyncio.sleep(0.1)
        assert sorted(setup.names) == ["a", "a", "b", "other"]
        assert not [call for call in api.calls if call.verb == "get"]


@pytest.mark.parametrize("changed", [False, True])
async def test_a_parked_key_keeps_its_priority(api: ModelApi, changed: bool) -> None:
    async def sync(setup: Setup, key: ObjectKey) -> Outcome:
        if key.name == "resynced" and api.connected.is_set():
            await setup.patch(key, {"status": {"phase": "Booked"}}, "status")
            api.connected.clear()
            setup.controller.queue.add(key, Priority.BACKGROUND)
        await asyncio.sleep(0.1)
        return Outcome()

    key = api.put(TICKET, "resynced")
    async with running(api, sync, workers=1) as setup:
        await asyncio.sleep(1)
        queue = setup.controller.queue
        if changed:
            queue.add(key)
            await asyncio.sleep(0.1)
        setup.synced.clear()
        others = [ObjectKey("default", f"by-{what}-{n}") for what in ("list", "change") for n in range(3)]
        for other in others:
            queue.add(other, Priority.CHANGE if "change" in other.name else Priority.BACKGROUND)
        await asyncio.sleep(0.05)
        api.connected.set()
        await asyncio.sleep(2)
        place = setup.names.index(key.name)
        assert place == (3 if changed else 6), setup.names


async def test_after_five_seconds_the_object_is_read_live(api: ModelApi) -> None:
    key = api.put(TICKET, "a", spec={"seats": 1})
    async with running(api, write_and_lose_the_watch) as setup:
        api.put(TICKET, "a", spec={"seats": 7})
        await asyncio.sleep(4.5)
        assert setup.names == ["a"]
        await asyncio.sleep(1)
        assert setup.names[:2] == ["a", "a"]
        assert [call.verb for call in api.calls if call.key == key] == ["patch", "get"]
        seen = setup.informer.store.get(key)
        assert seen is not None
        assert seen.spec.seats == 7


async def test_a_cancelled_live_read_loses_no_key(api: ModelApi) -> None:
    async def cancel(call: Call) -> None:
        api.before = before
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    before = api.before
    api.put(TICKET, "a", spec={"seats": 1})
    async with running(api, write_and_lose_the_watch) as setup:
        await asyncio.sleep(4.5)
        assert setup.names == ["a"]
        api.before = cancel
        await asyncio.sleep(15)
        assert setup.names[:2] == ["a", "a"]


class Relisting(ModelApi):
    """Closes its watch at the next event (`cut`), is unreachable until `relist`, and then lists slowly."""

    cut = slow = False

    async def watch_list(self, resource: Resource[Any], **selectors: Any) -> Any:
        async with aclosing(super().watch_list(resource, **selectors)) as events:
            async for event in events:
                self._require_line()
                if self.slow and event.type is EventType.ADDED:
                    await asyncio.sleep(0.05)
                yield event

    async def watch(self, resource: Resource[Any], **selectors: Any) -> Any:
        self._require_line()
        async with aclosing(super().watch(resource, **selectors)) as events:
            async for event in events:
                self._require_line()
                yield event

    def _require_line(self) -> None:
        if self.cut:
            raise Unreachable("connection reset", maybe_sent=True)

    def relist(self) -> None:
        self.forget()
        self.cut, self.slow = False, True


async def test_changes_in_a_list_after_a_410_are_reconciled_immediately() -> None:
    api = Relisting()
    names = [f"t{n}" for n in range(200)]
    for name in names:
        api.put(TICKET, name, spec={"seats": 1})
    async with running(api) as setup:
        setup.synced.clear()
        api.cut = True
        for name in names:
            api.put(TICKET, name, spec={"seats": 2})
        await asyncio.sleep(0.1)
        api.relist()
        await asyncio.sleep(8)
        assert 50 < len(setup.synced) < 200, "while the list is still being read"
        await asyncio.sleep(20)
        assert sorted(setup.names) == sorted(names)
        assert api.calls == []


async def test_a_key_waits_for_an_own_write_made_before_a_list() -> None:
    api = Relisting()

    async def sync(setup: Setup, key: ObjectKey) -> Outcome:
        if api.cut and setup.names.count(key.name) == 1:
            await setup.patch(key, {"status": {"phase": "Booked"}}, "status")
            setup.controller.queue.add(key)
        return Outcome()

    for n in range(100):
        api.put(TICKET, f"t{n}")
    key = api.put(TICKET, "the-last-one")
    async with running(api, sync) as setup:
        setup.synced.clear()
        api.cut = True
        setup.controller.queue.add(key)
        await asyncio.sleep(0.1)
        api.relist()
        await asyncio.sleep(4)
        assert setup.names == [key.name], "the list has begun, and has not shown it"
        await asyncio.sleep(1)
        assert [call.verb for call in api.calls] == ["patch", "get"]
        assert setup.names == [key.name] * 2
        await asyncio.sleep(20)
        setup.controller.queue.add(key)
        await asyncio.sleep(1)
        assert setup.names == [key.name] * 3
        assert len(api.calls) == 2


async def test_an_own_write_of_a_deleted_object_delays_no_key_and_causes_no_reconcile() -> None:
    api = Relisting()

    async def sync(setup: Setup, key: ObjectKey) -> Outcome:
        if api.cut:
            await setup.patch(key, {"status": {"phase": "Booked"}}, "status")
            api.remove(TICKET, key)
            setup.controller.queue.add(key)
        return Outcome()

    key = api.put(TICKET, "a")
    async with running(api, sync) as setup:
        api.cut = True
        setup.controller.queue.add(key)
        await asyncio.sleep(10)
        assert setup.names == ["a", "a"]
        assert [call.verb for call in api.calls] == ["patch", "get"]
        assert setup.controller.own_writes._parked == {}
        api.relist()
        await asyncio.sleep(60)
        assert len(setup.informer.store) == 0
        assert not setup.informer.store.unconfirmed(key)
        assert setup.names == ["a", "a"]


async def test_a_deleted_object_leaves_no_state(api: ModelApi) -> None:
    key = api.put(TICKET, "a")
    async with running(api, raising(PermanentError("no"))) as setup:
        api.remove(TICKET, key)
        await asyncio.sleep(1)
        assert setup.names == ["a"]
        controller = setup.controller
        own = controller.own_writes
        assert (controller._failed, own._read, own._parked) == (set(), set(), {})
        assert controller.queue.add_rate_limited(key) == 0.005


async def test_draining_lets_running_reconciles_end_and_starts_no_others(api: ModelApi) -> None:
    ended = []

    async def sync(setup: Setup, key: ObjectKey) -> Outcome:
        await asyncio.sleep(5)
        ended.append(key.name)
        return Outcome()

    for n in range(10):
        api.put(TICKET, f"t{n}")
    setup = Setup(api, sync, workers=4)
    informing = asyncio.create_task(setup.informer.run())
    await setup.informer.wait_synced()
    running = asyncio.create_task(setup.controller.run())
    await asyncio.sleep(1)
    await setup.controller.drain()
    assert len(ended) == 4
    await asyncio.wait_for(running, 1)
    informing.cancel()


async def test_reconciles_that_never_wait_do_not_starve_the_event_loop(api: ModelApi) -> None:
    for n in range(1000):
        api.put(TICKET, f"t{n}")
    setup = Setup(api, None)
    informing = asyncio.create_task(setup.informer.run())
    await setup.informer.wait_synced()
    turns = 0

    async def others() -> None:
        nonlocal turns
        while len(setup.synced) < 1000:
            await asyncio.sleep(0)
            turns += 1

    running = asyncio.create_task(setup.controller.run())
    await others()
    assert turns >= 1000 / 16 - 2
    for task in (running, informing):
        task.cancel()
