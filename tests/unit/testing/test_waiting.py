"""A failure of `eventually` shows the state."""

import pytest

from pilothouse.controller import Event, EventRecorder, EventType, ObjectReference
from pilothouse.testing import ModelApi, VirtualTimeLoop, eventually, explain
from tests.unit.tickets import TICKET


async def test_a_failure_shows_objects_events_and_the_log(
    model: ModelApi, virtual_time: VirtualTimeLoop
) -> None:
    key = model.put(TICKET, "a", spec={"seats": 2})
    model.put(TICKET, "elsewhere", "other")
    recorder = EventRecorder(model, "tickets", "pod-1")
    regarding = ObjectReference(TICKET.api_version, TICKET.kind, key, "uid")
    recorder.record(Event(regarding, EventType.WARNING, "Full", "book", "no seat is left"))
    running = virtual_time.create_task(recorder.run())
    describe = explain(model, TICKET, namespace="default", log=lambda: "the last line")
    with pytest.raises(AssertionError) as failure:
        await eventually(lambda: False, within=3, describe=describe)
    running.cancel()
    text = str(failure.value)
    assert '"seats": 2' in text
    assert "elsewhere" not in text
    assert "Warning Full on Ticket default/a, 1 times: no seat is left" in text
    assert text.endswith("the last line")
