"""Events are aggregated, rate limited and bounded, and recording them never waits."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from pilothouse.controller import Event, EventRecorder, EventType, ObjectReference
from pilothouse.controller.events import EVENT
from pilothouse.kube import Forbidden, ObjectKey, Unreachable
from pilothouse.testing import Call, Json, ModelApi, VirtualTimeLoop

pytestmark = pytest.mark.usefixtures("virtual_time")


@pytest.fixture
async def recorder(api: ModelApi) -> AsyncIterator[EventRecorder]:
    recorder = EventRecorder(api, "flights.com/operator", "pod-1")
    task = asyncio.create_task(recorder.run())
    yield recorder
    assert not task.done(), "recording has ended"
    task.cancel()


def event(note: str = "The airline does not answer.", name: str = "ticket", **more: str) -> Event:
    regarding = ObjectReference("flights.com/v1", "FlightTicket", ObjectKey("travel", name), "uid-1")
    return Event(
        regarding, EventType.WARNING, more.get("reason", "AirlineDown"), more.get("action", "book"), note
    )


def written(api: ModelApi) -> list[Json]:
    return api.all(EVENT)


async def test_an_event_names_its_object_reason_and_reporter(api: ModelApi, recorder: EventRecorder) -> None:
    recorder.record(event())
    await recorder.flush(1)
    [found] = written(api)
    assert found["apiVersion"] == "events.k8s.io/v1"
    assert found["metadata"]["namespace"] == "travel"
    assert found["metadata"]["name"].startswith("ticket.")
    assert found["regarding"] == {
        "apiVersion": "flights.com/v1",
        "kind": "FlightTicket",
        "namespace": "travel",
        "name": "ticket",
        "uid": "uid-1",
    }
    assert found["type"] == "Warning"
    assert found["reason"] == "AirlineDown"
    assert found["action"] == "book"
    assert found["note"] == "The airline does not answer."
    assert found["reportingController"] == "flights.com/operator"
    assert found["reportingInstance"] == "pod-1"
    assert "series" not in found


async def test_repetitions_become_one_event_with_a_series(api: ModelApi, recorder: EventRecorder) -> None:
    for _ in range(100):
        recorder.record(event())
        await asyncio.sleep(10)
    [found] = written(api)
    assert len(api.writes) <= 2 + 1000 // 300, "the count is written now and then, not each time"
    assert found["series"]["count"] >= 70
    await asyncio.sleep(600)
    assert written(api)[0]["series"]["count"] == 100, "the final count is written when the series has ended"


async def test_an_event_that_recurs_after_its_series_has_ended_is_new(
    api: ModelApi, recorder: EventRecorder
) -> None:
    recorder.record(event())
    await asyncio.sleep(400)
    recorder.record(event())
    await asyncio.sleep(1)
    assert len(written(api)) == 2


async def test_a_series_whose_event_has_expired_is_created_again(
    api: ModelApi, recorder: EventRecorder
) -> None:
    recorder.record(event())
    await asyncio.sleep(1)
    api.remove(EVENT, ObjectKey("travel", written(api)[0]["metadata"]["name"]))
    recorder.record(event())
    await asyncio.sleep(1)
    [found] = written(api)
    assert found["series"]["count"] == 2


async def test_a_reason_of_an_object_may_have_25_events_and_then_one_every_five_minutes(
    api: ModelApi, recorder: EventRecorder
) -> None:
    for n in range(100):
        recorder.record(event(f"thing {n}"))
    await asyncio.sleep(1)
    assert len(written(api)) == 25
    recorder.record(event("another's", name="other"))
    await asyncio.sleep(301)
    recorder.record(event("later"))
    recorder.record(event("too much"))
    await asyncio.sleep(1)
    assert {found["note"] for found in written(api)} >= {"later", "another's"}
    assert len(written(api)) == 27


async def test_normal_events_do_not_displace_a_warning(api: ModelApi, recorder: EventRecorder) -> None:
    for n in range(100):
        recorder.record(event(f"step {n}")._replace(type=EventType.NORMAL))
    recorder.record(event("it is broken"))
    await asyncio.sleep(1)
    assert "it is broken" in {found["note"] for found in written(api)}


async def test_many_events_of_one_reason_do_not_displace_those_of_others(
    api: ModelApi, recorder: EventRecorder
) -> None:
    for type_ in EventType:
        for n in range(100):
            recorder.record(event(f"try {n}", reason="Looping")._replace(type=type_))
    for type_ in EventType:
        recorder.record(event("it has changed", reason="Changed")._replace(type=type_))
    await asyncio.sleep(1)
    counts = Counter((found["type"], found["reason"]) for found in written(api))
    assert counts == {
        (type_, reason): n for type_ in EventType for reason, n in (("Looping", 25), ("Changed", 1))
    }


async def test_a_long_note_is_truncated_to_1024_bytes_of_whole_characters(
    api: ModelApi, recorder: EventRecorder
) -> None:
    recorder.record(event("ö" * 2000))
    await recorder.flush(1)
    [found] = written(api)
    assert 1020 <= len(found["note"].encode()) <= 1024
    assert found["note"].endswith("ö...")


@pytest.mark.parametrize("field", ["reason", "action"])
async def test_a_long_reason_is_truncated_to_128_bytes_of_whole_characters(
    api: ModelApi, recorder: EventRecorder, field: str
) -> None:
    recorder.record(event(**{field: "ö" * 100 + "\ud83d"}))
    await recorder.flush(1)
    [found] = written(api)
    assert found[field] == "ö" * 64


async def test_characters_of_a_note_that_cannot_be_encoded_are_replaced(
    api: ModelApi, recorder: EventRecorder
) -> None:
    recorder.record(event("Gate \ud83d is closed."))
    await recorder.flush(1)
    [found] = written(api)
    assert found["note"] == "Gate ? is closed."


async def test_recording_never_waits_and_is_bounded_while_the_api_server_hangs(
    api: ModelApi, recorder: EventRecorder, virtual_time: VirtualTimeLoop
) -> None:
    async def hang(_call: Call) -> None:
        await asyncio.sleep(1e6)

    api.before = hang
    began = virtual_time.time()
    for n in range(5000):
        recorder.record(event(name=f"ticket-{n}"))
    assert virtual_time.time() == began
    await recorder.flush(2)
    assert virtual_time.time() == began + 2
    assert len(api.calls) == 1
    assert len(recorder._queue) == 999 or len(recorder._queue) == 1000


async def test_an_event_is_retried_when_the_api_server_was_unreachable(
    api: ModelApi, recorder: EventRecorder
) -> None:
    failures = iter([Unreachable("down", maybe_sent=False)])

    async def once(_call: Call) -> None:
        for failure in failures:
            raise failure

    api.before = once
    recorder.record(event())
    await asyncio.sleep(30)
    assert len(written(api)) == 1


async def test_a_refused_event_is_dropped_and_the_next_one_written(
    api: ModelApi, recorder: EventRecorder
) -> None:
    async def refuse(call: Call) -> None:
        if call.body["note"] == "bad":
            raise Forbidden(403, "Forbidden", "not allowed")

    api.before = refuse
    recorder.record(event("bad"))
    recorder.record(event("good"))
    await asyncio.sleep(1)
    assert [found["note"] for found in written(api)] == ["good"]


async def test_events_of_cluster_scoped_objects_are_written_to_default(
    api: ModelApi, recorder: EventRecorder
) -> None:
    regarding = ObjectReference("v1", "Node", ObjectKey("", "node-1"), "uid")
    recorder.record(Event(regarding, EventType.NORMAL, "Seen", "look", "There it is."))
    await recorder.flush(1)
    assert written(api)[0]["metadata"]["namespace"] == "default"
