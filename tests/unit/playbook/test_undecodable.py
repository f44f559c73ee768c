"""Objects that do not fit the operator's view: reported, harmless to others, kept on deletion."""

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from pilothouse.controller.events import EVENT
from pilothouse.kube import Forbidden, ObjectKey, ObjectMeta, Resource
from pilothouse.playbook import Play, Playbook, Secondary, Watch, task
from pilothouse.testing import Call, ModelApi
from tests.unit.operators import operating
from tests.unit.playbook.airline import FINALIZER, Airline
from tests.unit.playbook.configured import ready
from tests.unit.playbook.conftest import Start
from tests.unit.tickets import TICKET

pytestmark = pytest.mark.usefixtures("virtual_time")

AUDITED = {
    "type": "Audited",
    "status": "True",
    "reason": "Ok",
    "message": "",
    "lastTransitionTime": "2026-01-01T00:00:00Z",
    "severity": "none",
}


def events(api: ModelApi) -> list[tuple[str, str]]:
    return [(each["regarding"]["name"], each["reason"]) for each in api.all(EVENT)]


async def test_an_object_that_becomes_undecodable_is_reported_and_not_reconciled(
    api: ModelApi, airline: Airline, ticket: ObjectKey, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    await start(resync=10)
    conditions = [AUDITED, *api.read(TICKET, ticket)["status"]["conditions"]]
    api.put(TICKET, ticket.name, status={"conditions": conditions, "unknown": {"kept": True}})
    api.put(TICKET, ticket.name, spec={"seats": "many"})
    api.put(TICKET, "other", spec={"seats": 1})
    await asyncio.sleep(60)
    status, reason, message = ready(api, ticket)
    assert (status, reason) == ("False", "Undecodable")
    assert "Expected `int`, got `str` - at `$.spec.seats`" in message
    stored = api.read(TICKET, ticket)["status"]
    assert stored["conditions"][0] == AUDITED, "others' conditions stay, with fields that no view names"
    assert stored["unknown"] == {"kept": True}
    assert events(api) == [("my-ticket", "Undecodable")]
    assert airline.effects == ["book", "book"], "the other ticket is booked, and this one left alone"
    [logged] = [each.getMessage() for each in caplog.records if "until it is corrected" in each.getMessage()]
    assert "until it is corrected: Expected `int`" in logged, "the object is named once"
    [event] = api.all(EVENT)
    assert "does not reconcile it: Expected `int`" in event["note"]
    api.calls.clear()
    await asyncio.sleep(600)
    assert api.calls == [], "it is said once"
    api.put(TICKET, ticket.name, spec={"seats": 3})
    await asyncio.sleep(1)
    assert airline.effects == ["book", "book", "change"]
    assert ready(api, ticket)[0] == "True"


async def test_stored_objects_that_a_new_release_cannot_decode_are_reported_at_its_start(
    api: ModelApi, ticket: ObjectKey, start: Start
) -> None:
    api.put(TICKET, ticket.name, spec={"seats": None})
    api.put(TICKET, ticket.name, status={"phase": 5})
    for _ in range(2):
        process = await start()
        await asyncio.sleep(10)
        assert ready(api, ticket)[1] == "Undecodable"
        process.cancel()
    assert len([call for call in api.writes if call.subresource == "status"]) == 1, "a restart writes nothing"


async def test_an_undecodable_deleted_object_keeps_its_finalizer_and_reports_what_to_do(
    api: ModelApi, airline: Airline, ticket: ObjectKey, start: Start
) -> None:
    await start()
    api.put(TICKET, ticket.name, spec={"seats": "many"})
    await asyncio.sleep(5)
    api.remove(TICKET, ticket)
    await asyncio.sleep(600)
    _, _, message = ready(api, ticket)
    assert "the cleanup cannot run. Correct the field, and the operator cleans up." in message
    assert f"remove its finalizer {FINALIZER}" in message
    assert airline.effects == ["book"]
    api.put(TICKET, ticket.name, spec={"seats": 2})
    await asyncio.sleep(5)
    assert airline.effects == ["book", "cancel"]
    assert not api.exists(TICKET, ticket)


async def test_an_undecodable_deleted_object_without_our_finalizer_is_not_reported(
    api: ModelApi, ticket: ObjectKey, start: Start
) -> None:
    api.put(TICKET, ticket.name, metadata={"finalizers": ["example.com/other"]}, spec={"seats": "many"})
    api.remove(TICKET, ticket)
    await start()
    assert api.calls == []


async def test_after_its_finalizer_was_removed_manually_a_new_object_is_reconciled(
    api: ModelApi, airline: Airline, ticket: ObjectKey, start: Start
) -> None:
    await start()
    api.put(TICKET, ticket.name, spec={"seats": "many"})
    await asyncio.sleep(5)
    api.put(TICKET, ticket.name, metadata={"finalizers": []})
    api.remove(TICKET, ticket)
    await asyncio.sleep(5)
    api.put(TICKET, ticket.name, spec={"seats": 1})
    await asyncio.sleep(5)
    assert ready(api, ticket)[0] == "True"
    assert airline.effects == ["book", "book"]


@pytest.mark.parametrize("conditions", ["none", {"a": 1}, ["x"]])
async def test_an_undecodable_status_is_reported_by_an_event(
    api: ModelApi, ticket: ObjectKey, start: Start, conditions: object
) -> None:
    api.put(TICKET, ticket.name, status={"conditions": conditions})
    await start()
    await asyncio.sleep(60)
    assert events(api) == [("my-ticket", "Undecodable")]
    assert api.read(TICKET, ticket)["status"]["conditions"] == conditions


async def test_a_status_that_must_not_be_written_is_reported_by_an_event(
    api: ModelApi, ticket: ObjectKey, start: Start
) -> None:
    async def refuse(call: Call) -> None:
        if call.subresource == "status":
            raise Forbidden(403, "Forbidden", "no")

    api.before = refuse
    api.put(TICKET, ticket.name, spec={"seats": "many"})
    await start()
    await asyncio.sleep(600)
    assert events(api) == [("my-ticket", "Undecodable")]
    assert len(api.calls) < 10


class ConfigMap(msgspec.Struct, frozen=True):
    metadata: ObjectMeta
    data: Mapping[str, int] = {}


CONFIG_MAP = Resource("", "v1", "ConfigMap", "configmaps", ConfigMap)


@pytest.mark.parametrize("read", ["get", "owned"])
async def test_a_secondary_object_that_cannot_be_decoded_fails_the_task_that_reads_it(
    api: ModelApi, ticket: ObjectKey, read: str
) -> None:
    @task("it is read")
    async def reads(play: Play[Any, Any]) -> None:
        found = play.get(CONFIG_MAP, "web") if read == "get" else play.owned(CONFIG_MAP)
        play.ready_message = f"There is {found}."

    uid = api.read(TICKET, ticket)["metadata"]["uid"]
    owner = {
        "apiVersion": TICKET.api_version,
        "kind": "Ticket",
        "name": ticket.name,
        "uid": uid,
        "controller": True,
    }
    api.put(CONFIG_MAP, "web", metadata={"ownerReferences": [owner]}, data={"a": 1})
    async with operating(api, Watch(TICKET, Playbook(Play, tasks=[reads]), owns=[CONFIG_MAP])):
        assert ready(api, ticket)[0] == "True"
        api.put(CONFIG_MAP, "web", data={"a": "one"})
        await asyncio.sleep(1)
        status, reason, message = ready(api, ticket)
        assert (status, reason) == ("False", "Undecodable")
        assert "ConfigMap default/web" in message
        assert ("web", "Undecodable") in events(api)
        api.put(CONFIG_MAP, "web", data={"a": 2})
        await asyncio.sleep(1)
        assert ready(api, ticket)[0] == "True"


def fails(*_: Any) -> Any:
    raise KeyError("it")


async def test_a_mapper_failure_is_reported_by_an_event_and_the_owner_is_reconciled(
    api: ModelApi, ticket: ObjectKey, caplog: pytest.LogCaptureFixture
) -> None:
    played: list[str] = []

    @task("it is counted")
    async def count(play: Play[Any, Any]) -> None:
        played.append(play.object.metadata.name)

    watch = Watch(
        TICKET, Playbook(Play, tasks=[count]), watches=[Secondary(CONFIG_MAP, mapper=fails, predicate=fails)]
    )
    async with operating(api, watch):
        api.put(CONFIG_MAP, "web", data={"a": 1})
        await asyncio.sleep(1)
        assert events(api) == [("web", "UnexpectedError")]
        assert len([each for each in caplog.records if each.exc_info]) == 2, "each traceback once"


async def test_a_failing_predicate_causes_a_reconcile_and_a_failing_transform_is_reported(
    api: ModelApi, ticket: ObjectKey, caplog: pytest.LogCaptureFixture
) -> None:
    async with operating(api, Watch(TICKET, Playbook(Play, tasks=[]), predicate=fails)):
        api.put(TICKET, ticket.name, spec={"seats": 7})
        await asyncio.sleep(1)
        assert api.read(TICKET, ticket)["status"]["observedGeneration"] == 2
    async with operating(api, Watch(TICKET, Playbook(Play, tasks=[]), transform=fails)):
        assert ready(api, ticket)[1] == "Undecodable"
        assert "the transform 'fails' of tickets.tests.dev failed with KeyError" in ready(api, ticket)[2]
    async with operating(api, Watch(TICKET, Playbook(Play, tasks=[]), transform=lambda obj: None)):
        assert ready(api, ticket)[:2] == ("False", "Undecodable")
        assert "the transform '<lambda>' of tickets.tests.dev returned None" in ready(api, ticket)[2]
        assert not [each for each in caplog.records if each.levelno > logging.ERROR]


async def test_an_object_that_a_transform_loses_is_not_taken_for_missing(
    api: ModelApi, ticket: ObjectKey
) -> None:
    async def restore(play: Play[Any, Any]) -> None:
        if play.get(CONFIG_MAP, "data") is None:
            await play.apply(CONFIG_MAP, {"metadata": {"name": "data"}, "data": {"v": 2}}, adopt=True)

    key = api.put(CONFIG_MAP, "data", data={"v": 1})
    secondary = Secondary(CONFIG_MAP, transform=lambda obj: None)
    book: Playbook[Any] = Playbook(Play, tasks=[task("restore")(restore)])
    async with operating(api, Watch(TICKET, book, watches=[secondary])):
        await asyncio.sleep(5)
        assert api.read(CONFIG_MAP, key)["data"] == {"v": 1}
        assert ready(api, ticket)[:2] == ("False", "Undecodable")
        assert "the transform '<lambda>' of configmaps returned None" in ready(api, ticket)[2]


@pytest.mark.parametrize("module", ["apply", "read"])
async def test_a_module_that_reads_an_undecodable_object_fails_with_that_reason(
    api: ModelApi, ticket: ObjectKey, module: str
) -> None:
    class Counts(msgspec.Struct, frozen=True):
        metadata: ObjectMeta
        data: dict[str, int] = {}

    counts: Resource[Counts] = Resource("", "v1", "ConfigMap", "configmaps", Counts)

    async def use(play: Play[Any, Any]) -> None:
        if module == "apply":
            await play.apply(counts, {"metadata": {"name": "data"}, "data": {"v": "many"}})
        else:
            await play.read(counts, "data")

    if module == "read":
        api.put(counts, "data", data={"v": "many"})
    book: Playbook[Any] = Playbook(Play, tasks=[task("use")(use)])
    async with operating(api, Watch(TICKET, book, owns=[counts])):
        await asyncio.sleep(5)
        status, reason, message = ready(api, ticket)
        assert (status, reason) == ("False", "Undecodable")
        assert message.startswith(
            "The task 'use' failed: configmaps default/data cannot be read: Expected `int`, got `str`"
        )
