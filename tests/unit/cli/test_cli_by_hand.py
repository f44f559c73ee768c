"""A manual play holds the operator's Lease, and is refused if it cannot get the Lease."""

import asyncio
import json
import threading
from collections.abc import Sequence

import pytest

from pilothouse.cli.by_hand import Hand
from pilothouse.cli.command_line import _exit_code
from pilothouse.cli.report import as_json, as_text
from pilothouse.cli.selection import Refused, Selection, watches_of
from pilothouse.controller.lease import LEASE
from pilothouse.controller.sharding import shard_of
from pilothouse.kube import Conflict, NotFound, ObjectKey
from pilothouse.playbook import Play, Playbook, Secondary, State, TaskFailed, Waiting, Watch, task
from pilothouse.playbook.awaited import PlaybookError
from pilothouse.process import Settings
from pilothouse.testing import Call, ModelApi
from tests.unit.playbook.airline import FINALIZER, Airline, playbook
from tests.unit.playbook.configured import CONFIG_MAP, TicketPlay, operator
from tests.unit.playbook.configured import playbook as playbook_of
from tests.unit.tickets import TICKET

pytestmark = pytest.mark.usefixtures("virtual_time")

LEASE_KEY = ObjectKey("operators", "tickets")


@pytest.fixture
def hand(api: ModelApi) -> Hand:
    return Hand("tickets", Settings(leader_elect=True, pod_namespace="operators", pod_name="pod-1"), api)


@pytest.fixture
def selection(api: ModelApi) -> Selection:
    return Selection(Settings(), api)


@pytest.fixture
def watch(airline: Airline) -> Watch:
    return Watch(TICKET, playbook(airline))


def hold_lease(api: ModelApi, renewed: str) -> None:
    spec = {"holderIdentity": "pod-0_1234", "leaseDurationSeconds": 15, "renewTime": renewed}
    api.put(LEASE, LEASE_KEY.name, LEASE_KEY.namespace, spec=spec)


async def test_all_that_a_play_does_happens_under_the_lease(
    api: ModelApi, airline: Airline, ticket: ObjectKey, hand: Hand, watch: Watch
) -> None:
    holders = []

    async def look(what: str) -> None:
        holders.append(api.read(LEASE, LEASE_KEY)["spec"]["holderIdentity"])

    airline.before = look
    played = await hand.play(watch, ticket)
    assert [result.state for result in played.recap.results] == [State.OK, State.OK, State.CHANGED]
    assert played.finalizers == [f"+{FINALIZER}"]
    assert played.status["phase"] == "Booked"
    assert airline.effects == ["book"]
    assert all(holder.startswith("pod-1_manual-play_") for holder in holders)
    assert holders
    assert api.read(LEASE, LEASE_KEY)["spec"]["holderIdentity"] == "", "given up at the end"


async def test_it_is_refused_immediately_while_another_process_leads(
    api: ModelApi, airline: Airline, ticket: ObjectKey, hand: Hand, watch: Watch
) -> None:
    hold_lease(api, "2999-01-01T00:00:00.000000Z")
    began = asyncio.get_running_loop().time()
    with pytest.raises(Refused) as refused:
        await hand.play(watch, ticket)
    said = str(refused.value)
    assert "pod-0_1234 holds the Lease operators/tickets" in said
    assert (
        "kubectl annotate -n default tickets.tests.dev my-ticket --overwrite pilothouse.dev/reconcile="
        in said
    )
    assert (airline.effects, api.writes) == ([], [])
    assert asyncio.get_running_loop().time() == began


async def test_of_a_sharded_operator_the_lease_of_the_objects_shard_is_held(
    api: ModelApi, airline: Airline, ticket: ObjectKey, watch: Watch
) -> None:
    settings = Settings(pod_namespace="operators", pod_name="pod-1", shards=4)
    shard = shard_of(api.read(TICKET, ticket)["metadata"]["uid"], 4)
    await Hand("tickets", settings, api).play(watch, ticket)
    leases = [lease["metadata"]["name"] for lease in api.all(LEASE)]
    assert leases == [f"tickets-shard-{shard}"]
    assert airline.effects == ["book"]


async def test_an_abandoned_lease_is_taken_once_it_has_not_changed_for_its_duration(
    api: ModelApi, airline: Airline, ticket: ObjectKey, hand: Hand, watch: Watch
) -> None:
    hold_lease(api, "2020-01-01T00:00:00.000000Z")
    began = asyncio.get_running_loop().time()
    await hand.play(watch, ticket)
    assert airline.effects == ["book"]
    assert asyncio.get_running_loop().time() - began > 15


async def test_a_lease_that_is_renewed_by_a_clock_behind_ours_is_not_taken(
    api: ModelApi, airline: Airline, ticket: ObjectKey, hand: Hand, watch: Watch
) -> None:
    async def renew() -> None:
        for second in range(60):
            hold_lease(api, f"2020-01-01T00:00:{second:02}.000000Z")
            await asyncio.sleep(2)

    renewing = asyncio.create_task(renew())
    await asyncio.sleep(0)
    with pytest.raises(Refused, match="pod-0_1234 holds the Lease"):
        await hand.play(watch, ticket)
    renewing.cancel()
    assert airline.effects == []


async def test_a_ticket_that_changes_during_the_play_is_played_again(
    api: ModelApi, airline: Airline, ticket: ObjectKey, hand: Hand, watch: Watch
) -> None:
    async def change_once(call: Call) -> None:
        if call.subresource == "status":
            api.before = nothing
            api.put(TICKET, ticket.name, spec={"seats": 3})

    async def nothing(call: Call) -> None:
        pass

    api.before = change_once
    played = await hand.play(watch, ticket)
    assert airline.effects == ["book", "change"]
    assert played.status["phase"] == "Booked"
    assert api.read(TICKET, ticket)["status"]["observedGeneration"] == 2


async def test_a_deletion_is_played_and_what_remains_for_others_is_refused(
    api: ModelApi, airline: Airline, ticket: ObjectKey, hand: Hand, watch: Watch
) -> None:
    await hand.play(watch, ticket)
    api.put(TICKET, ticket.name, metadata={"finalizers": [FINALIZER, "others.dev/hold"]})
    api.remove(TICKET, ticket)
    checked = await hand.check(watch, ticket)
    assert (checked.finalizers, checked.changes) == ([f"-{FINALIZER}"], True)
    assert airline.effects == ["book"]
    played = await hand.play(watch, ticket)
    assert played.finalizers == [f"-{FINALIZER}"]
    for status in (checked.status, played.status):
        assert "Deleting" in str(status["conditions"])
    assert airline.effects == ["book", "cancel"]
    for refused in (hand.check, hand.play):
        with pytest.raises(Refused, match="nothing"):
            await refused(watch, ticket)


async def test_the_status_of_an_object_without_other_finalizers_is_not_written(
    api: ModelApi, ticket: ObjectKey, hand: Hand, watch: Watch
) -> None:
    await hand.play(watch, ticket)
    api.remove(TICKET, ticket)
    checked = await hand.check(watch, ticket)
    assert (checked.finalizers, checked.status) == ([f"-{FINALIZER}"], {})
    assert (await hand.play(watch, ticket)).status == {}
    assert not api.exists(TICKET, ticket)


async def test_a_process_that_has_lost_the_lease_changes_nothing(
    api: ModelApi, airline: Airline, ticket: ObjectKey, hand: Hand, watch: Watch
) -> None:
    async def lose_lease(what: str) -> None:
        if what == "find":
            hold_lease(api, "2999-01-01T00:00:00.000000Z")
            await asyncio.sleep(60)

    airline.before = lose_lease
    with pytest.raises(Refused, match="this process may have lost its Lease"):
        await hand.play(watch, ticket)
    assert airline.effects == []
    assert "status" not in api.read(TICKET, ticket)


async def test_a_play_that_was_stopped_in_a_call_leaves_its_lease_to_expire(
    api: ModelApi, airline: Airline, ticket: ObjectKey, watch: Watch
) -> None:
    settings = Settings(leader_elect=True, pod_namespace="operators", pod_name="pod-1", sync_timeout=30)

    async def hang(what: str) -> None:
        if what == "book":
            await asyncio.sleep(3600)

    airline.before = hang
    with pytest.raises(TimeoutError):
        await Hand("tickets", settings, api).play(watch, ticket)
    assert api.read(LEASE, LEASE_KEY)["spec"]["holderIdentity"].startswith("pod-1_manual-play_")


async def test_what_the_object_owns_is_read_and_kept_too(
    api: ModelApi, ticket: ObjectKey, hand: Hand
) -> None:
    async def configure(play: TicketPlay) -> None:
        await play.apply(CONFIG_MAP, {"data": {"seats": str(play.object.spec.seats)}})

    watch = Watch(TICKET, playbook_of(configure), owns=[CONFIG_MAP])
    checked = await hand.check(watch, ticket)
    assert checked.recap.results[0].message == "create ConfigMap my-ticket"
    assert api.all(CONFIG_MAP) == []
    await hand.play(watch, ticket)
    assert [each["data"] for each in api.all(CONFIG_MAP)] == [{"seats": "2"}]
    assert not (await hand.check(watch, ticket)).changes
    api.put(CONFIG_MAP, ticket.name, data={"seats": "9"})
    assert any("seats" in line for line in (await hand.check(watch, ticket)).recap.results[0].diff)


async def test_a_defect_of_check_mode_in_a_task_changes_nothing(
    api: ModelApi, ticket: ObjectKey, hand: Hand
) -> None:
    async def forgets_check_mode(play: TicketPlay) -> None:
        await play.fence.guard(lambda: api.delete(TICKET, ticket))

    with pytest.raises(Refused, match="tried to change something in check mode"):
        await hand.check(Watch(TICKET, playbook_of(forgets_check_mode)), ticket)
    assert api.exists(TICKET, ticket)


async def test_a_blocking_task_runs_in_check_mode_and_can_test_it(
    api: ModelApi, ticket: ObjectKey, hand: Hand
) -> None:
    ran: list[tuple[bool, bool]] = []
    changed: list[str] = []

    @task("the file is as the spec asks")
    def write_file(play: TicketPlay) -> None:
        ran.append((play.check, threading.current_thread() is threading.main_thread()))
        play.changed("write the file")
        if not play.check:
            changed.append("file")

    watch = Watch(TICKET, Playbook(TicketPlay, tasks=[write_file]))
    checked = await hand.check(watch, ticket)
    assert [(each.state, each.diff) for each in checked.recap.results] == [
        (State.CHANGED, ("write the file",))
    ]
    assert checked.changes
    assert (ran, changed) == ([(True, False)], [])
    await hand.play(watch, ticket)
    assert (ran[1:], changed) == ([(False, False)], ["file"])


async def test_what_a_task_changes_in_a_thread_is_stopped_in_check_mode_too(
    api: ModelApi, ticket: ObjectKey, hand: Hand
) -> None:
    changed: list[str] = []

    async def forgets_check_mode(play: TicketPlay) -> None:
        await play.fence.in_thread(changed.append, "file")

    with pytest.raises(Refused, match="tried to change something in check mode"):
        await hand.check(Watch(TICKET, playbook_of(forgets_check_mode)), ticket)
    assert changed == []


@pytest.fixture
def two_watches(airline: Airline) -> list[Watch]:
    return [
        Watch(TICKET, playbook(airline), name="red-tickets", selector="color=red"),
        Watch(TICKET, playbook_of(), name="blue-tickets", selector="color=blue"),
    ]


async def test_a_kind_without_a_crd_is_named(
    api: ModelApi, ticket: ObjectKey, hand: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def get(*_: object) -> None:
        raise NotFound(404, "", "404 page not found")

    monkeypatch.setattr(api, "get", get)
    with pytest.raises(
        Refused, match=r"does not serve .* in version .*; install its CustomResourceDefinition"
    ):
        await hand.check(Watch(TICKET, playbook_of()), ticket)


async def test_an_object_is_played_by_the_watch_that_selects_it(
    api: ModelApi,
    airline: Airline,
    ticket: ObjectKey,
    hand: Hand,
    selection: Selection,
    two_watches: list[Watch],
) -> None:
    red, blue = two_watches
    api.put(TICKET, ticket.name, metadata={"labels": {"color": "blue"}})
    assert await selection.choose(watches_of(two_watches, "tickets"), ticket) is blue
    assert watches_of(two_watches, "red-tickets") == [red]
    with pytest.raises(Refused, match=r"does not watch the kind 'flight'\. Its kinds: Ticket$"):
        watches_of(two_watches, "flight")
    for refused in (hand.check, hand.play):
        with pytest.raises(Refused, match="the watch red-tickets selects color=red"):
            await refused(red, ticket)
    await hand.play(blue, ticket)
    assert airline.effects == []


async def test_an_object_that_no_watch_selects_or_several_do_is_refused(
    api: ModelApi, ticket: ObjectKey, selection: Selection, two_watches: list[Watch]
) -> None:
    with pytest.raises(Refused, match="the operator does not reconcile Ticket default/my-ticket: "):
        await selection.choose(two_watches, ticket)
    with pytest.raises(Refused, match="there is no Ticket default/other"):
        await selection.choose(two_watches, ObjectKey("default", "other"))
    api.put(TICKET, ticket.name, metadata={"labels": {"color": "red"}})
    twins = [two_watches[0], Watch(TICKET, playbook_of(), name="all-tickets")]
    with pytest.raises(
        Refused, match="several watches reconcile Ticket default/my-ticket: red-tickets, all-tickets"
    ):
        await selection.choose(twins, ticket)


@pytest.mark.parametrize("watches", [(), [Secondary(TICKET, lambda ticket, stores: ())]])
async def test_others_of_the_played_kind_are_read_where_the_watch_declares_it_as_in_the_operator(
    api: ModelApi, ticket: ObjectKey, hand: Hand, watches: Sequence[Secondary]
) -> None:
    read: list[object] = []

    async def look(play: TicketPlay) -> None:
        try:
            read.append(play.get(TICKET, "sibling") is not None)
        except PlaybookError as error:
            read.append(str(error))

    api.put(TICKET, "sibling")
    async with operator(api, playbook_of(look), watches=watches):
        pass
    in_operator, read = read[0], []
    await hand.play(Watch(TICKET, playbook_of(look), watches=watches), ticket)
    assert read == [in_operator]
    assert in_operator is True or "add it to `owns` or `watches`" in str(in_operator)


async def test_a_kind_that_is_owned_and_mapped_too_is_read_once(
    api: ModelApi, ticket: ObjectKey, hand: Hand
) -> None:
    async def look(play: TicketPlay) -> None:
        assert play.get(CONFIG_MAP, "far", namespace="elsewhere") is not None

    api.put(CONFIG_MAP, "far", namespace="elsewhere")
    watches = [Secondary(CONFIG_MAP, lambda config_map, stores: ())]
    checked = await hand.check(Watch(TICKET, playbook_of(look), owns=[CONFIG_MAP], watches=watches), ticket)
    assert checked.recap.failure is None


async def test_a_task_that_awaits_a_cancelled_task_fails(
    api: ModelApi, ticket: ObjectKey, hand: Hand
) -> None:
    async def meddles(play: TicketPlay) -> None:
        other = asyncio.ensure_future(asyncio.sleep(3600))
        other.cancel()
        await other

    watch = Watch(TICKET, playbook_of(meddles))
    for played in (await hand.check(watch, ticket), await hand.play(watch, ticket)):
        assert played.recap.failure is not None
        assert played.recap.failure.reason == "UnexpectedError"


def notifying(*troubles: Exception) -> Playbook[TicketPlay]:
    """Returns a playbook whose handler fails with the errors in turn. A conflict fails a task instead."""
    left = list(troubles)
    written: list[int] = []

    @task("it is reloaded")
    async def reload(play: TicketPlay) -> None:
        if left:
            raise left.pop(0)
        play.changed("reload")

    @task("the config is written", notify=[reload])
    async def write(play: TicketPlay) -> None:
        if not written:
            written.append(1)
            play.changed("write")

    @task("the obstacle is removed")
    async def remove_obstacle(play: TicketPlay) -> None:
        if left and isinstance(left[0], Conflict):
            raise left.pop(0)

    return Playbook(Play, tasks=[write, remove_obstacle])


CONFLICT = Conflict(409, "Conflict", "modified")


async def test_a_handler_that_did_not_run_is_run_by_the_next_try(ticket: ObjectKey, hand: Hand) -> None:
    played = await hand.play(Watch(TICKET, notifying(CONFLICT)), ticket)
    assert [each.task for each in played.recap.results if each.diff] == ["it is reloaded"]
    assert played.due == []
    assert _exit_code(played) == 0


@pytest.mark.parametrize(
    "trouble", [TaskFailed("Down", "It is down."), Waiting("Busy", "Busy.", fallback=60)]
)
async def test_an_unfinished_handler_is_reported(ticket: ObjectKey, hand: Hand, trouble: Exception) -> None:
    played = await hand.play(Watch(TICKET, notifying(trouble)), ticket)
    assert played.due == ["it is reloaded"]
    assert "Handlers still due: it is reloaded. The operator will not retry them." in as_text(
        played, diff=False
    )
    assert json.loads(as_json(played))["due"] == ["it is reloaded"]
    assert _exit_code(played) == 1


async def test_a_handler_that_no_try_has_run_is_reported(
    ticket: ObjectKey, hand: Hand, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(Refused, match="changed during each of 5 plays"):
        await hand.play(Watch(TICKET, notifying(*[CONFLICT] * 5)), ticket)
    assert "Ticket default/my-ticket: Handlers still due: it is reloaded" in caplog.text


async def test_a_handler_is_reported_if_the_play_times_out(
    api: ModelApi, ticket: ObjectKey, caplog: pytest.LogCaptureFixture
) -> None:
    @task("it is reloaded")
    async def reload(play: TicketPlay) -> None:
        await asyncio.sleep(3600)

    @task("the config is written", notify=[reload])
    async def write(play: TicketPlay) -> None:
        play.changed("write")

    settings = Settings(leader_elect=True, pod_namespace="operators", pod_name="pod-1", sync_timeout=30)
    with pytest.raises(TimeoutError):
        await Hand("tickets", settings, api).play(Watch(TICKET, Playbook(Play, tasks=[write])), ticket)
    assert "still due: it is reloaded" in caplog.text
