"""Operations on the API, written once. Each server tells what came of them: the model as the real one."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any, Literal, TypeAlias
from unittest import mock

import msgspec

from pilothouse.kube import (
    ApiError,
    Client,
    EventType,
    KubeError,
    ObjectKey,
    ObjectMeta,
    PatchType,
    Resource,
    Unstructured,
    reader,
)
from pilothouse.testing import ModelApi

Api: TypeAlias = "ModelApi | Client"


class Parcel(msgspec.Struct):
    """All of an object that a transcript shows."""

    metadata: ObjectMeta
    spec: dict[str, Any] = {}
    status: dict[str, Any] = {}
    data: dict[str, str] = {}


PARCELS: Resource[Parcel] = Resource("contract.dev", "v1", "Parcel", "parcels", Parcel)


class SmallSpec(msgspec.Struct):
    """Of a parcel that an older view knows."""

    size: Literal["s"] = "s"


class SmallParcel(Parcel):
    """A view that larger parcels do not fit."""

    spec: SmallSpec = msgspec.field(default_factory=SmallSpec)  # type: ignore[assignment]  # it is narrower


SMALL: Resource[SmallParcel] = Resource("contract.dev", "v1", "Parcel", "parcels", SmallParcel)
CONFIG_MAPS: Resource[Parcel] = Resource("", "v1", "ConfigMap", "configmaps", Parcel)
SECRETS: Resource[Parcel] = Resource("", "v1", "Secret", "secrets", Parcel)
NAMESPACES: Resource[Parcel] = Resource("", "v1", "Namespace", "namespaces", Parcel, namespaced=False)
LEASES: Resource[Parcel] = Resource("coordination.k8s.io", "v1", "Lease", "leases", Parcel)

CRD: dict[str, Any] = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": str(PARCELS)},
    "spec": {
        "group": PARCELS.group,
        "scope": "Namespaced",
        "names": {"kind": PARCELS.kind, "plural": PARCELS.plural, "singular": "parcel"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "selectableFields": [{"jsonPath": ".spec.size"}],
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": {
                                "type": "object",
                                "properties": {
                                    "size": {"type": "string"},
                                    "weight": {"type": "integer", "maximum": 100},
                                    "stamps": {"type": "array", "items": {"type": "string"}},
                                    "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                                    "selector": {
                                        "type": "object",
                                        "additionalProperties": {"type": "string"},
                                        "x-kubernetes-map-type": "atomic",
                                    },
                                    "rules": {
                                        "type": "array",
                                        "items": {
                                            "type": "object",
                                            "properties": {
                                                "verb": {"type": "string"},
                                                "name": {"type": "string"},
                                                "level": {"type": "integer", "default": 1},
                                            },
                                        },
                                    },
                                },
                            },
                            "status": {
                                "type": "object",
                                "properties": {
                                    "phase": {"type": "string"},
                                    "conditions": {
                                        "type": "array",
                                        "x-kubernetes-list-type": "map",
                                        "x-kubernetes-list-map-keys": ["type"],
                                        "items": {
                                            "type": "object",
                                            "required": ["type"],
                                            "properties": {
                                                "type": {"type": "string"},
                                                "status": {"type": "string"},
                                            },
                                        },
                                    },
                                },
                            },
                        },
                    }
                },
            }
        ],
    },
}


class Transcript:
    """Does operations and writes down what came of each. Versions and UIDs appear by order of appearance.

    Attributes:
        lines: what was written down.
        forget: makes the server forget all that was before the present version.
    """

    def __init__(self, api: Api, namespace: str, forget: Callable[[], Awaitable[None]]) -> None:
        self.api = api
        self.namespace = namespace
        self.forget = forget
        self.lines: list[Any] = []
        self._versions: dict[str, int] = {}
        self._uids: dict[str, int] = {}

    def key(self, name: str) -> ObjectKey:
        return ObjectKey(self.namespace, name)

    async def create(self, name: str, resource: Resource[Parcel] = PARCELS, **fields: Any) -> Any:
        body = {"apiVersion": resource.api_version, "kind": resource.kind, **fields}
        body["metadata"] = {"name": name, **fields.get("metadata", {})}
        return await self.note(
            f"create {name}", lambda: self.api.create(resource, body, namespace=self.namespace)
        )

    async def merge(
        self, name: str, body: Any, *, subresource: str = "", resource: Resource[Parcel] = PARCELS
    ) -> Any:
        return await self.note(
            f"merge {name} {subresource}",
            lambda: self.api.patch(
                resource, self.key(name), body, type=PatchType.MERGE, subresource=subresource
            ),
        )

    async def json(self, name: str, *operations: Any) -> Any:
        return await self.note(
            f"json {name}",
            lambda: self.api.patch(PARCELS, self.key(name), list(operations), type=PatchType.JSON),
        )

    async def apply(
        self,
        name: str,
        manager: str,
        *,
        force: bool = False,
        dry_run: bool = False,
        subresource: str = "",
        resource: Resource[Parcel] = PARCELS,
        **fields: Any,
    ) -> Any:
        body = {"apiVersion": resource.api_version, "kind": resource.kind, **fields}
        body["metadata"] = {"name": name, **fields.get("metadata", {})}
        return await self.note(
            f"apply {name} as {manager}",
            lambda: self.api.patch(
                resource,
                self.key(name),
                body,
                type=PatchType.APPLY,
                subresource=subresource,
                field_manager=manager,
                force=force,
                dry_run=dry_run,
            ),
        )

    async def owners(self, name: str, resource: Resource[Parcel] = PARCELS) -> None:
        """Write down which fields each manager has applied."""
        whole = Resource(resource.group, resource.version, resource.kind, resource.plural, Unstructured)
        found = (await self.api.get(whole, self.key(name))).content["metadata"]["managedFields"]
        applied = {
            (each["manager"], each.get("subresource", "")): each["fieldsV1"]
            for each in found
            if each["operation"] == "Apply"
        }
        self.lines.append((f"owners of {name}", applied))

    async def get(self, name: str, resource: Resource[Parcel] = PARCELS) -> Any:
        return await self.note(f"get {name}", lambda: self.api.get(resource, self.key(name)))

    async def delete(self, name: str, resource: Resource[Parcel] = PARCELS, **options: Any) -> None:
        await self.note(f"delete {name}", lambda: self.api.delete(resource, self.key(name), **options))

    async def list(self, label_selector: str = "", field_selector: str = "") -> None:
        names: list[str] = []
        try:
            async for page in self.api.pages(
                PARCELS,
                namespace=self.namespace,
                label_selector=label_selector,
                field_selector=field_selector,
            ):
                names += [each.metadata.name for each in page.items]
        except ApiError as error:
            names = [type(error).__name__]
        self.lines.append(("list", label_selector, field_selector, names))

    async def version(self) -> str:
        """The collection's present version."""
        pages = [page async for page in self.api.pages(PARCELS, namespace=self.namespace)]
        return pages[-1].resource_version

    async def watched(self, since: str, count: int, label_selector: str = "") -> None:
        """Write down the first events after a version, bookmarks left out."""
        told = 0
        stream = self.api.watch(
            PARCELS, resource_version=since, namespace=self.namespace, label_selector=label_selector
        )
        async with asyncio.timeout(20), aclosing(stream):
            async for event in stream:
                if event.type is not EventType.BOOKMARK:
                    assert event.object
                    assert event.object.metadata.resource_version == event.resource_version
                    self.lines.append((label_selector, event.type, self._shown(event.object)))
                    told += 1
                if told == count:
                    break

    async def watched_to_its_end(self, since: str) -> None:
        """Write down what a watch tells, bookmarks left out, until the server ends it, and when that is."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        stream = self.api.watch(PARCELS, resource_version=since, namespace=self.namespace)
        async with asyncio.timeout(20), aclosing(stream):
            async for event in stream:
                if event.object:
                    self.lines.append((event.type, event.object.metadata.name))
        self.lines.append(("ended after", round(loop.time() - began)))

    async def streamed(self, changes: Callable[[], Awaitable[None]], count: int, selector: str = "") -> str:
        """Write down a streamed list, in any order, and the first events of what is then changed.

        Returns:
            The list's version.
        """
        listed: list[Any] = []
        version, told = "", 0
        stream = self.api.watch_list(PARCELS, namespace=self.namespace, label_selector=selector)
        async with asyncio.timeout(20), aclosing(stream):
            async for event in stream:
                if event.type is EventType.END_OF_LIST:
                    version = event.resource_version
                    newest = max((int(each.metadata.resource_version) for _, each in listed), default=0)
                    names = sorted((str(kind), each.metadata.name) for kind, each in listed)
                    self.lines.append(("streamed", selector, names, newest <= int(version)))
                    await changes()
                elif event.object and not version:
                    listed.append((event.type, event.object))
                elif event.object:
                    self.lines.append(("then", event.type, self._shown(event.object)))
                    told += 1
                if told == count:
                    break
        return version

    async def note(self, what: str, operation: Callable[[], Awaitable[Any]]) -> Any:
        """Do it and write down what came of it; what was refused returns None."""
        try:
            result = await operation()
        except ApiError as error:
            causes = sorted({cause.field for cause in error.causes})
            self.lines.append((what, type(error).__name__, error.status, error.reason, causes))
            return None
        except KubeError as error:
            self.lines.append((what, type(error).__name__))
            return None
        self.lines.append((what, None if result is None else self._shown(result)))
        return result

    def _shown(self, obj: Parcel) -> dict[str, Any]:
        shown: dict[str, Any] = msgspec.to_builtins(obj)
        metadata = shown["metadata"]
        assert metadata.pop("creationTimestamp")
        metadata["namespace"] = metadata["namespace"].replace(self.namespace, "NAMESPACE")
        version = metadata.get("resourceVersion", "")
        metadata["resourceVersion"] = self._versions.setdefault(version, len(self._versions))
        metadata["uid"] = self._uids.setdefault(metadata["uid"], len(self._uids))
        if "deletionTimestamp" in metadata:
            metadata["deletionTimestamp"] = "set"
        for owner in metadata.get("ownerReferences", ()):
            owner["uid"] = self._uids.setdefault(owner["uid"], len(self._uids))
        shown.pop("kind", None)
        return shown


Story: TypeAlias = Callable[[Transcript], Awaitable[None]]
STORIES: dict[str, Story] = {}


def story(function: Story) -> Story:
    STORIES[function.__name__] = function
    return function


@story
async def versions_and_generations(t: Transcript) -> None:
    first = await t.create("a", spec={"weight": 1}, status={"phase": "ignored"})
    await t.create("a")
    await t.get("a")
    await t.get("absent")
    await t.merge("a", {"spec": {"weight": 2}})
    await t.merge("a", {"spec": {"weight": 2}})  # no change: no new version
    await t.merge("a", {"metadata": {"labels": {"app": "x"}}})  # no new generation
    await t.merge("a", {"metadata": {"labels": {"app": None}}})
    await t.merge(
        "a", {"metadata": {"resourceVersion": first.metadata.resource_version}, "spec": {"weight": 9}}
    )
    await t.merge("absent", {"spec": {"weight": 2}})
    await t.merge("a", {"status": {"phase": "ignored"}})
    await t.merge("a", {"metadata": {"generation": 99, "uid": first.metadata.uid}, "spec": {"size": "m"}})


@story
async def the_status_is_apart(t: Transcript) -> None:
    first = await t.create("a", spec={"weight": 1})
    await t.merge("a", {"status": {"phase": "New"}, "spec": {"weight": 5}}, subresource="status")
    stale = {"metadata": {"resourceVersion": first.metadata.resource_version}, "status": {"phase": "Old"}}
    await t.merge("a", stale, subresource="status")
    await t.merge("a", {"spec": {"weight": 2}})
    await t.merge("a", {"status": None}, subresource="status")
    await t.merge("absent", {"status": {"phase": "New"}}, subresource="status")


@story
async def names_and_bodies(t: Transcript) -> None:
    await t.note("nameless", lambda: t.api.create(PARCELS, _parcel({}), namespace=t.namespace))
    generated = await t.api.create(PARCELS, _parcel({"generateName": "made-"}), namespace=t.namespace)
    t.lines.append(("generated", generated.metadata.name[:5], len(generated.metadata.name)))
    elsewhere = _parcel({"name": "b", "namespace": "elsewhere"})
    await t.note("elsewhere", lambda: t.api.create(PARCELS, elsewhere, namespace=t.namespace))
    versioned = _parcel({"name": "c", "resourceVersion": "5"})
    await t.note("versioned", lambda: t.api.create(PARCELS, versioned, namespace=t.namespace))


@story
async def invalid_objects(t: Transcript) -> None:
    await t.create("heavy", spec={"weight": 101})
    await t.create("a", spec={"weight": 100})
    await t.merge("a", {"spec": {"weight": 101}})
    await t.get("a")


@story
async def json_patches(t: Transcript) -> None:
    await t.create("a", spec={"weight": 1, "stamps": ["x", "y"]})
    await t.json("a", {"op": "add", "path": "/spec/stamps/1", "value": "z"})
    await t.json("a", {"op": "add", "path": "/spec/stamps/-", "value": "end"})
    await t.json("a", {"op": "replace", "path": "/spec/weight", "value": 3})
    await t.json("a", {"op": "remove", "path": "/spec/stamps/0"})
    await t.json("a", {"op": "add", "path": "/metadata/labels", "value": {"a/b": "c"}})
    await t.json("a", {"op": "replace", "path": "/metadata/labels/a~1b", "value": "d"})
    await t.json("a", {"op": "move", "from": "/spec/weight", "path": "/spec/weight"})
    await t.json("a", {"op": "test", "path": "/spec/weight", "value": 4})
    await t.json("a", {"op": "remove", "path": "/spec/absent"})
    await t.json("a", {"op": "test", "path": "/spec/weight", "value": 3}, {"op": "remove", "path": "/spec"})


@story
async def deletion_and_finalizers(t: Transcript) -> None:
    await t.create("plain")
    await t.delete("plain")
    await t.get("plain")
    await t.delete("plain")
    await t.create("held", metadata={"finalizers": ["a.dev/x", "b.dev/y"]})
    await t.delete("held")
    await t.get("held")
    await t.delete("held")
    await t.get("held")
    await t.merge("held", {"metadata": {"finalizers": ["a.dev/x", "b.dev/y", "c.dev/z"]}})
    await t.merge("held", {"metadata": {"deletionTimestamp": None}})
    await t.merge("held", {"spec": {"weight": 4}})
    await t.merge("held", {"metadata": {"finalizers": ["a.dev/x"]}})
    await t.merge("held", {"metadata": {"finalizers": None}})
    await t.get("held")
    await t.create("held")


@story
async def preconditions(t: Transcript) -> None:
    first = await t.create("a")
    await t.merge("a", {"spec": {"weight": 1}})
    await t.delete("a", uid="another")
    await t.delete("a", resource_version=first.metadata.resource_version)
    await t.delete("a", uid=first.metadata.uid)
    await t.get("a")


@story
async def propagation(t: Transcript) -> None:
    for name, propagation in (("fore", "Foreground"), ("orphan", "Orphan"), ("back", "Background")):
        await t.create(name)
        await t.delete(name, propagation=propagation)
        await t.get(name)


@story
async def selectors(t: Transcript) -> None:
    for name, labels, size in (
        ("a", {"app": "web", "tier": "front", "cores": "4"}, "s"),
        ("b", {"app": "web"}, "m"),
        ("c", {"app": "db", "tier": "back"}, "s"),
        ("d", {}, "l"),
    ):
        await t.create(name, metadata={"labels": labels}, spec={"size": size})
    for selector in (
        "",
        "app=web",
        "app==web,tier!=front",
        "tier!=front",
        "tier",
        "!tier",
        "app in (web,db),tier notin (back)",
        "app notin(web)",
        "cores>3",
        "cores > 4",
        "cores<5,app=web",
        "app=",
    ):
        await t.list(selector)
    for selector in ("metadata.name=b", "metadata.name!=b"):
        await t.list(field_selector=selector)
    await t.list("app=(")


@story
async def selectable_fields(t: Transcript) -> None:
    await t.create("a", spec={"size": "s"}, metadata={"labels": {"tier": "x"}})
    await t.create("b", spec={"size": "m"})
    await t.create("c", spec={"size": "s"})
    for selector in ("spec.size=s", "spec.size!=s", "spec.size=s,metadata.name=c"):
        await t.list(field_selector=selector)
    await t.list("tier", "spec.size=s")


@story
async def watch_events(t: Transcript) -> None:
    start = await t.version()
    await t.create("a", metadata={"finalizers": ["a.dev/x"], "labels": {"app": "x"}}, spec={"weight": 1})
    await t.merge("a", {"spec": {"weight": 2}})
    await t.merge("a", {"status": {"phase": "New"}}, subresource="status")
    await t.merge("a", {"metadata": {"labels": {"app": "y"}}})
    await t.merge("a", {"metadata": {"labels": {"app": "x"}}})
    await t.delete("a")
    await t.merge("a", {"metadata": {"finalizers": None}})
    await t.create("b", metadata={"labels": {"app": "x"}})
    await t.delete("b")
    await t.watched(start, 9)
    await t.watched(start, 8, "app=x")
    await t.watched(start, 2, "app=y")


@story
async def a_streamed_list_and_what_follows(t: Transcript) -> None:
    async def first() -> None:
        await t.create("a", spec={"weight": 1}, metadata={"labels": {"app": "x"}})

    async def several() -> None:
        await t.merge("a", {"spec": {"weight": 2}})
        await t.create("c", metadata={"labels": {"app": "x"}})
        await t.merge("b", {"metadata": {"labels": {"app": "y"}}})
        await t.delete("a")

    async def seen_and_unseen() -> None:
        await t.merge("b", {"spec": {"weight": 3}})  # not among them
        await t.merge("c", {"metadata": {"labels": {"app": "y"}}})  # leaves them
        await t.merge("b", {"metadata": {"labels": {"app": "x"}}})  # joins them

    await t.streamed(first, 1)
    await t.create("b", metadata={"labels": {"app": "x"}})
    version = await t.streamed(several, 4)
    await t.watched(version, 4)  # whose stream has ended goes on from the list's version
    await t.streamed(seen_and_unseen, 2, "app=x")


@story
async def a_list_in_pages_shows_one_moment(t: Transcript) -> None:
    for name in "abcde":
        await t.create(name)
    versions = set()
    async for page in t.api.pages(PARCELS, namespace=t.namespace, limit=2):
        t.lines.append([each.metadata.name for each in page.items])
        versions.add(page.resource_version)
        await t.merge("e", {"spec": {"weight": len(t.lines)}})
        await t.delete("d")
        await t.create(f"f{len(t.lines)}")
    t.lines.append(("versions", len(versions)))
    await t.watched(versions.pop(), 2)  # what no page showed follows


@story
async def what_is_forgotten_is_told_as_expired(t: Transcript) -> None:
    start = await t.version()
    for name in "abc":
        await t.create(name)
    async with aclosing(t.api.pages(PARCELS, namespace=t.namespace, limit=2)) as pages:
        t.lines.append([each.metadata.name for each in (await anext(pages)).items])
        await t.delete("c")
        await t.forget()
        await t.note("the next page", lambda: anext(pages))
    await t.note("watch", lambda: t.watched(start, 1))
    await t.list()
    since = await t.version()
    await t.create("d")
    await t.watched(since, 1)


@story
async def a_watch_ends_after_the_seconds_that_it_was_asked_to_last(t: Transcript) -> None:
    start = await t.version()
    with mock.patch.object(reader, "WATCH_SECONDS", (3, 3)):
        await t.watched_to_its_end(start)
        await t.create("a")
        await t.watched_to_its_end(start)


@story
async def what_does_not_fit_the_view_is_left_out(t: Transcript) -> None:
    start = await t.version()
    await t.create("a", spec={"size": "s"})
    await t.create("b", spec={"size": "l"})
    await t.merge("a", {"spec": {"size": "m"}})
    await t.merge("b", {"spec": {"size": "s"}})
    await t.note("get a misfit", lambda: t.api.get(SMALL, t.key("a")))
    async for page in t.api.pages(SMALL, namespace=t.namespace):
        t.lines.append(
            ([each.metadata.name for each in page.items], [each.metadata.name for each in page.misfits])
        )
    async with (
        asyncio.timeout(20),
        aclosing(t.api.watch(SMALL, resource_version=start, namespace=t.namespace)) as stream,
    ):
        told = 0
        async for event in stream:
            if event.type is not EventType.BOOKMARK:
                name = event.object.metadata.name if event.object else ""
                t.lines.append((event.type, name, event.misfit.metadata.name if event.misfit else ""))
                told += 1
            if told == 4:
                break


@story
async def server_side_apply(t: Transcript) -> None:
    await t.apply("a", "one", spec={"weight": 1, "size": "s"}, metadata={"labels": {"app": "x"}})
    await t.apply("a", "one", spec={"weight": 1, "size": "s"}, metadata={"labels": {"app": "x"}})
    await t.apply("a", "two", spec={"weight": 1})  # the same value: shared
    await t.apply("a", "two", spec={"weight": 2})
    await t.apply("a", "one", spec={"weight": 3})  # gives up size and label; conflicts with two
    await t.get("a")
    await t.apply("a", "one", force=True, spec={"weight": 3})
    await t.apply("a", "two", spec={"weight": 4})
    await t.apply("a", "two", spec={"labels": {"x": "1"}})
    await t.apply("a", "one", spec={"weight": 3, "labels": {"y": "2"}})
    await t.apply("a", "two", spec={"size": "l"})  # its label goes
    await t.merge("a", {"spec": {"weight": 9}})  # takes weight
    await t.apply("a", "one", spec={"weight": 3})
    await t.apply("a", "one", spec={"weight": 9})
    await t.apply("a", "three", spec={"stamps": ["a"]})
    await t.apply("a", "one", spec={"weight": 9, "stamps": ["b"]})
    await t.apply("a", "three", spec={})
    stale = {"name": "a", "resourceVersion": "1"}
    await t.apply("a", "three", metadata=stale, spec={"size": "l"})
    await t.apply("a", "three", metadata={"finalizers": ["a.dev/x"]})
    await t.apply("a", "one", metadata={"finalizers": ["b.dev/y"]}, spec={"weight": 9})
    await t.apply("a", "three", metadata={})


@story
async def server_side_apply_that_only_creates(t: Transcript) -> None:
    never = {"resourceVersion": "1"}
    await t.apply("a", "one", dry_run=True, metadata=never, spec={"weight": 1})
    await t.apply("a", "one", metadata=never, spec={"weight": 1})
    await t.apply("a", "one", metadata=never, spec={"weight": 1})
    await t.apply("a", "two", metadata=never, spec={"size": "s"})
    await t.apply("a", "two", force=True, metadata=never, spec={"size": "s"})
    await t.get("a")
    await t.owners("a")


@story
async def server_side_apply_of_the_status(t: Transcript) -> None:
    def condition(of: str, status: str) -> dict[str, Any]:
        return {"conditions": [{"type": of, "status": status}]}

    await t.apply("a", "one", subresource="status", status=condition("Ready", "True"))
    await t.create("a", spec={"weight": 1})
    await t.apply("a", "one", subresource="status", status=condition("Ready", "True"), spec={"weight": 5})
    await t.apply("a", "two", subresource="status", status=condition("Safe", "True"))
    await t.apply("a", "two", subresource="status", status=condition("Ready", "False"))
    await t.apply("a", "two", subresource="status", force=True, status=condition("Ready", "False"))
    await t.apply("a", "one", subresource="status", status={"phase": "Done"})
    await t.apply("a", "one", spec={"weight": 2})  # leaves the status alone
    await t.owners("a")


@story
async def server_side_apply_of_atomic_parts(t: Transcript) -> None:
    rules = [{"verb": "get", "name": "a", "level": 2}]
    spec = {"selector": {"app": "x", "tier": "y"}, "rules": rules, "labels": {"x": "1"}}
    await t.apply("a", "one", spec=spec, metadata={"labels": {"app": "x"}, "finalizers": ["a.dev/x"]})
    await t.owners("a")
    less = {"selector": {"app": "x"}, "rules": [{"verb": "get", "level": 2}], "labels": {"x": "1"}}
    await t.apply("a", "one", spec=less)  # drops a key of the selector, and a field of the item
    await t.apply("a", "one", spec=less)  # no change: no new version
    await t.merge("a", {"spec": {"selector": {"theirs": "z"}, "labels": {"theirs": "z"}}})
    await t.owners("a")  # the selector is one value, the labels are not
    await t.apply("a", "one", spec=less)
    await t.apply("a", "one", force=True, spec=less)
    await t.apply("a", "one", spec={"selector": {}, "labels": {"x": "1"}})


@story
async def dry_runs(t: Transcript) -> None:
    await t.apply("a", "one", dry_run=True, spec={"weight": 1})
    await t.get("a")
    first = await t.apply("a", "one", spec={"weight": 1})
    await t.apply("a", "one", dry_run=True, spec={"weight": 2, "labels": {"x": "1"}})
    await t.apply("a", "one", dry_run=True, spec={"weight": 1})
    await t.apply("a", "one", dry_run=True, spec={"size": "s"})
    await t.apply("a", "two", dry_run=True, spec={"weight": 3})
    await t.apply("a", "one", dry_run=True, spec={"weight": 101})
    await t.apply("a", "one", dry_run=True, metadata={"uid": "another"})
    await t.get("a")
    await t.owners("a")
    uid = first.metadata.uid
    await t.apply("a", "one", metadata={"uid": uid}, spec={"weight": 2})
    await t.apply("a", "one", metadata={"uid": "another"}, spec={"weight": 3})
    await t.delete("a")
    await t.apply("a", "one", metadata={"uid": uid}, spec={"weight": 3})
    await t.get("a")


@story
async def plain_kinds(t: Transcript) -> None:
    first = await t.create("a", CONFIG_MAPS, data={"x": "1"})
    await t.merge("a", {"data": {"y": "2"}}, resource=CONFIG_MAPS)
    await t.merge(
        "a", {"metadata": {"resourceVersion": first.metadata.resource_version}}, resource=CONFIG_MAPS
    )
    await t.apply("a", "one", resource=CONFIG_MAPS, data={"z": "3"})
    await t.apply("a", "one", resource=CONFIG_MAPS, data={"y": "4"})
    await t.delete("a", CONFIG_MAPS)
    await t.create("l", LEASES, spec={"holderIdentity": "me", "leaseDurationSeconds": 15})
    await t.merge("l", {"spec": {"holderIdentity": "you"}}, resource=LEASES)


@story
async def string_data_of_secrets(t: Transcript) -> None:
    await t.create("a", SECRETS, stringData={"x": "1", "y": "2"}, data={"y": "b2xk", "z": "Mw=="})
    await t.get("a", SECRETS)
    await t.merge("a", {"stringData": {"x": "3", "n": "new"}}, resource=SECRETS)
    await t.merge("a", {"stringData": {"x": None}}, resource=SECRETS)
    await t.merge("a", {"stringData": {"x": "3"}}, resource=SECRETS)  # no change: no new version
    await t.merge("a", {"data": None, "stringData": {"y": "4"}}, resource=SECRETS)
    await t.apply("b", "one", resource=SECRETS, stringData={"x": "1", "y": "2"})
    await t.owners("b", SECRETS)
    await t.apply("b", "one", resource=SECRETS, stringData={"x": "3"})  # y stays
    await t.apply("b", "one", resource=SECRETS, data={"x": "Mw=="})
    await t.owners("b", SECRETS)
    await t.apply("b", "one", resource=SECRETS, data={})


@story
async def a_namespace_that_is_being_deleted(t: Transcript) -> None:
    await t.create("a")
    namespace = ObjectKey("", t.namespace)
    if isinstance(t.api, ModelApi):
        # A real namespace exists until a controller has emptied it.
        t.api.put(NAMESPACES, t.namespace, metadata={"finalizers": ["tests.dev/content"]})
    await t.api.delete(NAMESPACES, namespace)
    await t.create("b")
    await t.apply("c", "one", spec={"weight": 1})
    await t.apply("c", "one", dry_run=True, spec={"weight": 1})
    await t.merge("a", {"spec": {"weight": 2}})
    await t.apply("a", "one", spec={"weight": 3}, force=True)
    await t.delete("a")


def _parcel(metadata: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": PARCELS.api_version, "kind": PARCELS.kind, "metadata": metadata}
