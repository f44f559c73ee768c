"""A status that is written during the reconcile: a durable claim before an effect outside."""

import asyncio
from typing import Any

import pytest
from msgspec.structs import replace

from pilothouse.cli.by_hand import Hand
from pilothouse.controller.events import EVENT
from pilothouse.kube import Cause, Forbidden, NotFound, ObjectKey, ObjectMeta, Unreachable
from pilothouse.playbook import Group, Play, Playbook, TaskFailed, Watch
from pilothouse.process import Settings
from pilothouse.testing import Call, ModelApi
from tests.unit.playbook.configured import Function, TicketPlay, named, operator, playbook, ready
from tests.unit.tickets import TICKET, Ticket, TicketStatus

pytestmark = pytest.mark.usefixtures("virtual_time")


def status_writes(api: ModelApi) -> list[dict[str, Any]]:
    return [call.body["status"] for call in api.writes if call.subresource == "status"]


async def claim(play: TicketPlay) -> None:
    if not play.status.booking:
        await play.record(replace(play.status, booking="claimed"))


async def test_a_record_is_stored_when_it_returns_and_causes_no_reconcile(
    api: ModelApi, ticket: ObjectKey
) -> None:
    plays: list[tuple[str, str, str]] = []

    async def look(play: TicketPlay) -> None:
        await claim(play)
        stored = api.read(TICKET, ticket)
        assert play.object.metadata.resource_version == stored["metadata"]["resourceVersion"]
        plays.append((stored["status"]["booking"], play.status.booking, play.object.status.booking))
        assert play.object.status is play.status
        play.status = replace(play.status, phase="Booked")

    async with operator(api, playbook(look)):
        await asyncio.sleep(60)
        assert plays == [("claimed", "claimed", "claimed")]
        claimed, final = status_writes(api)
        assert claimed == {"booking": "claimed"}, "no condition and no observedGeneration"
        assert final.keys() == {"phase", "observedGeneration", "conditions"}
        assert ready(api, ticket)[0] == "True"


async def test_recording_the_stored_status_costs_nothing(api: ModelApi, ticket: ObjectKey) -> None:
    async def always(play: TicketPlay) -> None:
        await play.record(replace(play.status, booking="claimed"))

    async with operator(api, playbook(always), resync=5):
        await asyncio.sleep(60)
        assert len(status_writes(api)) == 2


async def test_without_an_argument_the_status_is_recorded_as_it_is(api: ModelApi, ticket: ObjectKey) -> None:
    async def always(play: TicketPlay) -> None:
        play.status = replace(play.status, booking="claimed")
        await play.record()
        assert api.read(TICKET, ticket)["status"] == {"booking": "claimed"} or play.settled

    async with operator(api, playbook(always)):
        assert ready(api, ticket)[0] == "True"


async def test_a_record_survives_the_failure_of_the_reconcile(api: ModelApi, ticket: ObjectKey) -> None:
    """A failure, a timeout and a status that the server refuses."""
    how = "fail"

    async def then(play: TicketPlay) -> None:
        await play.record(replace(play.status, booking=how))
        if how == "fail":
            raise TaskFailed("Full", "There is no seat.")
        if how == "time out":
            await asyncio.sleep(1000)
        if how == "defect":
            raise RuntimeError
        play.status = replace(play.status, phase="refused")

    def refuse(resource: object, new: Any, old: object) -> Any:
        wrong = new.get("status", {}).get("phase") == "refused"
        return [Cause("status.phase", "Unsupported value")] if wrong else []

    api.server.validate = refuse
    reasons = {
        "fail": "Full",
        "time out": "Timeout",
        "defect": "UnexpectedError",
        "refuse": "StatusNotWritten",
    }
    async with operator(api, playbook(then)):
        for number, (how, reason) in enumerate(reasons.items()):
            api.put(TICKET, ticket.name, spec={"seats": 3 + number})
            await asyncio.sleep(130)
            assert api.read(TICKET, ticket)["status"]["booking"] == how
            assert ready(api, ticket)[1] == reason


async def test_a_record_that_is_cut_off_by_the_timeout_is_not_undone(
    api: ModelApi, ticket: ObjectKey
) -> None:
    """The API server has stored the write, and its answer is lost."""

    async def hang(call: Call) -> None:
        if call.subresource == "status" and call.body["status"].get("booking"):
            await asyncio.sleep(1000)

    api.after = hang
    async with operator(api, playbook(claim)):
        await asyncio.sleep(400)
        assert api.read(TICKET, ticket)["status"]["booking"] == "claimed"


async def test_a_record_whose_answer_is_lost_is_found_by_the_next_play(
    api: ModelApi, ticket: ObjectKey
) -> None:
    lost = iter([True])

    async def lose(call: Call) -> None:
        if call.subresource == "status" and next(lost, False):
            raise Unreachable("connection reset", maybe_sent=True)

    api.after = lose
    async with operator(api, playbook(claim)):
        await asyncio.sleep(10)
        assert [each for each in status_writes(api) if "booking" in each] == [{"booking": "claimed"}]
        assert api.read(TICKET, ticket)["status"]["booking"] == "claimed"
        assert ready(api, ticket)[0] == "True"


async def test_an_object_that_changed_is_reconciled_again_before_a_claim(
    api: ModelApi, ticket: ObjectKey
) -> None:
    effects: list[int] = []
    struck = iter([True])

    async def change(call: Call) -> None:
        if call.subresource == "status" and next(struck, False):
            api.put(TICKET, ticket.name, spec={"seats": 9})

    async def book(play: TicketPlay) -> None:
        await claim(play)
        effects.append(play.object.spec.seats)

    api.before = change
    async with operator(api, playbook(book)):
        await asyncio.sleep(5)
        assert effects[0] == 9
        assert api.all(EVENT) == []


async def test_an_object_that_is_gone_is_not_claimed(api: ModelApi, ticket: ObjectKey) -> None:
    effects: list[int] = []

    async def delete(call: Call) -> None:
        if call.subresource == "status" and api.exists(TICKET, ticket):
            api.remove(TICKET, ticket)

    async def book(play: TicketPlay) -> None:
        await claim(play)
        effects.append(play.object.spec.seats)

    api.before = delete
    async with operator(api, playbook(book)):
        await asyncio.sleep(5)
        assert effects == []


async def test_a_record_that_is_refused_is_a_failure_of_the_task(api: ModelApi, ticket: ObjectKey) -> None:
    async def refuse(call: Call) -> None:
        if call.subresource == "status" and call.body["status"].get("booking"):
            raise Forbidden(403, "Forbidden", "tickets/status is not yours")

    rescued: list[str] = []

    async def book(play: TicketPlay) -> None:
        try:
            await claim(play)
        except TaskFailed as failure:
            rescued.append(failure.reason)
            assert not play.status.booking

    api.before = refuse
    async with operator(api, playbook(book)):
        assert set(rescued) == {"KubernetesRefused"}
        assert ready(api, ticket)[0] == "True"


@pytest.mark.parametrize("rescues", [False, True])
async def test_a_record_without_the_status_subresource_is_reported_on_the_object(
    api: ModelApi, ticket: ObjectKey, *, rescues: bool
) -> None:
    async def refuse(call: Call) -> None:
        if call.subresource == "status" and missing:
            raise NotFound(404, "NotFound", "the server could not find the requested resource")

    missing = True
    rescued: list[str] = []

    async def book(play: TicketPlay) -> None:
        try:
            await claim(play)
        except TaskFailed as failure:
            rescued.append(failure.reason)
            if not rescues:
                raise

    api.before = refuse
    async with operator(api, playbook(book)):
        await asyncio.sleep(100)
        assert set(rescued) == {"KubernetesRefused"}
        assert 2 < len(rescued) < 8, "retried every 30 s"
        notes = {each["reason"]: each["note"] for each in api.all(EVENT)}
        assert "has no status subresource" in notes["StatusNotWritten"]
        assert ("KubernetesRefused" in notes) is not rescues
        missing = False
        await asyncio.sleep(60)
        assert ready(api, ticket)[0] == "True"
        assert api.read(TICKET, ticket)["status"]["booking"]


async def test_a_field_that_the_server_drops_fails_the_record(
    api: ModelApi, ticket: ObjectKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with the CRD of an earlier release."""
    patch = api.server.patch

    def prune(*args: Any, **keywords: Any) -> Any:
        [resource, key, body] = args
        status = {name: value for name, value in body.get("status", {}).items() if name != "booking"}
        pruned = {**body, "status": status} if "status" in body else body
        return patch(resource, key, pruned, **keywords)

    effects: list[str] = []

    async def book(play: TicketPlay) -> None:
        await play.record(replace(play.status, booking="claimed", phase="Booking"))
        effects.append(play.status.booking)

    monkeypatch.setattr(api.server, "patch", prune)
    async with operator(api, playbook(book)):
        assert effects == []
        assert ready(api, ticket)[1:] == (
            "StatusNotStored",
            "The API server did not store status.booking. Apply the CRD of this operator's release, "
            "which declares the field.",
        )
        assert api.read(TICKET, ticket)["status"]["phase"] == "Booking"


async def test_tasks_at_the_same_time_record_without_losing_anything(
    api: ModelApi, ticket: ObjectKey
) -> None:
    async def book(play: TicketPlay) -> None:
        await play.record(replace(play.status, booking="claimed"))

    async def phase(play: TicketPlay) -> None:
        await play.record(replace(play.status, phase="Booking"))

    def together(*functions: Function) -> Playbook[TicketPlay]:
        return Playbook(Play, tasks=[Group("all", [named(each) for each in functions], parallel=True)])

    async with operator(api, together(book, phase)):
        status = api.read(TICKET, ticket)["status"]
        assert (status["booking"], status["phase"]) == ("claimed", "Booking")
        assert ready(api, ticket)[0] == "True"
        assert api.all(EVENT) == []


async def test_check_mode_records_nothing_and_keeps_the_status(api: ModelApi, ticket: ObjectKey) -> None:
    reported = await Hand("tickets", Settings(), api).check(Watch(TICKET, playbook(claim)), ticket)
    assert reported.status["booking"] == "claimed"
    assert api.writes == []


async def test_a_manual_play_records_too(api: ModelApi, ticket: ObjectKey) -> None:
    hand = Hand("tickets", Settings(leader_elect=True, pod_name="me"), api)
    played = await hand.play(Watch(TICKET, playbook(claim)), ticket)
    assert played.status["booking"] == "claimed"
    assert api.read(TICKET, ticket)["status"]["booking"] == "claimed"


async def test_a_play_without_an_engine_cannot_record() -> None:
    play: TicketPlay = Play(Ticket(metadata=ObjectMeta(name="t")))
    with pytest.raises(RuntimeError, match="was created without an engine"):
        await play.record(TicketStatus(booking="claimed"))


@pytest.mark.parametrize("records", [True, False])
async def test_a_lone_surrogate_in_the_status_becomes_a_question_mark(
    api: ModelApi, ticket: ObjectKey, records: bool
) -> None:
    async def book(play: TicketPlay) -> None:
        status = replace(play.status, booking="file-\ud800.txt")
        if records:
            await play.record(status)
        else:
            play.status = status

    async with operator(api, playbook(book)):
        assert api.read(TICKET, ticket)["status"]["booking"] == "file-?.txt"
        assert ready(api, ticket)[0] == "True"
