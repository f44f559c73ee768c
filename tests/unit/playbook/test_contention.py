"""Another client keeps changing a field that the operator sets: the fight is reported and slowed down."""

import asyncio
import logging
import time

import pytest

from pilothouse.controller.events import EVENT
from pilothouse.kube import ObjectKey, PatchType
from pilothouse.playbook.contention import LONGEST_PAUSE, pause_until
from pilothouse.telemetry import metrics
from pilothouse.testing import Json, ModelApi
from tests.unit.playbook.configured import (
    CONFIG_MAP,
    DEPLOYMENT,
    Function,
    TicketPlay,
    operator,
    owned_by,
    playbook,
    ready,
    requests,
)
from tests.unit.tickets import TICKET

pytestmark = pytest.mark.usefixtures("virtual_time")

RIVAL = "rival"


async def seats_are_noted(play: TicketPlay) -> None:
    await play.apply(CONFIG_MAP, {"data": {"seats": str(play.object.spec.seats)}})


async def rewrite(api: ModelApi, key: ObjectKey, value: str) -> None:
    """The other client writes the field that the operator sets."""
    body = {"data": {"seats": value}}
    await api.patch(CONFIG_MAP, key, body, type=PatchType.MERGE, field_manager=RIVAL)


def applies(api: ModelApi) -> int:
    return sum(call.verb == "patch" and "kind" in call.body for call in requests(api, CONFIG_MAP))


def reports(api: ModelApi) -> list[Json]:
    return [each for each in api.all(EVENT) if each["reason"] == "FieldContended"]


async def test_a_user_is_corrected_immediately_and_not_reported(api: ModelApi, ticket: ObjectKey) -> None:
    async with operator(api, playbook(seats_are_noted)):
        for value in ("7", "8"):
            await rewrite(api, ticket, value)
            await asyncio.sleep(0.5)
            assert api.read(CONFIG_MAP, ticket)["data"] == {"seats": "2"}
        assert ready(api, ticket)[0] == "True"
        assert reports(api) == []


async def test_a_rival_is_named_with_its_field_and_the_fight_slows_down(
    api: ModelApi, ticket: ObjectKey, caplog: pytest.LogCaptureFixture
) -> None:
    counted = metrics.CORRECTIONS.labels("configmaps").value
    async with operator(api, playbook(seats_are_noted)):
        for number in range(1000):
            await rewrite(api, ticket, f"other {number}")
            await asyncio.sleep(1)
        status, reason, message = ready(api, ticket)
        assert (status, reason) == ("False", "FieldContended")
        assert "field manager rival keeps changing data.seats of ConfigMap default/my-ticket" in message
        assert 8 <= applies(api) <= 20, "a correction at 1, 2, 4 ... 300 s"
        assert metrics.CORRECTIONS.labels("configmaps").value - counted == applies(api) - 1
        notes = {each["note"] for each in reports(api)}
        assert notes == {message}
        logged = [each for each in caplog.records if each.getMessage() == message]
        assert 2 <= len(logged) <= 5, "one line in 300 s"
        assert {each.levelno for each in logged} == {logging.WARNING}
        assert len([c for c in requests(api, TICKET) if c.subresource == "status"]) <= 4, "Ready is stable"


async def test_once_the_rival_is_gone_the_object_is_corrected_and_ready_again(
    api: ModelApi, ticket: ObjectKey
) -> None:
    async with operator(api, playbook(seats_are_noted)):
        for number in range(100):
            await rewrite(api, ticket, f"other {number}")
            await asyncio.sleep(1)
        await asyncio.sleep(LONGEST_PAUSE)
        assert api.read(CONFIG_MAP, ticket)["data"] == {"seats": "2"}
        await asyncio.sleep(3 * LONGEST_PAUSE)
        assert ready(api, ticket)[0] == "True"
        # A later change is treated as that of a user again.
        await rewrite(api, ticket, "7")
        await asyncio.sleep(0.5)
        assert api.read(CONFIG_MAP, ticket)["data"] == {"seats": "2"}
        assert ready(api, ticket)[0] == "True"


async def test_a_changed_spec_is_applied_in_the_middle_of_a_fight(api: ModelApi, ticket: ObjectKey) -> None:
    async with operator(api, playbook(seats_are_noted)):
        for number in range(100):
            await rewrite(api, ticket, f"other {number}")
            await asyncio.sleep(1)
        api.put(TICKET, ticket.name, spec={"seats": 5})
        await asyncio.sleep(0.5)
        assert api.read(CONFIG_MAP, ticket)["data"] == {"seats": "5"}


async def test_other_tasks_and_the_deletion_do_not_wait_for_the_fight(
    api: ModelApi, ticket: ObjectKey
) -> None:
    async def deploy(play: TicketPlay) -> None:
        await play.apply(DEPLOYMENT, {"spec": {"replicas": play.object.spec.seats}})

    async with operator(api, playbook(seats_are_noted, deploy)):
        for number in range(100):
            await rewrite(api, ticket, f"other {number}")
            await asyncio.sleep(1)
        api.put(DEPLOYMENT, ticket.name, spec={"replicas": 9})
        await asyncio.sleep(0.5)
        assert api.read(DEPLOYMENT, ticket)["spec"]["replicas"] == 2
        api.remove(TICKET, ticket)
        await asyncio.sleep(1)
        assert not api.exists(TICKET, ticket)


async def test_an_object_that_another_client_keeps_deleting_is_created_with_pauses(
    api: ModelApi, ticket: ObjectKey
) -> None:
    async with operator(api, playbook(seats_are_noted)):
        for _ in range(300):
            if api.exists(CONFIG_MAP, ticket):
                api.remove(CONFIG_MAP, ticket)
            await asyncio.sleep(1)
        assert applies(api) <= 12
        status, reason, message = ready(api, ticket)
        assert (status, reason) == ("False", "FieldContended")
        assert "keeps deleting ConfigMap default/my-ticket" in message
        await asyncio.sleep(2 * LONGEST_PAUSE)
        assert api.exists(CONFIG_MAP, ticket)
        await asyncio.sleep(2 * LONGEST_PAUSE)
        assert ready(api, ticket)[0] == "True"


async def test_what_the_operator_itself_deletes_is_created_again_immediately(
    api: ModelApi, ticket: ObjectKey
) -> None:
    made = 0

    async def restart(play: TicketPlay) -> None:
        nonlocal made
        if play.get(CONFIG_MAP, ticket.name) is not None and made < 20:
            await play.delete(CONFIG_MAP, ticket.name)
            play.requeue_after(0.5)
        else:
            made += 1
            await play.apply(CONFIG_MAP, {"data": {"a": "1"}})
            play.requeue_after(0.5)

    async with operator(api, playbook(restart)):
        await asyncio.sleep(30)
        assert made >= 20
        assert ready(api, ticket)[0] == "True"
        assert reports(api) == []


async def test_a_rival_that_scales_the_same_deployment_is_reported_and_damped(
    api: ModelApi, ticket: ObjectKey
) -> None:
    async def scale(play: TicketPlay) -> None:
        await play.scale(DEPLOYMENT, "web", 2)

    web = ObjectKey("default", "web")
    api.put(DEPLOYMENT, "web", spec={"replicas": 1}, metadata=owned_by(api, ticket))
    async with operator(api, playbook(scale)):
        for number in range(300):
            api.put(DEPLOYMENT, "web", spec={"replicas": 5 + number})
            await asyncio.sleep(1)
        scaled = [call for call in requests(api, DEPLOYMENT) if call.verb == "patch"]
        assert len(scaled) <= 15
        status, reason, message = ready(api, ticket)
        assert (status, reason) == ("False", "FieldContended")
        assert "keeps changing spec.replicas of Deployment default/web" in message
        assert reports(api)
        await asyncio.sleep(4 * LONGEST_PAUSE)
        assert api.read(DEPLOYMENT, web)["spec"]["replicas"] == 2
        assert ready(api, ticket)[0] == "True"


async def apply_one(play: TicketPlay) -> None:
    await play.apply(CONFIG_MAP, {"data": {"seats": "1"}})


async def patch_two(play: TicketPlay) -> None:
    if play.get(CONFIG_MAP, play.object.metadata.name) is not None:
        await play.patch(CONFIG_MAP, play.object.metadata.name, {"data": {"seats": "2"}})


async def patch_three(play: TicketPlay) -> None:
    if play.get(CONFIG_MAP, play.object.metadata.name) is not None:
        await play.patch(CONFIG_MAP, play.object.metadata.name, {"data": {"seats": "3"}})


async def apply_and_patch(play: TicketPlay) -> None:
    await apply_one(play)
    await patch_two(play)


@pytest.mark.parametrize(
    ("tasks", "sentences"),
    [
        (
            [apply_one, patch_two],
            [
                "The task 'patch_two' of this operator keeps changing data.seats of ConfigMap "
                "default/my-ticket, which the task 'apply_one' sets.",
                "The task 'apply_one' of this operator keeps changing data.seats of ConfigMap "
                "default/my-ticket, which the task 'patch_two' sets.",
            ],
        ),
        (
            [apply_one, patch_two, patch_three],
            [
                "The task 'patch_three' and the task 'patch_two' of this operator",
                "the task 'apply_one' sets.",
            ],
        ),
        (
            [apply_and_patch],
            [
                "Another task or watch of this operator, or a second installation of it, keeps changing "
                "data.seats of ConfigMap default/my-ticket, which the task 'apply_and_patch' sets."
            ],
        ),
    ],
)
async def test_another_task_of_the_operator_is_named(
    api: ModelApi, ticket: ObjectKey, tasks: list[Function], sentences: list[str]
) -> None:
    async with operator(api, playbook(*tasks)):
        await asyncio.sleep(600)
        notes = " ".join(each["note"] for each in reports(api))
    assert all(each in notes for each in sentences), notes
    assert "client" not in notes
    assert "field manager" not in notes


async def test_a_pause_that_is_shorter_than_the_clock_can_wait_is_rounded_up() -> None:
    loop = asyncio.get_running_loop()
    await asyncio.sleep(1000)
    ends = loop.time() + 9e-13
    pause = pause_until(ends)
    assert pause > time.get_clock_info("monotonic").resolution
    await asyncio.sleep(pause)
    assert pause_until(ends) == 0.0
