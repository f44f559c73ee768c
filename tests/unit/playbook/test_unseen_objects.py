"""Objects that exist although the stores do not show them: undecodable, or excluded by the watch."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from pilothouse.kube import Forbidden, ObjectKey, ObjectMeta, Resource
from pilothouse.playbook import Play, Playbook, Secondary, TaskFailed, Watch, task
from pilothouse.playbook.ownership import OWNER_UID
from pilothouse.testing import Call, ModelApi
from tests.unit.operators import operating
from tests.unit.playbook.configured import (
    CONFIG_MAP,
    OWNS,
    SECRET,
    TicketPlay,
    operator,
    owned_by,
    playbook,
    ready,
)
from tests.unit.tickets import TICKET

pytestmark = pytest.mark.usefixtures("virtual_time")


class Sized(msgspec.Struct, frozen=True):
    metadata: ObjectMeta
    size: int = 0


CLAIM: Resource[Sized] = Resource("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", Sized)
DEPLOYMENT: Resource[Sized] = Resource("apps", "v1", "Deployment", "deployments", Sized)
POD: Resource[Sized] = Resource("", "v1", "Pod", "pods", Sized)
DATA = ObjectKey("default", "data")
WEB = ObjectKey("default", "web")


def retained_by(api: ModelApi, owner: ObjectKey) -> dict[str, Any]:
    """Returns the metadata of an object that belongs to another one and outlives it."""
    return {"annotations": {OWNER_UID: api.read(TICKET, owner)["metadata"]["uid"]}}


@pytest.mark.parametrize("metadata", [owned_by, retained_by])
@pytest.mark.parametrize("later", [False, True])
async def test_a_cleanup_deletes_an_object_that_does_not_match_the_view(
    api: ModelApi, ticket: ObjectKey, metadata: Callable[[ModelApi, ObjectKey], Any], *, later: bool
) -> None:
    api.put(CLAIM, "data", metadata=metadata(api, ticket), size=3 if later else "ten")
    gone: list[bool] = []

    @task("the claim is deleted")
    async def clean_up(play: TicketPlay) -> None:
        gone.append(await play.delete(CLAIM, "data"))
        play.wait_for("the claim is deleted", gone[-1])

    book = Playbook(Play, tasks=(), cleanup=[clean_up], finalizer="tests.dev/claim")
    async with operator(api, book, owns=[CLAIM]):
        if later:
            api.put(CLAIM, "data", size="ten")
            await asyncio.sleep(1)
        api.remove(TICKET, ticket)
        await asyncio.sleep(5)
    assert not api.exists(CLAIM, DATA)
    assert not api.exists(TICKET, ticket), "the deletion of the claim causes the next reconcile"
    assert gone == [False, True]


async def test_an_undecodable_object_with_a_finalizer_is_not_gone(api: ModelApi, ticket: ObjectKey) -> None:
    metadata = {**owned_by(api, ticket), "finalizers": ["tests.dev/other"]}
    api.put(CLAIM, "data", metadata=metadata, size="ten")
    gone: list[bool] = []

    async def delete(play: TicketPlay) -> None:
        gone.append(await play.delete(CLAIM, "data"))

    async with operator(api, playbook(delete), owns=[CLAIM]):
        await asyncio.sleep(5)
        assert gone == [False, False]


async def test_an_undecodable_object_of_another_owner_is_not_deleted(
    api: ModelApi, ticket: ObjectKey
) -> None:
    api.put(CLAIM, "data", size="ten")

    async def delete(play: TicketPlay) -> None:
        await play.delete(CLAIM, "data")

    async with operator(api, playbook(delete), owns=[CLAIM]):
        await asyncio.sleep(5)
    assert ready(api, ticket)[1] == "NotOwned"
    assert api.exists(CLAIM, DATA)


@pytest.mark.parametrize("metadata", [owned_by, retained_by])
async def test_an_undecodable_pod_is_evicted(
    api: ModelApi, ticket: ObjectKey, metadata: Callable[[ModelApi, ObjectKey], Any]
) -> None:
    api.put(POD, "web", metadata=metadata(api, ticket), size="ten")
    gone: list[bool] = []

    async def evict(play: TicketPlay) -> None:
        gone.append(await play.evict(POD, "web"))

    async with operator(api, playbook(evict), owns=[POD]):
        await asyncio.sleep(5)
    assert not api.exists(POD, WEB)
    assert gone[0] is False


async def test_an_undecodable_deployment_is_scaled(api: ModelApi, ticket: ObjectKey) -> None:
    api.put(DEPLOYMENT, "web", metadata=retained_by(api, ticket), size="ten", spec={"replicas": 1})

    async def scale(play: TicketPlay) -> None:
        await play.scale(DEPLOYMENT, "web", 3)

    async with operator(api, playbook(scale), owns=[DEPLOYMENT]):
        await asyncio.sleep(5)
    assert api.read(DEPLOYMENT, WEB)["spec"]["replicas"] == 3


async def owned(play: TicketPlay) -> None:
    play.owned(CLAIM)


async def listed(play: TicketPlay) -> None:
    play.list(CLAIM, "size", "3")


async def listed_by_owner(play: TicketPlay) -> None:
    play.list(CLAIM, "owner", play.object.metadata.uid)


async def patched(play: TicketPlay) -> None:
    await play.patch(CLAIM, "data", {"spec": {"a": 1}})


@pytest.mark.parametrize("module", [owned, listed, listed_by_owner, patched])
@pytest.mark.parametrize("metadata", [owned_by, retained_by])
@pytest.mark.parametrize("later", [False, True])
async def test_a_module_that_returns_objects_fails_for_an_undecodable_one(
    api: ModelApi,
    ticket: ObjectKey,
    module: Callable[[TicketPlay], Awaitable[None]],
    metadata: Callable[[ModelApi, ObjectKey], Any],
    *,
    later: bool,
) -> None:
    api.put(CLAIM, "data", metadata=metadata(api, ticket), size=3 if later else "ten")
    indexed = Secondary(CLAIM, indexes={"size": lambda claim: (str(claim.size),)})
    async with operator(api, playbook(module), owns=(), watches=[indexed]):
        api.put(CLAIM, "data", size="eleven")
        await asyncio.sleep(5)
        status, reason, message = ready(api, ticket)
        assert (status, reason) == ("False", "Undecodable")
        assert "PersistentVolumeClaim default/data" in message
        api.put(CLAIM, "data", size=3)
        await asyncio.sleep(5)
        assert ready(api, ticket)[0] == "True"


async def test_an_undecodable_object_of_others_does_not_affect_the_owned_ones(
    api: ModelApi, ticket: ObjectKey
) -> None:
    api.put(CLAIM, "data", size="ten")
    async with operator(api, playbook(owned, listed_by_owner), owns=[CLAIM]):
        await asyncio.sleep(5)
    assert ready(api, ticket)[0] == "True"


async def test_an_apply_reads_an_object_that_became_undecodable(api: ModelApi, ticket: ObjectKey) -> None:
    async def apply(play: TicketPlay) -> None:
        await play.apply(CLAIM, {"metadata": {"name": "data"}, "size": 3})

    async with operator(api, playbook(apply), owns=[CLAIM]):
        await asyncio.sleep(5)
        api.put(CLAIM, "data", size="ten")
        await asyncio.sleep(60)
        assert api.read(CLAIM, DATA)["size"] == 3, "the change is corrected"


# Objects that the watch excludes.


@asynccontextmanager
async def selective(
    api: ModelApi, book: Playbook[Any], watches: Sequence[Secondary], **settings: Any
) -> AsyncIterator[None]:
    """Runs an operator's process within the block."""
    async with operating(api, Watch(TICKET, book, resync=0, watches=watches), **settings):
        await asyncio.sleep(4)
        yield


SELECTIVE = (Secondary(CONFIG_MAP, selector="app=web"), Secondary(POD, field_selector="spec.nodeName=n1"))


@pytest.mark.parametrize("finalizers", [[], ["tests.dev/other"]])
async def test_an_object_outside_the_selector_is_deleted_before_it_is_gone(
    api: ModelApi, ticket: ObjectKey, finalizers: list[str]
) -> None:
    api.put(CONFIG_MAP, "data", metadata={**owned_by(api, ticket), "finalizers": finalizers})
    gone: list[bool] = []

    async def delete(play: TicketPlay) -> None:
        gone.append(await play.delete(CONFIG_MAP, "data"))

    async with selective(api, playbook(delete), SELECTIVE):
        assert gone[0] is not bool(finalizers)
        assert api.exists(CONFIG_MAP, DATA) is bool(finalizers)
        if finalizers:
            assert api.read(CONFIG_MAP, DATA)["metadata"]["deletionTimestamp"]


async def test_an_object_outside_the_watched_namespaces_is_deleted_before_it_is_gone(
    api: ModelApi, ticket: ObjectKey
) -> None:
    api.put(CONFIG_MAP, "far", namespace="other", metadata=retained_by(api, ticket))
    gone: list[bool] = []

    async def delete(play: TicketPlay) -> None:
        gone.append(await play.delete(CONFIG_MAP, "far", namespace="other"))

    async with selective(api, playbook(delete), [Secondary(CONFIG_MAP)], watch_namespaces=("default",)):
        assert gone[0] is True
        assert not api.exists(CONFIG_MAP, ObjectKey("other", "far"))


async def test_an_object_that_may_not_be_read_is_not_gone(api: ModelApi, ticket: ObjectKey) -> None:
    api.put(CONFIG_MAP, "far", namespace="other", metadata=retained_by(api, ticket))

    async def refuse(call: Call) -> None:
        if call.resource == str(CONFIG_MAP) and call.verb == "get":
            raise Forbidden(403, "Forbidden", "not in this namespace")

    async def delete(play: TicketPlay) -> None:
        await play.delete(CONFIG_MAP, "far", namespace="other")

    api.before = refuse
    async with selective(api, playbook(delete), [Secondary(CONFIG_MAP)], watch_namespaces=("default",)):
        assert ready(api, ticket)[1] == "KubernetesRefused"


async def test_an_object_of_others_outside_the_selector_is_not_deleted(
    api: ModelApi, ticket: ObjectKey
) -> None:
    api.put(CONFIG_MAP, "data")

    async def delete(play: TicketPlay) -> None:
        await play.delete(CONFIG_MAP, "data")

    async with selective(api, playbook(delete), SELECTIVE):
        assert ready(api, ticket)[1] == "NotOwned"
        assert api.exists(CONFIG_MAP, DATA)


async def test_a_pod_outside_the_field_selector_is_evicted(api: ModelApi, ticket: ObjectKey) -> None:
    api.put(POD, "web", metadata=owned_by(api, ticket))
    gone: list[bool] = []

    async def evict(play: TicketPlay) -> None:
        gone.append(await play.evict(POD, "web"))

    async with selective(api, playbook(evict), SELECTIVE):
        assert gone[0] is True
        assert not api.exists(POD, WEB)


async def test_a_deployment_outside_the_selector_is_scaled(api: ModelApi, ticket: ObjectKey) -> None:
    api.put(DEPLOYMENT, "web", metadata=owned_by(api, ticket), spec={"replicas": 1})

    async def scale(play: TicketPlay) -> None:
        await play.scale(DEPLOYMENT, "web", 3)

    async with selective(api, playbook(scale), [Secondary(DEPLOYMENT, selector="app=web")]):
        assert api.read(DEPLOYMENT, WEB)["spec"]["replicas"] == 3


async def test_a_patch_outside_the_selector_is_refused(api: ModelApi, ticket: ObjectKey) -> None:
    api.put(CONFIG_MAP, "data", metadata=owned_by(api, ticket))
    failures: list[str] = []

    async def patch(play: TicketPlay) -> None:
        for name in ("data", "missing"):
            try:
                await play.patch(CONFIG_MAP, name, {"data": {"a": "1"}})
            except TaskFailed as failure:
                failures.append(failure.reason)

    async with selective(api, playbook(patch), SELECTIVE):
        assert failures[:2] == ["NotSelected", "NothingToPatch"]
        assert "data" not in api.read(CONFIG_MAP, DATA)


async def test_a_missing_object_of_a_kind_without_selector_costs_no_request(
    api: ModelApi, ticket: ObjectKey
) -> None:
    async def delete(play: TicketPlay) -> None:
        assert await play.delete(SECRET, "missing")

    async with operator(api, playbook(delete), owns=OWNS):
        assert not [call for call in api.calls if call.resource == str(SECRET) and call.verb == "get"]
        assert ready(api, ticket)[0] == "True"
