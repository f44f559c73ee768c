"""A task that changes a mapping or a list of its object in place fails, and the change is undone."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import msgspec
import pytest
from msgspec.structs import replace

from pilothouse.api import Kind, field
from pilothouse.kube import ObjectKey, ObjectMeta
from pilothouse.playbook import Play, Playbook, Status, Watch, task
from pilothouse.testing import ModelApi
from tests.unit.operators import operating

pytestmark = pytest.mark.usefixtures("virtual_time")


class Part(msgspec.Struct, frozen=True):
    names: list[str] = []


class Tree(msgspec.Struct, frozen=True):
    names: Annotated[tuple[Annotated[list[str], field("Names.")], ...], field("Lists.")] = ()
    inner: "Annotated[Tree | None, field('A tree.')]" = None


class MapSpec(msgspec.Struct, frozen=True):
    limits: dict[str, int] = {}
    part: Part | None = None
    parts: tuple[Part, ...] = ()
    extra: Any = None
    # As a kind declares its fields, with descriptions.
    sizes: Annotated[dict[str, int], field("Sizes.")] = {}
    tree: Annotated[Tree | None, field("A tree.")] = None


class MapStatus(Status, frozen=True):
    members: Mapping[str, str] = {}


class Map(msgspec.Struct, frozen=True):
    metadata: ObjectMeta = ObjectMeta()
    spec: MapSpec = MapSpec()
    status: MapStatus = MapStatus()


MAP = Kind(Map, "maps.example.com", "v1").resource
SPEC = {"limits": {"a": 1}, "part": {"names": ["a"]}, "parts": [{"names": ["a"]}], "extra": {"a": [1]}}
SPEC |= {"sizes": {"a": 1}, "tree": {"names": [["a"]], "inner": {"names": [["b"]]}}}

CHANGES: list[tuple[Callable[[Any], Any], str]] = [
    (lambda play: play.status.members.update(x="new"), "play.object.status.members in place"),
    (lambda play: play.object.spec.limits.pop("a"), "play.object.spec.limits in place"),
    (lambda play: play.object.spec.part.names.append("b"), "play.object.spec.part.names in place"),
    (lambda play: play.object.spec.parts[0].names.append("b"), "play.object.spec.parts in place"),
    (lambda play: play.object.spec.extra["a"].append(2), "play.object.spec.extra in place"),
    (lambda play: play.object.spec.sizes.update(b=2), "play.object.spec.sizes in place"),
    (lambda play: play.object.spec.tree.names[0].append("b"), "play.object.spec.tree.names in place"),
    (lambda play: play.object.spec.sizes.update(b=object()), "play.object.spec.sizes in place"),
    (lambda play: play.object.metadata.labels.update(a="c"), "play.object.metadata.labels in place"),
    (lambda play: play.object.metadata.annotations.__setitem__("a", "b"), ""),
]


def put(api: ModelApi) -> ObjectKey:
    return api.put(MAP, "m", spec=SPEC, metadata={"labels": {"a": "b"}})


def ready(api: ModelApi, key: ObjectKey) -> tuple[str, str]:
    [found] = api.read(MAP, key)["status"]["conditions"]
    return found["status"], found["message"]


@pytest.mark.parametrize(("change", "what"), CHANGES)
async def test_a_change_in_place_fails_and_is_undone(
    api: ModelApi, change: Callable[[Any], Any], what: str
) -> None:
    seen: list[Any] = []

    async def careless(play: Any) -> None:
        seen.append(msgspec.to_builtins(play.object))
        change(play)

    key = put(api)
    async with operating(api, Watch(MAP, Playbook(Play, tasks=[task("careless")(careless)]))):
        await asyncio.sleep(5)
        assert ready(api, key)[0] == "False"
        assert what in ready(api, key)[1]
        assert len(seen) > 2
        assert {msgspec.json.encode((each["spec"], each["metadata"]["labels"])) for each in seen} == {
            msgspec.json.encode((seen[0]["spec"], {"a": "b"}))
        }, "the tasks of the next reconcile see the stored object"
        assert "members" not in api.read(MAP, key)["status"]


async def test_it_is_found_in_an_object_without_optional_parts_and_labels(api: ModelApi) -> None:
    async def careless(play: Any) -> None:
        play.status.members["x"] = "new"

    key = api.put(MAP, "m", spec={"limits": {}})
    async with operating(api, Watch(MAP, Playbook(Play, tasks=[task("careless")(careless)]))):
        await asyncio.sleep(5)
        assert "play.object.status.members in place" in ready(api, key)[1]


async def test_a_changed_copy_is_stored(api: ModelApi) -> None:
    async def careful(play: Any) -> None:
        play.status = replace(play.status, members={**play.status.members, "x": "new"})
        play.status.members["y"] = "own copy"

    key = put(api)
    async with operating(api, Watch(MAP, Playbook(Play, tasks=[task("careful")(careful)]))):
        await asyncio.sleep(5)
        assert ready(api, key)[0] == "True"
        assert api.read(MAP, key)["status"]["members"] == {"x": "new", "y": "own copy"}
