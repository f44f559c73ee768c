"""A cleanup in a namespace that is being deleted: no object can be created there, and the deletion ends."""

import asyncio
from typing import Any

import pytest

from pilothouse.kube import ObjectKey, PartialObjectMetadata, Resource
from pilothouse.playbook import Playbook, TaskFailed
from pilothouse.testing import Call, ModelApi
from pilothouse.testing.refusals import check_terminating
from tests.unit.playbook.configured import CONFIG_MAP, POD, TicketPlay, named, operator, playbook, ready
from tests.unit.tickets import TICKET

pytestmark = pytest.mark.usefixtures("virtual_time")

NAMESPACE: Resource[PartialObjectMetadata] = Resource(
    "", "v1", "Namespace", "namespaces", PartialObjectMetadata, namespaced=False
)
FINALIZER = "tests.dev/cleanup"


def terminate(api: ModelApi, namespace: str) -> None:
    """Deletes a namespace, which exists until its objects are gone."""
    api.remove(NAMESPACE, api.put(NAMESPACE, namespace, metadata={"finalizers": ["kubernetes"]}))


def deleted_ticket(api: ModelApi) -> ObjectKey:
    key = api.put(TICKET, "t", metadata={"finalizers": [FINALIZER]})
    api.remove(TICKET, key)
    return key


async def apply(play: TicketPlay) -> None:
    await play.apply(CONFIG_MAP, {"data": {"a": "1"}})


async def create(play: TicketPlay) -> None:
    await play.create(CONFIG_MAP, {"data": {"a": "1"}})


async def run_job(play: TicketPlay) -> None:
    await play.run_job({"spec": {}})


async def in_a_group(play: TicketPlay) -> None:
    async with asyncio.TaskGroup() as group:
        for name in "ab":
            group.create_task(play.apply(CONFIG_MAP, {"metadata": {"name": name}}))


@pytest.mark.parametrize("creates", [apply, create, run_job, in_a_group])
async def test_the_rest_of_the_cleanup_runs_and_the_deletion_ends(
    api: ModelApi, creates: Any, caplog: pytest.LogCaptureFixture
) -> None:
    released: list[str] = []

    async def release(play: TicketPlay) -> None:
        released.append(play.object.metadata.name)

    terminate(api, "default")
    key = deleted_ticket(api)
    book = Playbook(TicketPlay, tasks=[], cleanup=[named(creates), named(release)], finalizer=FINALIZER)
    async with operator(api, book):
        await asyncio.sleep(5)
        assert not api.exists(TICKET, key)
        assert released == ["t"]
        assert f"Skipped the rest of a cleanup task: The task '{creates.__name__}' failed: " in caplog.text
        assert "cannot be created, because the namespace default is being deleted." in caplog.text
        assert not [each for each in caplog.records if each.exc_info], "no traceback"


async def test_an_eviction_is_refused_like_a_new_object(
    api: ModelApi, caplog: pytest.LogCaptureFixture
) -> None:
    async def evict(play: TicketPlay) -> None:
        await play.evict(POD, "web", owned=False)

    async def before(call: Call) -> None:
        if call.subresource == "eviction":
            check_terminating(
                POD, "web", "default", {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}
            )

    api.put(POD, "web")
    api.before = before
    key = deleted_ticket(api)
    book = Playbook(TicketPlay, tasks=[], cleanup=[named(evict)], finalizer=FINALIZER)
    async with operator(api, book, owns=[POD]):
        await asyncio.sleep(5)
        assert not api.exists(TICKET, key)
        assert "the eviction of Pod default/web cannot be created, because the namespace" in caplog.text


async def test_other_failures_of_the_cleanup_still_keep_the_object(api: ModelApi) -> None:
    down = True

    async def release(play: TicketPlay) -> None:
        if down:
            raise TaskFailed("Down", "It is down.")

    terminate(api, "default")
    key = deleted_ticket(api)
    book = Playbook(TicketPlay, tasks=[], cleanup=[named(apply), named(release)], finalizer=FINALIZER)
    async with operator(api, book):
        await asyncio.sleep(5)
        assert ready(api, key) == ("False", "Down", "It is down.")
        down = False
        await asyncio.sleep(60)
        assert not api.exists(TICKET, key)


async def test_an_object_in_another_namespace_is_retried(api: ModelApi) -> None:
    async def elsewhere(play: TicketPlay) -> None:
        await play.apply(CONFIG_MAP, {"metadata": {"namespace": "other"}}, owned=False)

    terminate(api, "other")
    key = deleted_ticket(api)
    book = Playbook(TicketPlay, tasks=[], cleanup=[named(elsewhere)], finalizer=FINALIZER)
    async with operator(api, book):
        await asyncio.sleep(5)
        assert ready(api, key) == (
            "False",
            "NamespaceTerminating",
            "The task 'elsewhere' failed: ConfigMap other/t cannot be created, because the namespace "
            "other is being deleted.",
        )
        api.server.collection(NAMESPACE).objects.clear()
        await asyncio.sleep(60)
        assert not api.exists(TICKET, key)


async def test_an_object_that_is_not_deleted_shows_the_failure(api: ModelApi, ticket: ObjectKey) -> None:
    terminate(api, "default")
    async with operator(api, playbook(apply)):
        await asyncio.sleep(5)
        assert ready(api, ticket)[1:] == (
            "NamespaceTerminating",
            f"The task 'apply' failed: ConfigMap {ticket} cannot be created, because the namespace "
            "default is being deleted.",
        )
