"""The writer in virtual time, on a model of a member with faults."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from etcd_operator.etcd import DEADLINE
from tests.etcd.history import Entry, History, Kind, Operation, Outcome
from tests.etcd.linearizability import check
from tests.etcd.read_back import losses, read_back
from tests.etcd.writer import Load, Writer
from tests.unit.etcd_writer.store import Fault, Store

pytestmark = [pytest.mark.usefixtures("virtual_time"), pytest.mark.timeout(600)]


class Run:
    """A writer on a store."""

    def __init__(self, store: Store, stall: float = 60.0) -> None:
        self.entries: list[Entry] = []
        self.stop = asyncio.Event()
        writer = Writer(Load("run", stall=stall), [store, store], self.entries.append)
        self.task = asyncio.create_task(writer.run(self.stop))

    async def end(self) -> History:
        """Stops the writer and returns its history."""
        self.stop.set()
        await self.task
        return History.of(self.entries)


async def proven(history: History, store: Store) -> bool:
    """Returns whether all checks accept the history with what the store has."""
    contents = await read_back(history, {"a": store})
    operations = [*history.operations, *contents[0].reads]
    return losses(history, contents) == [] and check(operations) == ""


def attempts(history: History) -> Counter[int]:
    """Returns how many writes had how many attempts."""
    writes = Counter((each.client, each.number) for each in history.operations if each.kind is Kind.WRITE)
    return Counter(writes.values())


async def test_it_writes_50_times_a_second_and_a_fifth_of_its_calls_are_reads() -> None:
    store = Store()
    run = Run(store)
    await asyncio.sleep(20)
    history = await run.end()
    assert history.problem() == ""
    figures = history.figures()
    assert figures.writes >= 50 * figures.seconds
    assert figures.reads == pytest.approx(len(history.operations) / 5, abs=2)
    assert (figures.failed_writes, figures.errors) == (0, {})
    assert figures.longest_gap < 60
    assert await proven(history, store)


async def test_both_clients_read_and_write_the_shared_keys_and_write_each_other_key_once() -> None:
    run = Run(Store())
    await asyncio.sleep(10)
    history = await run.end()
    users: dict[tuple[str, Kind], list[int]] = {}
    for each in history.operations:
        users.setdefault((each.key, each.kind), []).append(each.client)
    shared = {key: clients for key, clients in users.items() if "/shared/" in key[0]}
    own = {key: clients for key, clients in users.items() if "/own/" in key[0]}
    assert len(shared) == 2 * 20
    assert all(min(Counter(clients)[client] for client in (0, 1)) > 0 for clients in shared.values())
    assert all((kind, len(clients)) == (Kind.WRITE, 1) for (_, kind), clients in own.items())
    writes = [each for each in history.operations if each.kind is Kind.WRITE]
    assert len(own) == pytest.approx(len(writes) / 2, abs=2)
    assert len({each.value for each in writes}) == len(writes)


async def test_an_outage_fails_writes_and_is_the_longest_gap() -> None:
    store = Store()
    run = Run(store)
    await asyncio.sleep(5)
    store.fault = Fault.UNREACHABLE
    await asyncio.sleep(3)
    store.fault = Fault.NONE
    await asyncio.sleep(5)
    history = await run.end()
    assert history.problem() == ""
    figures = history.figures()
    assert 3000 - 50 < figures.longest_gap < 3000 + 700  # The pauses before attempts are up to 0.5 s.
    assert figures.gap_began == pytest.approx(5000, abs=50)
    assert 50 < figures.failed_writes < 3 * 52
    assert set(figures.errors) == {"Unreachable"}
    assert set(attempts(history)) == {1, 2, 3}
    # There was no connection, so no call can have an effect later.
    assert {each.outcome for each in history.operations} == {Outcome.OK, Outcome.FAILED}
    assert await proven(history, store)


async def test_a_short_outage_is_bridged_by_the_retries() -> None:
    store = Store()
    run = Run(store)
    await asyncio.sleep(5)
    store.fault = Fault.NO_LEADER
    await asyncio.sleep(0.4)
    store.fault = Fault.NONE
    await asyncio.sleep(5)
    history = await run.end()
    figures = history.figures()
    assert figures.failed_writes == 0
    assert figures.errors["NoLeader"] > 20
    assert await proven(history, store)


async def test_a_write_has_three_attempts_within_five_seconds_also_if_nothing_answers() -> None:
    store = Store()
    run = Run(store)
    await asyncio.sleep(2)
    store.fault = Fault.SILENT
    await asyncio.sleep(10)
    history = await run.end()
    writes: dict[tuple[int, int], list[Operation]] = {}
    for each in history.operations:
        if each.kind is Kind.WRITE:
            writes.setdefault((each.client, each.number), []).append(each)
    failed = [calls for calls in writes.values() if calls[-1].outcome is not Outcome.OK]
    assert len(failed) > 400
    for calls in failed:
        assert [each.attempt for each in calls] == [1, 2, 3]
        assert [each.outcome for each in calls] == [Outcome.UNKNOWN] * 3
        assert (calls[-1].returned - calls[0].called) / 1e9 == pytest.approx(5.0, abs=0.01)


async def test_an_outcome_that_is_unknown_stays_open_and_its_late_effect_is_no_loss() -> None:
    store = Store()
    run = Run(store)
    await asyncio.sleep(2)
    store.fault, store.calls_left = Fault.LOST_ANSWER, 20
    await asyncio.sleep(10)
    history = await run.end()
    writes = [each for each in history.operations if each.kind is Kind.WRITE]
    unknown = [each for each in writes if each.outcome is Outcome.UNKNOWN]
    assert 10 < len(unknown) < 20  # The others are reads.
    assert len({each.value for each in writes}) == len(writes)
    assert history.figures().failed_writes == 0
    assert await proven(history, store)
    # The attempt that had no answer has its effect again, after the one that was acknowledged.
    late = next(each for each in unknown if "/own/" in each.key)
    store.write(late.key.encode(), str(late.value).encode(), late=True)
    assert await proven(history, store)


async def test_it_gives_up_when_no_write_is_acknowledged_and_waits_for_the_open_calls() -> None:
    store = Store()
    run = Run(store, stall=8.0)
    await asyncio.sleep(5)
    store.fault = Fault.SILENT
    assert await run.task == "No write was acknowledged for 8 s."
    history = History.of(run.entries)
    assert history.problem() == "No write was acknowledged for 8 s."
    assert history.figures().seconds == pytest.approx(13, abs=0.1)
    assert store.counts["put"] + store.counts["get"] == len(history.operations)


async def test_an_outage_shorter_than_the_limit_does_not_end_it() -> None:
    store = Store()
    run = Run(store, stall=8.0)
    for _ in range(3):
        store.fault = Fault.UNREACHABLE
        await asyncio.sleep(7.0)
        store.fault = Fault.NONE
        await asyncio.sleep(1.0)
    history = await run.end()
    assert history.problem() == ""


async def test_a_defect_of_the_client_ends_the_writer() -> None:
    class Defect(Store):
        async def put(self, key: bytes, value: bytes, *, deadline: float = DEADLINE) -> int:
            raise TypeError("a defect")

    run = Run(Defect())
    with pytest.raises(ExceptionGroup) as found:
        await run.task
    assert found.group_contains(TypeError, match="a defect")


async def test_it_needs_two_clients() -> None:
    with pytest.raises(ValueError, match="2 clients"):
        Writer(Load("run"), [Store()], print)
