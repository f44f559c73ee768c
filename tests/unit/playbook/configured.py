"""A playbook over tickets that keeps objects in the cluster, for tests of the modules."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from pilothouse.kube import ObjectKey, ObjectMeta, Resource
from pilothouse.playbook import Play, Playbook, Secondary, Task, Watch, task
from pilothouse.testing import Call, ModelApi
from pilothouse.views import JOB
from tests.unit.operators import operating
from tests.unit.tickets import TICKET, Ticket, TicketStatus

TicketPlay = Play[Ticket, TicketStatus]
Function = Callable[[TicketPlay], Awaitable[None]]


class ConfigMap(msgspec.Struct, frozen=True, gc=False):
    metadata: ObjectMeta
    data: dict[str, str] = {}


class Deployment(msgspec.Struct, frozen=True, gc=False):
    metadata: ObjectMeta
    spec: dict[str, Any] = {}
    status: dict[str, Any] = {}


class Secret(msgspec.Struct, frozen=True, gc=False):
    metadata: ObjectMeta


CONFIG_MAP: Resource[ConfigMap] = Resource("", "v1", "ConfigMap", "configmaps", ConfigMap)
DEPLOYMENT: Resource[Deployment] = Resource("apps", "v1", "Deployment", "deployments", Deployment)
SECRET: Resource[Secret] = Resource("", "v1", "Secret", "secrets", Secret)
SERVICE: Resource[Deployment] = Resource("", "v1", "Service", "services", Deployment)

POD: Resource[Deployment] = Resource("", "v1", "Pod", "pods", Deployment)
NODE: Resource[Secret] = Resource("", "v1", "Node", "nodes", Secret, namespaced=False)

WEB = ObjectKey("default", "web")

OWNS = (CONFIG_MAP, DEPLOYMENT, SECRET, JOB)


def playbook(*functions: Function) -> Playbook[TicketPlay]:
    """A playbook with a task for each function, named after it."""
    return Playbook(Play, tasks=[named(each) for each in functions])


def named(function: Function) -> Task[TicketPlay]:
    made: Task[TicketPlay] = task(getattr(function, "__name__", "task"))(function)
    return made


@asynccontextmanager
async def operator(
    api: ModelApi,
    book: Playbook[Any],
    *,
    owns: Sequence[Resource[Any]] = OWNS,
    watches: Sequence[Secondary] = (),
    resync: float = 0.0,
) -> AsyncIterator[None]:
    """Runs an operator's process within the block."""
    async with operating(api, Watch(TICKET, book, resync=resync, owns=owns, watches=watches)):
        yield


def owned_by(api: ModelApi, owner: ObjectKey, resource: Resource[Any] = TICKET) -> dict[str, Any]:
    """Returns the metadata of an object that another one controls."""
    reference = {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "name": owner.name,
        "uid": api.read(resource, owner)["metadata"]["uid"],
        "controller": True,
    }
    return {"ownerReferences": [reference]}


def requests(api: ModelApi, resource: Resource[Any]) -> list[Call]:
    """The requests for a kind."""
    return [call for call in api.calls if call.resource == str(resource)]


def ready(api: ModelApi, key: ObjectKey) -> tuple[str, str, str]:
    """Status, reason and message of Ready."""
    [found] = [each for each in api.read(TICKET, key)["status"]["conditions"] if each["type"] == "Ready"]
    return found["status"], found["reason"], found["message"]
