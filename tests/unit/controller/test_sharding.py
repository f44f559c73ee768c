"""Sharding: one replica reconciles an object, never two, while replicas start, stop, die or freeze."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.controller import Controller, Event, EventType, Fenced, ObjectReference, Outcome, sharding
from pilothouse.controller.events import EVENT
from pilothouse.controller.lease import LEASE
from pilothouse.controller.replicas import Replicas, assign
from pilothouse.controller.sharding import shard_of
from pilothouse.kube import ObjectKey, PatchType, Unreachable
from pilothouse.process import Manager, Settings
from pilothouse.testing import Call, ModelApi, eventually
from pilothouse.testing.freezing import Freezable
from tests.unit.tickets import TICKET

SHARDS = 8
OBJECTS = 60

names = st.sets(st.text("abcdef0123456789", min_size=1, max_size=8), min_size=1, max_size=12)


@given(replicas=names, shards=st.integers(1, 40))
def test_every_shard_has_one_replica_and_replicas_differ_by_at_most_one_shard(
    replicas: set[str], shards: int
) -> None:
    assigned = assign(replicas, shards)
    assert sorted(assigned) == list(range(shards))
    load = Counter(dict.fromkeys(replicas, 0))
    load.update(assigned.values())
    assert max(load.values()) - min(load.values()) <= 1
    assert assign(sorted(replicas, reverse=True), shards) == assigned, "all replicas calculate the same"


def test_few_other_shards_move_when_a_replica_stops() -> None:
    before = assign({"a", "b", "c"}, 60)
    after = assign({"a", "b"}, 60)
    moved = [shard for shard in before if before[shard] != "c" and before[shard] != after[shard]]
    assert len(moved) <= 20


def test_without_replicas_no_shard_is_assigned() -> None:
    assert assign(set(), 8) == {}


def test_an_object_stays_in_its_shard_and_objects_spread() -> None:
    assert shard_of("6f1c1a3e-5f0e-4d5f-9df0-6f2d9a1f3c55", 8) == 6
    counts = Counter(shard_of(f"uid-{n}", 8) for n in range(8000))
    assert all(800 < counts[shard] < 1200 for shard in range(8))


class Replica:
    """An operator's process that reconciles its shards, and records its work in a shared journal."""

    shards = SHARDS

    def __init__(self, api: ModelApi, journal: "Journal", name: str) -> None:
        self.name = name
        self.frozen = Freezable()
        self.stop = asyncio.Event()
        with self.frozen.running():
            settings = Settings(
                shards=self.shards,
                health_host="127.0.0.1",
                health_port=0,
                pod_namespace="operators",
                pod_name=name,
            )
            self.manager = Manager("tickets", settings, api)
            self._journal = journal
            informer = self.manager.informer(TICKET)
            self.controller = Controller(
                "ticket", self.manager.api, informer, self.sync, workers=8, admits=self.manager.admits
            )
            self.manager.add(self.controller)
            self.task = asyncio.create_task(self.manager.run(self.stop))

    async def sync(self, key: ObjectKey) -> Outcome:
        with self._journal.syncing(self.name, key):
            await self.manager.fence.guard(self._journal.effect(self.name, key))
            body = {"status": {"phase": f"by {self.name}"}}
            await self.manager.api.patch(TICKET, key, body, type=PatchType.MERGE, subresource="status")
        return Outcome(2)

    @property
    def held(self) -> set[int]:
        assert self.manager.sharding
        return set(self.manager.sharding.held)

    async def terminate(self) -> None:
        self.stop.set()
        await self.task

    def kill(self) -> None:
        """Kills the process: it releases nothing, and nothing that it still does has an effect."""
        self.frozen.freeze()


class Journal:
    """Records which replica reconciles an object and which has made outside changes, and all overlaps."""

    def __init__(self) -> None:
        self.at: dict[ObjectKey, str] = {}
        self.effects: list[tuple[float, str, ObjectKey]] = []
        self.overlaps: list[str] = []
        self.dead: set[str] = set()
        self.begun: Counter[str] = Counter()

    def syncing(self, who: str, key: ObjectKey) -> "Syncing":
        return Syncing(self, who, key)

    def effect(self, who: str, key: ObjectKey) -> Callable[[], Awaitable[None]]:
        async def effect() -> None:
            self.begun[who] += 1
            await asyncio.sleep(0.5)
            self.begun[who] -= 1
            self.effects.append((asyncio.get_running_loop().time(), who, key))
            if self.at.get(key, who) != who:
                self.overlaps.append(f"{who} changes what {self.at[key]} reconciles: {key}")

        return effect

    def handlers(self, since: float) -> dict[ObjectKey, set[str]]:
        found: dict[ObjectKey, set[str]] = {}
        for time, who, key in self.effects:
            if time >= since:
                found.setdefault(key, set()).add(who)
        return found


class Syncing:
    def __init__(self, journal: Journal, who: str, key: ObjectKey) -> None:
        self._journal, self._who, self._key = journal, who, key

    def __enter__(self) -> None:
        at = self._journal.at.get(self._key)
        if at is not None and at not in self._journal.dead:
            self._journal.overlaps.append(f"{self._who} beside {at}: {self._key}")
        self._journal.at[self._key] = self._who

    def __exit__(self, *_: object) -> None:
        if self._journal.at.get(self._key) == self._who:
            del self._journal.at[self._key]


@pytest.fixture
def api() -> ModelApi:
    api = ModelApi()
    for n in range(OBJECTS):
        api.put(TICKET, f"t{n}", metadata={"uid": f"uid-{n}"})
    return api


@pytest.fixture
def journal() -> Journal:
    return Journal()


def every_object_has_one_handler(journal: Journal, since: float, *replicas: Replica) -> None:
    handlers = journal.handlers(since)
    assert len(handlers) == OBJECTS
    assert {name for names in handlers.values() for name in names} == {each.name for each in replicas}
    assert {key: names for key, names in handlers.items() if len(names) != 1} == {}
    assert sorted(shard for each in replicas for shard in each.held) == list(range(SHARDS))
    assert {len(each.held) for each in replicas} <= {SHARDS // len(replicas), SHARDS // len(replicas) + 1}


@pytest.mark.usefixtures("virtual_time")
async def test_each_object_has_one_replica_while_replicas_start_stop_and_die(
    api: ModelApi, journal: Journal
) -> None:
    time = asyncio.get_running_loop().time
    replicas = {name: Replica(api, journal, name) for name in ("pod-0", "pod-1", "pod-2")}
    await asyncio.sleep(30)
    settled = time()
    await asyncio.sleep(10)
    every_object_has_one_handler(journal, settled, *replicas.values())

    # One dies: its Leases expire, the others take them.
    dead = replicas.pop("pod-1")
    dead.kill()
    journal.dead.add("pod-1")
    await asyncio.sleep(45)
    settled = time()
    await asyncio.sleep(10)
    every_object_has_one_handler(journal, settled, *replicas.values())

    # One joins: the others hand over.
    replicas["pod-3"] = Replica(api, journal, "pod-3")
    await asyncio.sleep(20)
    settled = time()
    await asyncio.sleep(10)
    every_object_has_one_handler(journal, settled, *replicas.values())

    # Nothing that was begun is cut off by a hand-over.
    for replica in replicas.values():
        in_flight = [who for who in journal.at.values() if who == replica.name]
        assert journal.begun[replica.name] <= len(in_flight)

    # One stops regularly: the others reconcile its objects within seconds.
    await replicas.pop("pod-0").terminate()
    await asyncio.sleep(8)
    settled = time()
    await asyncio.sleep(6)
    every_object_has_one_handler(journal, settled, *replicas.values())
    assert not journal.overlaps

    # The dead one was only frozen: what it was at has no effect any more.
    changed = len([who for _, who, _ in journal.effects if who == "pod-1"])
    journal.dead.clear()
    journal.at = {key: who for key, who in journal.at.items() if who != "pod-1"}
    dead.frozen.thaw()
    await asyncio.sleep(0)
    assert len([who for _, who, _ in journal.effects if who == "pod-1"]) == changed
    await asyncio.sleep(30)
    assert not journal.overlaps
    replicas["pod-1"] = dead
    settled = time()
    await asyncio.sleep(10)
    every_object_has_one_handler(journal, settled, *replicas.values())
    assert {each["status"]["phase"].removeprefix("by ") for each in api.all(TICKET)} == set(replicas)
    for replica in replicas.values():
        await replica.terminate()
    leases = {each["metadata"]["name"]: each for each in api.all(LEASE)}
    assert {each["spec"].get("holderIdentity", "") for each in leases.values()} == {""}
    assert not leases["tickets-replicas"]["metadata"].get("annotations")


@pytest.mark.usefixtures("virtual_time")
async def test_a_new_object_is_reconciled_only_by_the_holder_of_its_shard(
    api: ModelApi, journal: Journal
) -> None:
    replicas = [Replica(api, journal, name) for name in ("pod-0", "pod-1")]
    await asyncio.sleep(20)
    key = api.put(TICKET, "new", metadata={"uid": "brand-new"})
    await asyncio.sleep(5)
    [holder] = [each for each in replicas if shard_of("brand-new", SHARDS) in each.held]
    assert {who for _, who, changed in journal.effects if changed == key} == {holder.name}
    for replica in replicas:
        await replica.terminate()


@pytest.mark.usefixtures("virtual_time")
async def test_changes_outside_of_a_reconcile_are_fenced(api: ModelApi, journal: Journal) -> None:
    replica = Replica(api, journal, "pod-0")
    await asyncio.sleep(10)
    with pytest.raises(Fenced):
        await replica.manager.fence.guard(journal.effect("pod-0", ObjectKey("default", "t0")))
    await replica.terminate()


class Booker(Replica):
    """Reads whether an object is booked, and books it. Both take some time."""

    def __init__(self, api: ModelApi, desk: "Desk", name: str) -> None:
        self._desk = desk
        super().__init__(api, Journal(), name)

    async def sync(self, key: ObjectKey) -> Outcome:
        try:
            booked = await self._desk.look(self.name, key)
            if not booked:
                await self.manager.fence.guard(lambda: self._desk.book(self.name, key))
        except BaseException as error:
            self._desk.stopped.append((self.name, key, type(error)))
            raise
        return Outcome()


class Desk:
    """Where objects are booked. It carries out every request, even if the client stopped waiting."""

    def __init__(self, look_seconds: float = 0, book_seconds: float = 0) -> None:
        self.bookings: list[tuple[ObjectKey, str]] = []
        self.stopped: list[tuple[str, ObjectKey, type[BaseException]]] = []
        self._look_seconds, self._book_seconds = look_seconds, book_seconds
        self._requests: set[asyncio.Task[None]] = set()

    async def look(self, who: str, key: ObjectKey) -> bool:
        found = key in dict(self.bookings)
        loop = asyncio.get_running_loop()
        answered = loop.time() + self._look_seconds
        while (left := answered - loop.time()) > 0:
            with suppress(asyncio.CancelledError):  # a client that cannot be stopped
                await asyncio.sleep(left)
        return found

    async def book(self, who: str, key: ObjectKey) -> None:
        async def land() -> None:
            await asyncio.sleep(self._book_seconds)
            self.bookings.append((key, who))

        request = asyncio.create_task(land())
        self._requests.add(request)
        await asyncio.shield(request)


def one_object_in_each_shard() -> ModelApi:
    api = ModelApi()
    uids = {shard_of(f"uid-{n}", SHARDS): f"uid-{n}" for n in range(100)}
    for shard in range(SHARDS):
        api.put(TICKET, f"t{shard}", metadata={"uid": uids[shard]})
    return api


@pytest.mark.usefixtures("virtual_time")
async def test_a_reconcile_that_began_in_one_term_changes_nothing_in_the_next() -> None:
    api, desk = one_object_in_each_shard(), Desk(look_seconds=60)
    replica = Booker(api, desk, "pod-0")
    await asyncio.sleep(10)
    key = ObjectKey("default", "t3")
    assert 3 in replica.held
    # Another replica has the shard for a while, and books.
    lease = {"holderIdentity": "other", "leaseDurationSeconds": 15}
    api.put(LEASE, "tickets-shard-3", "operators", spec=lease)
    await asyncio.sleep(5)
    assert 3 not in replica.held
    desk.bookings.append((key, "other"))
    api.put(LEASE, "tickets-shard-3", "operators", spec={"holderIdentity": ""})
    await asyncio.sleep(10)
    assert 3 in replica.held
    await asyncio.sleep(180)
    assert desk.stopped == [("pod-0", key, Fenced)]
    assert Counter(desk.bookings) == Counter(
        {
            (ObjectKey("default", f"t{shard}"), "other" if shard == 3 else "pod-0"): 1
            for shard in range(SHARDS)
        }
    )
    await replica.terminate()


@pytest.mark.usefixtures("virtual_time")
async def test_reconciles_that_outlast_a_hand_over_are_cancelled_and_land_before_the_next_reads(
    caplog: pytest.LogCaptureFixture,
) -> None:
    api, desk = one_object_in_each_shard(), Desk(book_seconds=9)
    first = Booker(api, desk, "pod-0")
    await asyncio.sleep(0.1)
    second = Booker(api, desk, "pod-1")
    await asyncio.sleep(8.5)
    moved = {ObjectKey("default", f"t{shard}") for shard in set(range(SHARDS)) - first.held}
    assert len(moved) == SHARDS / 2
    assert {(who, key) for who, key, _ in desk.stopped} == {("pod-0", key) for key in moved}
    assert not desk.bookings
    assert "it will expire: a change was interrupted" in caplog.text
    await asyncio.sleep(40)
    assert len(second.held) == SHARDS / 2
    assert Counter(desk.bookings) == Counter(
        {(ObjectKey("default", f"t{shard}"), "pod-0"): 1 for shard in range(SHARDS)}
    )
    for replica in (first, second):
        await replica.terminate()


@pytest.mark.usefixtures("virtual_time")
async def test_no_lease_is_renewed_after_a_stop_during_a_hand_over() -> None:
    api, desk = one_object_in_each_shard(), Desk(book_seconds=9)
    first = Booker(api, desk, "pod-0")
    await asyncio.sleep(0.1)
    sharding = first.manager.sharding
    assert sharding
    renewing = list(sharding._serving.values())
    assert len(renewing) == SHARDS
    second = Booker(api, desk, "pod-1")
    await eventually(lambda: sharding._leaving, within=30)
    await first.terminate()
    assert all(each.done() for each in renewing)
    await second.terminate()


class Reporter(Replica):
    """Has one shard, reconciles an object for three seconds, and records an Event."""

    shards = 1

    async def sync(self, key: ObjectKey) -> Outcome:
        await asyncio.sleep(3)
        self.report(key.name)
        return Outcome()

    def report(self, name: str) -> None:
        regarding = ObjectReference("tests.dev/v1", "Ticket", ObjectKey("default", name), "uid")
        self.manager.recorder.record(Event(regarding, EventType.NORMAL, "Seen", "Look", "it was seen"))


def reported(api: ModelApi) -> list[str]:
    return sorted(each["regarding"]["name"] for each in api.all(EVENT))


@pytest.mark.usefixtures("virtual_time")
async def test_a_replica_without_a_shard_writes_no_events(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = ModelApi()
    replica = Reporter(api, journal, "pod-0")
    await asyncio.sleep(10)
    replica.report("held")
    await asyncio.sleep(1)
    assert reported(api) == ["held"]

    # Its Lease cannot be renewed for a while, and others may have it.
    async def cut(call: Call) -> None:
        if call.resource == str(LEASE):
            raise Unreachable("no route", maybe_sent=False)

    before, api.before = api.before, cut
    await asyncio.sleep(60)
    replica.report("lost")
    await asyncio.sleep(60)
    assert reported(api) == ["held"]
    api.before = before
    await eventually(lambda: reported(api) == ["held", "lost"], within=90)

    # It is frozen right after it has recorded an Event, and another replica takes its shard.
    replica.frozen.freeze()
    replica.report("frozen")
    other = Reporter(api, journal, "pod-1")
    await asyncio.sleep(60)
    assert other.manager.sharding
    assert other.held == {0}
    holder = other.manager.sharding._replicas.own
    monkeypatch.setattr(sharding, "assign", lambda replicas, shards: {0: holder})
    replica.frozen.thaw()
    await asyncio.sleep(600)
    assert reported(api) == ["held", "lost"]
    for each in (replica, other):
        await each.terminate()


@pytest.mark.usefixtures("virtual_time")
async def test_events_are_written_before_the_last_shard_is_handed_over(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = ModelApi()
    replica = Reporter(api, journal, "pod-0")
    await asyncio.sleep(10)
    assert replica.held == {0}
    api.put(TICKET, "last")
    await asyncio.sleep(1)
    monkeypatch.setattr(sharding, "assign", lambda replicas, shards: {0: "another"})
    await asyncio.sleep(1.9)
    assert not replica.held
    assert reported(api) == []
    await asyncio.sleep(2)
    assert reported(api) == ["last"]
    [lease] = [each for each in api.all(LEASE) if each["metadata"]["name"] == "tickets-shard-0"]
    assert lease["spec"]["holderIdentity"] == ""
    replica.report("later")
    await replica.terminate()
    assert reported(api) == ["last"]


@pytest.mark.usefixtures("virtual_time")
async def test_recorded_events_are_written_before_the_leases_are_released(journal: Journal) -> None:
    api = ModelApi()
    replica = Reporter(api, journal, "pod-0")
    await asyncio.sleep(10)
    replica.report("a")
    await replica.terminate()
    assert reported(api) == ["a"]
    assert {each["spec"].get("holderIdentity", "") for each in api.all(LEASE)} == {""}


@pytest.mark.usefixtures("virtual_time")
async def test_no_shard_moves_while_the_list_is_unreachable(api: ModelApi, journal: Journal) -> None:
    replicas = [Replica(api, journal, name) for name in ("pod-0", "pod-1")]
    await asyncio.sleep(20)
    held = [each.held for each in replicas]

    async def cut(call: Call) -> None:
        if call.resource == str(LEASE) and call.key.name == "tickets-replicas":
            raise Unreachable("no route", maybe_sent=False)

    before, api.before = api.before, cut
    await asyncio.sleep(60)
    assert [each.held for each in replicas] == held
    api.before = before
    await asyncio.sleep(30)
    assert [each.held for each in replicas] == held
    assert not journal.overlaps
    for replica in replicas:
        await replica.terminate()


@pytest.mark.usefixtures("virtual_time")
async def test_a_replica_that_could_not_reach_the_list_counts_no_other_as_dead() -> None:
    api = ModelApi()
    one, two = (Replicas(api, ObjectKey("operators", "list"), name, 15) for name in ("one", "two"))
    everybody = {one.own, two.own}
    for _ in range(3):
        await one.beat()
        assert await two.beat() == everybody
        await asyncio.sleep(2)
    for _ in range(20):
        seen = await two.beat()
        await asyncio.sleep(2)
    assert seen == {two.own}
    assert await one.beat() == everybody
    assert await two.beat() == everybody
