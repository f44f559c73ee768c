"""The engine around the tasks: finalizer, status, Events, deletion, and the number of requests."""

import asyncio
import logging
from datetime import UTC, datetime

import pytest

from pilothouse.controller.events import EVENT
from pilothouse.kube import Conflict, ObjectKey
from pilothouse.playbook import PAUSED, RECONCILE, Play, Playbook, TaskFailed, task
from pilothouse.playbook.awaited import PlaybookError
from pilothouse.telemetry import metrics
from pilothouse.testing import Call, Json, ModelApi
from tests.unit.playbook.airline import FINALIZER, Airline
from tests.unit.playbook.conftest import Start
from tests.unit.tickets import TICKET, Ticket, TicketStatus

pytestmark = pytest.mark.usefixtures("virtual_time")


def ready(obj: Json) -> Json:
    [condition] = [each for each in obj["status"]["conditions"] if each["type"] == "Ready"]
    found: Json = condition
    return found


def writes(api: ModelApi) -> list[Call]:
    """Returns the writes of tickets, without Events."""
    return [call for call in api.writes if call.resource == str(TICKET)]


async def test_a_ticket_is_booked_for_one_finalizer_and_one_status(
    api: ModelApi, airline: Airline, ticket: ObjectKey, start: Start
) -> None:
    await start()
    obj = api.read(TICKET, ticket)
    assert airline.bookings == {obj["metadata"]["uid"]: 2}
    assert obj["metadata"]["finalizers"] == [FINALIZER]
    assert obj["status"]["phase"] == "Booked"
    assert obj["status"]["observedGeneration"] == 1
    assert ready(obj)["status"] == "True"
    assert ready(obj)["observedGeneration"] == 1
    assert [(call.verb, call.subresource) for call in writes(api)] == [("patch", ""), ("patch", "status")]
    assert all(call.body["metadata"]["resourceVersion"] for call in writes(api)), "no blind write"
    assert api.all(EVENT) == [], "routine success writes no Event"


async def test_the_finalizer_is_stored_before_the_first_task(
    api: ModelApi, airline: Airline, ticket: ObjectKey, start: Start
) -> None:
    async def look(what: str) -> None:
        assert FINALIZER in api.read(TICKET, ticket)["metadata"].get("finalizers", [])

    airline.before = look
    await start()
    assert airline.effects == ["book"]


async def test_a_thousand_tickets_cost_a_thousand_bookings_and_two_writes_each(
    api: ModelApi, airline: Airline, start: Start
) -> None:
    for n in range(500):
        api.put(TICKET, f"before{n}", spec={"seats": 1})
    await start()
    for n in range(500):
        api.put(TICKET, f"after{n}", spec={"seats": 1})
    await asyncio.sleep(60)
    assert len(airline.bookings) == 1000
    assert airline.effects == ["book"] * 1000
    assert len(api.calls) == 2000, "one finalizer and one status each; no read, no Event"
    await start()
    await asyncio.sleep(60)
    assert len(api.calls) == 2000, "a restart costs nothing"


async def test_a_settled_object_costs_no_request_at_a_resync(
    api: ModelApi, ticket: ObjectKey, start: Start
) -> None:
    await start(resync=10)
    api.calls.clear()
    plays = metrics.REGISTRY.get_sample_value(
        "controller_runtime_reconcile_time_seconds_count", {"controller": "ticket"}
    )
    await asyncio.sleep(1000)
    later = metrics.REGISTRY.get_sample_value(
        "controller_runtime_reconcile_time_seconds_count", {"controller": "ticket"}
    )
    assert plays is not None
    assert later is not None
    assert later - plays > 90
    assert api.calls == []


async def test_a_change_of_the_spec_is_one_status_write(
    api: ModelApi, airline: Airline, ticket: ObjectKey, start: Start
) -> None:
    await start()
    api.calls.clear()
    api.put(TICKET, ticket.name, spec={"seats": 3})
    await asyncio.sleep(1)
    assert list(airline.bookings.values()) == [3]
    [call] = writes(api)
    assert call.subresource == "status"
    assert set(call.body["status"]) == {"observedGeneration", "conditions"}, "only what differs is written"
    assert api.read(TICKET, ticket)["status"]["observedGeneration"] == 2


async def test_other_parts_of_the_status_and_other_finalizers_stay(
    api: ModelApi, airline: Airline, start: Start
) -> None:
    other = {
        "type": "Paid",
        "status": "True",
        "reason": "Card",
        "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
        "observedGeneration": 1,
    }
    key = api.put(
        TICKET,
        "t",
        spec={"seats": 1},
        status={"price": "9 EUR", "conditions": [other]},
        metadata={"finalizers": ["a/b"]},
    )
    await start(resync=100)
    obj = api.read(TICKET, key)
    assert obj["status"]["price"] == "9 EUR"
    assert obj["status"]["conditions"][0] == other
    assert obj["metadata"]["finalizers"] == ["a/b", FINALIZER]
    api.calls.clear()
    api.remove(TICKET, key)
    await asyncio.sleep(1)
    obj = api.read(TICKET, key)
    assert obj["metadata"]["finalizers"] == ["a/b"]
    assert (ready(obj)["status"], ready(obj)["reason"]) == ("False", "Deleting")
    assert [call.subresource for call in writes(api)] == ["status", ""]
    assert airline.effects == ["book", "cancel"]
    api.calls.clear()
    api.put(TICKET, "t", status={"phase": "Booked"}, metadata={"annotations": {RECONCILE: "again"}})
    await asyncio.sleep(1000)
    assert airline.effects == ["book", "cancel"]
    [event] = api.calls
    assert event.body["reason"] == "FinalizersRemain", "finalizers of others are left alone"


async def test_deletion_cleans_up_and_removes_the_finalizer(
    api: ModelApi, airline: Airline, ticket: ObjectKey, start: Start
) -> None:
    await start()
    api.calls.clear()
    api.remove(TICKET, ticket)
    await asyncio.sleep(1)
    assert not api.exists(TICKET, ticket)
    assert airline.bookings == {}
    assert len(writes(api)) == 1


async def test_an_object_that_is_deleted_without_our_finalizer_is_not_reconciled(
    api: ModelApi, airline: Airline, start: Start
) -> None:
    key = api.put(TICKET, "t", spec={"seats": 1}, metadata={"finalizers": ["other/f"]})
    api.remove(TICKET, key)
    await start()
    assert api.calls == []
    assert airline.effects == []


async def test_a_failing_cleanup_keeps_the_object_and_reports_why(
    api: ModelApi, airline: Airline, ticket: ObjectKey, start: Start
) -> None:
    await start()

    async def down(what: str) -> None:
        raise TaskFailed("AirlineDown", "The airline does not answer: wait, or remove the finalizer.")

    airline.before = down
    api.remove(TICKET, ticket)
    await asyncio.sleep(30)
    obj = api.read(TICKET, ticket)
    assert obj["metadata"]["finalizers"] == [FINALIZER]
    assert ready(obj)["reason"] == "AirlineDown"
    airline.before = Airline().before
    await asyncio.sleep(60)
    assert not api.exists(TICKET, ticket)
    assert airline.bookings == {}


async def test_a_failure_ends_the_reconcile_sets_ready_and_is_retried(
    api: ModelApi, airline: Airline, ticket: ObjectKey, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    async def down(what: str) -> None:
        raise TaskFailed("AirlineDown", "The airline does not answer; it is asked again by itself.")

    airline.before = down
    await start()
    obj = api.read(TICKET, ticket)
    assert obj["status"]["phase"] == "Pending"
    assert (ready(obj)["status"], ready(obj)["reason"]) == ("False", "AirlineDown")
    assert ready(obj)["message"] == "The airline does not answer; it is asked again by itself."
    assert obj["status"]["observedGeneration"] == 1
    await asyncio.sleep(60)
    assert len(writes(api)) == 2, "the same failure again is not written again"
    [event] = api.all(EVENT)
    assert event["type"] == "Warning"
    assert event["reason"] == "AirlineDown"
    assert event["action"] == "booking is known"
    assert event["series"]["count"] >= 2
    assert not [record for record in caplog.records if record.exc_info], (
        "an expected failure has no traceback"
    )
    airline.before = Airline().before
    await asyncio.sleep(120)
    obj = api.read(TICKET, ticket)
    assert ready(obj)["status"] == "True"
    assert obj["status"]["phase"] == "Booked"


async def test_a_retry_time_is_kept(api: ModelApi, airline: Airline, ticket: ObjectKey, start: Start) -> None:
    times: list[float] = []

    async def closed(what: str) -> None:
        times.append(asyncio.get_running_loop().time())
        raise TaskFailed("AirlineClosed", "The airline is closed.", retry_after=60)

    airline.before = closed
    await start()
    await asyncio.sleep(90)
    assert len(times) == 2
    assert 60 <= times[1] - times[0] <= 66


async def test_a_permanent_failure_waits_for_the_spec(api: ModelApi, airline: Airline, start: Start) -> None:
    key = api.put(TICKET, "t", spec={"seats": 11})
    await start(resync=10)
    await asyncio.sleep(500)
    obj = api.read(TICKET, key)
    assert obj["status"]["phase"] == "Failed"
    assert ready(obj)["reason"] == "TooManySeats"
    assert len(writes(api)) == 2
    assert "count" not in api.all(EVENT)[0].get("series", {}), "it was reconciled once"
    api.put(TICKET, "t", spec={"seats": 4})
    await asyncio.sleep(1)
    assert list(airline.bookings.values()) == [4]
    assert ready(api.read(TICKET, key))["status"] == "True"


async def test_a_defect_in_a_task_shows_its_kind_and_not_its_text(
    api: ModelApi, airline: Airline, ticket: ObjectKey, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    async def defect(what: str) -> None:
        raise ValueError("password=hunter2")

    airline.before = defect
    await start()
    condition = ready(api.read(TICKET, ticket))
    assert condition["reason"] == "UnexpectedError"
    assert "ValueError" in condition["message"]
    assert "booking is known" in condition["message"]
    assert "hunter2" not in str(api.all(TICKET)) + str(api.all(EVENT))
    assert [record for record in caplog.records if record.exc_info]


async def test_ready_has_the_time_of_its_last_change_of_status(
    api: ModelApi, ticket: ObjectKey, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter(datetime(2026, 1, 1, hour, 0, 0, 123456, UTC) for hour in range(24))
    monkeypatch.setattr("pilothouse.playbook.status.now", lambda: next(times))
    await start()
    first = ready(api.read(TICKET, ticket))
    assert first["lastTransitionTime"] == "2026-01-01T00:00:00Z"
    api.put(TICKET, ticket.name, spec={"seats": 3})
    await asyncio.sleep(1)
    second = ready(api.read(TICKET, ticket))
    assert second["observedGeneration"] == 2
    assert second["lastTransitionTime"] == first["lastTransitionTime"]
    api.put(TICKET, ticket.name, spec={"seats": 30})
    await asyncio.sleep(1)
    assert ready(api.read(TICKET, ticket))["lastTransitionTime"] == "2026-01-01T01:00:00Z"


async def test_a_paused_object_is_neither_reconciled_nor_cleaned_up(
    api: ModelApi, airline: Airline, start: Start
) -> None:
    key = api.put(TICKET, "t", spec={"seats": 1}, metadata={"annotations": {PAUSED: "true"}})
    await start(resync=10)
    await asyncio.sleep(100)
    obj = api.read(TICKET, key)
    assert (ready(obj)["status"], ready(obj)["reason"]) == ("Unknown", "Paused")
    assert "observedGeneration" not in obj["status"], "the spec was not reconciled"
    assert [call.subresource for call in writes(api)] == ["status"], "it is said once"
    assert airline.effects == []
    api.put(TICKET, "t", metadata={"annotations": {}})
    await asyncio.sleep(1)
    assert airline.effects == ["book"]
    assert ready(api.read(TICKET, key))["status"] == "True"
    api.put(TICKET, "t", metadata={"annotations": {PAUSED: "true"}})
    api.remove(TICKET, key)
    await asyncio.sleep(1)
    assert api.exists(TICKET, key)
    api.put(TICKET, "t", metadata={"annotations": {}})
    await asyncio.sleep(1)
    assert not api.exists(TICKET, key)


async def test_an_annotation_forces_a_reconcile_even_after_a_permanent_failure(
    api: ModelApi, airline: Airline, start: Start
) -> None:
    plays = 0

    @task("counted")
    async def counted(play: Play[Ticket, TicketStatus]) -> None:
        nonlocal plays
        plays += 1
        raise TaskFailed("No", "No.", permanent=True)

    api.put(TICKET, "t")
    await start(Playbook(Play, tasks=[counted]))
    assert plays == 1
    for value in ("1", "2"):
        api.put(TICKET, "t", metadata={"annotations": {RECONCILE: value}})
        await asyncio.sleep(1)
    assert plays == 3


async def test_a_playbook_without_cleanup_needs_no_finalizer(api: ModelApi, start: Start) -> None:
    @task("nothing")
    async def nothing(play: Play[Ticket, TicketStatus]) -> None:
        play.ok("all is well")

    api.put(TICKET, "t")
    await start(Playbook(Play, tasks=[nothing]))
    [call] = writes(api)
    assert call.subresource == "status"


async def test_a_cleanup_needs_a_finalizer_and_a_finalizer_a_cleanup(airline: Airline) -> None:
    with pytest.raises(PlaybookError, match="both cleanup tasks and a finalizer, or neither"):
        Playbook(Play, tasks=[], finalizer="a/b")


async def test_a_cleanup_may_take_several_reconciles(api: ModelApi, start: Start) -> None:
    plays = 0

    @task("gone in a while")
    async def gone(play: Play[Ticket, TicketStatus]) -> None:
        nonlocal plays
        plays += 1
        if plays < 3:
            play.requeue_after(10)

    key = api.put(TICKET, "t")
    await start(Playbook(Play, tasks=[], cleanup=[gone], finalizer="tests.dev/f"))
    api.remove(TICKET, key)
    await asyncio.sleep(15)
    assert api.exists(TICKET, key)
    await asyncio.sleep(10)
    assert not api.exists(TICKET, key)


async def test_own_writes_that_the_watch_shows_before_their_response_cause_no_reconcile(
    api: ModelApi, airline: Airline, ticket: ObjectKey, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    async def slow(call: Call) -> None:
        await asyncio.sleep(1)

    caplog.set_level(logging.DEBUG)
    api.after = slow
    await start()
    await asyncio.sleep(10)
    assert [call.subresource for call in writes(api)] == ["", "status"]
    plays = [record for record in caplog.records if record.getMessage().startswith("Reconciled: ")]
    assert len(plays) == 1
    api.put(TICKET, ticket.name, metadata={"finalizers": []})
    await asyncio.sleep(10)
    assert api.read(TICKET, ticket)["metadata"]["finalizers"] == [FINALIZER], "a lost finalizer is restored"


async def test_a_conflict_in_a_task_is_retried_and_not_reported_as_a_failure(
    api: ModelApi, airline: Airline, ticket: ObjectKey, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    conflicts = iter([Conflict(409, "Conflict", "modified")])

    async def conflict(what: str) -> None:
        for error in conflicts:
            raise error

    airline.before = conflict
    await start()
    assert airline.effects == ["book"]
    assert len(writes(api)) == 2
    assert api.all(EVENT) == []
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


async def test_a_conflict_is_retried_without_a_report(
    api: ModelApi, airline: Airline, ticket: ObjectKey, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    async def meddle(call: Call) -> None:
        if call.subresource == "status" and len(writes(api)) == 2:
            api.put(TICKET, ticket.name, spec={"seats": 5})

    api.before = meddle
    await start()
    await asyncio.sleep(10)
    assert list(airline.bookings.values()) == [5]
    assert airline.effects == ["book", "change"]
    assert api.read(TICKET, ticket)["status"]["observedGeneration"] == 2
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


async def test_an_object_that_vanishes_during_its_reconcile_is_no_failure(
    api: ModelApi, airline: Airline, ticket: ObjectKey, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    async def vanish(call: Call) -> None:
        if call.subresource == "status":
            api.put(TICKET, ticket.name, metadata={"finalizers": []})
            api.remove(TICKET, ticket)

    api.before = vanish
    await start()
    await asyncio.sleep(10)
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


async def test_the_recap_is_one_line_when_something_changed_and_debug_otherwise(
    api: ModelApi, ticket: ObjectKey, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    await start(resync=10)
    await asyncio.sleep(100)
    recaps = [record for record in caplog.records if record.getMessage().startswith("Reconciled: ")]
    assert [record.levelno for record in recaps][:2] == [logging.INFO, logging.DEBUG]
    assert recaps[0].getMessage().startswith("Reconciled: ok=2 changed=1 skipped=0 failed=0 in ")
    assert "seats are booked: book seats" in recaps[0].getMessage()


async def test_tasks_are_counted_and_timed(api: ModelApi, ticket: ObjectKey, start: Start) -> None:
    def results(name: str, result: str) -> float:
        labels = {"playbook": "ticket", "task": name, "result": result}
        return metrics.REGISTRY.get_sample_value("pilothouse_task_results_total", labels) or 0.0

    booked, known = results("seats are booked", "changed"), results("booking is known", "ok")
    await start()
    assert results("seats are booked", "changed") == booked + 1
    assert results("booking is known", "ok") == known + 1
    assert metrics.REGISTRY.get_sample_value(
        "pilothouse_task_seconds_count", {"playbook": "ticket", "task": "seats are booked"}
    )


async def test_a_reconcile_that_times_out_is_reported_and_retried(
    api: ModelApi, airline: Airline, ticket: ObjectKey, start: Start
) -> None:
    airline.before = Airline.delay(3600)
    await start()
    await asyncio.sleep(121)
    obj = api.read(TICKET, ticket)
    assert (ready(obj)["status"], ready(obj)["reason"]) == ("False", "Timeout")
    assert "after 120 s" in ready(obj)["message"]
    assert obj["status"]["phase"] == "Pending"
    airline.before = Airline().before
    await asyncio.sleep(240)
    assert ready(api.read(TICKET, ticket))["status"] == "True"


async def test_what_the_process_keeps_for_an_object_is_freed_when_it_is_gone(
    api: ModelApi, start: Start
) -> None:
    gone: list[ObjectKey] = []

    def free(key: ObjectKey) -> None:
        gone.append(key)
        raise RuntimeError("a mistake of an author")

    @task("there is nothing to do")
    async def nothing(play: Play[Ticket, TicketStatus]) -> None:
        play.skip()

    await start(Playbook(Play, tasks=[nothing], on_gone=free))
    keys = [api.put(TICKET, name, spec={"seats": 1}) for name in ("a", "b")]
    await asyncio.sleep(1)
    assert gone == []
    for key in keys:
        api.remove(TICKET, key)
    await asyncio.sleep(1)
    assert gone == keys
