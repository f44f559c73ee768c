"""An applied object that is being deleted does not fulfil its manifest: the play waits until it is gone."""

import asyncio
from typing import Any

import pytest

from pilothouse.cli.by_hand import Hand
from pilothouse.kube import ObjectKey, PatchType
from pilothouse.playbook import Playbook, State, Watch
from pilothouse.process import Settings
from pilothouse.testing import ModelApi
from pilothouse.views import JOB
from tests.unit.playbook.configured import (
    CONFIG_MAP,
    OWNS,
    WEB,
    TicketPlay,
    named,
    operator,
    owned_by,
    playbook,
    ready,
)
from tests.unit.tickets import TICKET

pytestmark = pytest.mark.usefixtures("virtual_time")

PROTECTION = "tests.dev/protection"
FINALIZER = "tests.dev/cleanup"


async def apply(play: TicketPlay) -> None:
    await play.apply(CONFIG_MAP, {"metadata": {"name": "web"}, "data": {"a": "1"}})


def protected(api: ModelApi, ticket: ObjectKey) -> ObjectKey:
    """Stores a ConfigMap of the ticket that another client keeps with a finalizer."""
    metadata: dict[str, Any] = {**owned_by(api, ticket), "finalizers": [PROTECTION]}
    return api.put(CONFIG_MAP, "web", metadata=metadata, data={"a": "1"})


async def test_apply_waits_until_an_object_that_is_being_deleted_is_gone(
    api: ModelApi, ticket: ObjectKey
) -> None:
    protected(api, ticket)
    later: list[str] = []

    async def follow(play: TicketPlay) -> None:
        later.append(play.object.metadata.name)

    async with operator(api, playbook(apply, follow)):
        await asyncio.sleep(5)
        assert ready(api, ticket)[0] == "True"
        later.clear()
        api.remove(CONFIG_MAP, WEB)
        await asyncio.sleep(7200)
        message = f"ConfigMap web is being deleted; its finalizers are: {PROTECTION}."
        assert ready(api, ticket) == ("False", "Terminating", message)
        assert later == []
        uid = api.read(CONFIG_MAP, WEB)["metadata"]["uid"]
        freed: dict[str, Any] = {"metadata": {"finalizers": None}}
        await api.another_client("user").patch(CONFIG_MAP, WEB, freed, type=PatchType.MERGE)
        await asyncio.sleep(5)
        assert ready(api, ticket)[0] == "True"
        assert api.read(CONFIG_MAP, WEB)["metadata"]["uid"] != uid, (
            "the change is noticed without the fallback"
        )


async def test_check_mode_does_not_wait(api: ModelApi, ticket: ObjectKey) -> None:
    protected(api, ticket)
    api.remove(CONFIG_MAP, WEB)
    watch = Watch(TICKET, playbook(apply), owns=OWNS)
    recap = (await Hand("tickets", Settings(), api).check(watch, ticket)).recap
    assert [each.state for each in recap.results] == [State.CHANGED], "it does not wait"


async def test_a_cleanup_does_not_wait(api: ModelApi) -> None:
    deleted = api.put(TICKET, "t", metadata={"finalizers": [FINALIZER]})
    protected(api, deleted)
    api.remove(CONFIG_MAP, WEB)
    api.remove(TICKET, deleted)
    book = Playbook(TicketPlay, tasks=[], cleanup=[named(apply)], finalizer=FINALIZER)
    async with operator(api, book):
        await asyncio.sleep(5)
        assert not api.exists(TICKET, deleted)


async def test_a_job_that_has_finished_has_run_although_it_is_being_deleted(
    api: ModelApi, ticket: ObjectKey
) -> None:
    async def run(play: TicketPlay) -> None:
        await play.run_job({"spec": {}})

    async with operator(api, playbook(run)):
        await asyncio.sleep(1)
        [job] = api.all(JOB)
        name = job["metadata"]["name"]
        api.put(JOB, name, metadata={"finalizers": ["foregroundDeletion"]})
        api.remove(JOB, ObjectKey("default", name))
        await asyncio.sleep(1)
        assert ready(api, ticket)[1] == "Terminating"
        api.put(JOB, name, status={"conditions": [{"type": "Complete", "status": "True"}]})
        await asyncio.sleep(1)
        assert ready(api, ticket)[0] == "True"
