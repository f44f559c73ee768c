"""Kinds that belong to others, and objects that do not fit the view, on a real API server."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from pilothouse.controller import EventType
from pilothouse.controller.events import EVENT
from pilothouse.kube import Client, NotFound, ObjectKey, ObjectMeta, PatchType, Resource
from pilothouse.playbook import Play, Playbook, Watch, add_watch, task
from pilothouse.process import Manager, Settings
from pilothouse.testing import ApiServer, eventually
from tests.api.versions import ON_BOTH
from tests.running import running

pytestmark = ON_BOTH

FINALIZER = "tests.dev/copy"


class ConfigMap(msgspec.Struct, frozen=True):
    metadata: ObjectMeta
    data: Mapping[str, str] = {}


class StrictConfigMap(msgspec.Struct, frozen=True):
    metadata: ObjectMeta
    data: Mapping[str, int] = {}


class PodStatus(msgspec.Struct, frozen=True):
    phase: str = ""


class Pod(msgspec.Struct, frozen=True):
    metadata: ObjectMeta
    status: PodStatus = PodStatus()


CONFIG_MAP = Resource("", "v1", "ConfigMap", "configmaps", ConfigMap)
STRICT = Resource("", "v1", "ConfigMap", "configmaps", StrictConfigMap)
POD = Resource("", "v1", "Pod", "pods", Pod)
POD_BODY = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "web", "labels": {"watched": "yes"}},
    "spec": {"containers": [{"name": "c", "image": "c"}], "automountServiceAccountToken": False},
}
READY = {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}


@asynccontextmanager
async def operator(api_server: ApiServer, namespace: str, watch: Watch) -> AsyncIterator[None]:
    async with Client(api_server.config(), user_agent="copies/test") as client:
        settings = Settings(watch_namespaces=(namespace,), health_host="127.0.0.1", health_port=0)
        manager = Manager("copies", settings, client)
        add_watch(manager, watch)
        async with running(manager):
            yield


def noting(seen: list[str], *, cleaned: list[str] | None = None) -> Playbook[Any]:
    @task("it is seen")
    async def see(play: Play[Any, Any]) -> None:
        shown = getattr(play.object, "data", None) or play.status
        seen.append(str(getattr(shown, "phase", shown)))
        play.event(EventType.NORMAL, "Seen", "It was seen.")

    @task("it is cleaned up")
    async def clean(play: Play[Any, Any]) -> None:
        assert cleaned is not None
        cleaned.append(play.object.metadata.name)

    if cleaned is None:
        return Playbook(Play, tasks=[see])
    return Playbook(Play, tasks=[see], cleanup=[clean], finalizer=FINALIZER)


async def events(client: Client, namespace: str) -> list[str]:
    found = json.loads(await client.request("GET", EVENT.path(namespace)))["items"]
    return [each["reason"] for each in found]


async def test_a_pod_keeps_its_status_and_is_played_when_it_changes(
    api_server: ApiServer, client: Client, namespace: str
) -> None:
    seen: list[str] = []
    key = (await client.create(POD, POD_BODY, namespace=namespace)).metadata.key
    async with operator(api_server, namespace, Watch(POD, noting(seen), selector="watched=yes")):
        await eventually(lambda: "Pending" in seen)
        status = {"status": {"phase": "Running", "conditions": [READY]}}
        await client.patch(POD, key, status, type=PatchType.MERGE, subresource="status")
        await eventually(lambda: "Running" in seen)
        stored = json.loads(await client.request("GET", POD.path(*key)))["status"]
        assert [(each["type"], each["status"]) for each in stored["conditions"]] == [("Ready", "True")]
        assert "observedGeneration" not in stored
        await eventually(lambda: _has(client, namespace, "Seen"))


async def test_a_config_map_is_played_changed_and_cleaned_up(
    api_server: ApiServer, client: Client, namespace: str
) -> None:
    seen: list[str] = []
    cleaned: list[str] = []
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "web"}, "data": {"a": "1"}}
    key = ObjectKey(namespace, "web")
    await client.create(CONFIG_MAP, body, namespace=namespace)
    watch = Watch(CONFIG_MAP, noting(seen, cleaned=cleaned), field_selector="metadata.name=web")
    async with operator(api_server, namespace, watch):
        await eventually(lambda: any("'1'" in each for each in seen))
        await client.patch(CONFIG_MAP, key, {"data": {"a": "2"}}, type=PatchType.MERGE)
        await eventually(lambda: any("'2'" in each for each in seen))
        await client.delete(CONFIG_MAP, key)
        await eventually(lambda: _gone(client, key))
        assert cleaned == ["web"]


async def test_an_object_that_does_not_fit_the_view_is_an_event_and_keeps_its_finalizer(
    api_server: ApiServer, client: Client, namespace: str
) -> None:
    metadata = {"name": "web", "finalizers": [FINALIZER]}
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"a": "one"}}
    key = ObjectKey(namespace, "web")
    await client.create(CONFIG_MAP, body, namespace=namespace)
    cleaned: list[str] = []
    watch = Watch(STRICT, noting([], cleaned=cleaned), field_selector="metadata.name=web")
    async with operator(api_server, namespace, watch):
        await eventually(lambda: _has(client, namespace, "Undecodable"))
        await client.delete(CONFIG_MAP, key)
        assert cleaned == []
        # The finalizer is removed manually, as the message says.
        await client.patch(CONFIG_MAP, key, {"metadata": {"finalizers": None}}, type=PatchType.MERGE)
        await eventually(lambda: _gone(client, key))


async def _has(client: Client, namespace: str, reason: str) -> bool:
    return reason in await events(client, namespace)


async def _gone(client: Client, key: ObjectKey) -> bool:
    try:
        await client.get(CONFIG_MAP, key)
    except NotFound:
        return True
    return False
