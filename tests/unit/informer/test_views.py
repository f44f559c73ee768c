"""Several views of one kind on one watch: each reader gets the same as from its own watch."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import Annotated, Any, Generic, Literal, TypeVar

import msgspec
import pytest

from pilothouse.informer import Informer, InformerFactory, Store
from pilothouse.informer.views import Fanout, Reader, union
from pilothouse.kube import (
    Condition,
    KubeObject,
    NotFound,
    ObjectKey,
    ObjectMeta,
    PartialObjectMetadata,
    PatchType,
    Resource,
    Unstructured,
)
from pilothouse.testing import ModelApi, eventually
from tests.unit.informer.collection import THINGS, Collection, Thing

pytestmark = pytest.mark.usefixtures("virtual_time")

T = TypeVar("T")


class PlanSpec(msgspec.Struct, frozen=True, gc=False, rename={"from_": "from"}):
    from_: str = "nowhere"
    seats: Annotated[int, msgspec.Meta(ge=1)] = 1


class PlanPart(msgspec.Struct, frozen=True, rename="camel"):
    first_name: str = ""


class PlanStatus(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    booking_id: str = ""
    conditions: tuple[Condition, ...] = ()
    parts: tuple[PlanPart, ...] = ()


class Plan(msgspec.Struct, frozen=True, gc=False):
    metadata: ObjectMeta
    spec: PlanSpec = PlanSpec()
    status: PlanStatus = PlanStatus()

    @property
    def route(self) -> str:
        return f"from {self.spec.from_}"


class CostSpec(msgspec.Struct, frozen=True, rename="camel"):
    origin: str | None = msgspec.field(default=None, name="from")
    seats: int = 0
    price_limit: float | None = None


class CostPart(msgspec.Struct, frozen=True, rename="camel"):
    fare: int = 0


class CostStatus(msgspec.Struct, frozen=True, rename="camel"):
    paid_at: datetime | None = None
    parts: tuple[CostPart, ...] = ()


class Cost(msgspec.Struct, frozen=True):
    metadata: ObjectMeta
    spec: CostSpec | None = None
    status: CostStatus | None = None


def resource(view: type[Any]) -> Resource[Any]:
    return Resource("tests.dev", "v1", "Ticket", "tickets", view)


WHOLE: dict[str, Any] = {
    "spec": {"from": "Mumbai", "seats": 2, "priceLimit": 9.5},
    "status": {
        "bookingId": "b-1",
        "paidAt": "2026-01-01T00:00:00Z",
        "conditions": [
            {
                "type": "Ready",
                "status": "True",
                "reason": "Booked",
                "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }
        ],
        "parts": [{"firstName": "A", "fare": 3}, {"fare": 4}],
    },
}
VIEWS: tuple[type[Any], ...] = (Plan, Cost, PartialObjectMetadata)


@pytest.mark.parametrize("fields", [{}, {"spec": {}}, {"spec": {"seats": 3}, "status": {}}, WHOLE])
@pytest.mark.parametrize("views", [(Plan, Cost), (Cost, Plan), VIEWS, VIEWS[::-1], (Plan, Plan)])
async def test_each_reader_gets_the_same_as_from_its_own_decoder(
    fields: dict[str, Any], views: tuple[type[Any], ...]
) -> None:
    obj = {"metadata": {"name": "a", "namespace": "ns", "uid": "u", "resourceVersion": "7"}, **fields}
    shared = union([resource(view) for view in views])
    stores = [Store[Any]("tickets") for _ in views]
    fanout = Fanout(shared, [Reader(*each) for each in zip(views, stores, strict=True)])
    line = msgspec.json.encode(obj)
    fanout.upsert(msgspec.json.decode(line, type=shared.view), "")
    key = ObjectKey("ns", "a")
    for view, store in zip(views, stores, strict=True):
        got, first = store.get(key), stores[0].get(key)
        assert type(got) is view
        assert got == msgspec.json.decode(line, type=view)
        assert first is not None
        assert got.metadata is first.metadata, "views share the value"


async def test_a_single_view_is_used_unchanged() -> None:
    assert union([resource(Plan), resource(Plan)]).view is Plan


class NoPlan(msgspec.Struct, frozen=True):
    metadata: ObjectMeta
    spec: "NoPlanSpec"


class NoPlanSpec(msgspec.Struct, frozen=True):
    seats: str


class Unfrozen(msgspec.Struct):
    name: str


class UnfrozenView(msgspec.Struct):
    metadata: ObjectMeta


class UnfrozenInside(msgspec.Struct, frozen=True):
    metadata: ObjectMeta
    parts: "tuple[Annotated[dict[str, list[Unfrozen]], msgspec.Meta(description='by name')], ...] | None" = (
        None
    )


class UnfrozenArgument(msgspec.Struct, frozen=True):
    metadata: ObjectMeta
    boxes: "list[Box[PlanPart] | Box[Unfrozen]]"


class Box(msgspec.Struct, Generic[T], frozen=True):
    content: T
    box: "Box[T] | None" = None
    size: Literal["small", "large"] = "small"


@pytest.mark.parametrize("view", [UnfrozenView, UnfrozenInside, UnfrozenArgument])
async def test_a_view_that_is_not_frozen_is_refused_when_declared(view: type[Any]) -> None:
    with pytest.raises(
        TypeError, match=r"^Unfrozen(View)? is not frozen, .*; declare it as class .*, frozen=True\)$"
    ):
        InformerFactory(ModelApi()).informer(resource(view))


async def test_unstructured_objects_are_refused() -> None:
    with pytest.raises(TypeError, match="an informer cannot store objects as Unstructured; declare a view"):
        InformerFactory(ModelApi()).informer(resource(Unstructured))


class Boxed(msgspec.Struct, frozen=True):
    metadata: ObjectMeta
    box: Box[PlanPart]


async def test_a_frozen_view_may_contain_itself() -> None:
    InformerFactory(ModelApi()).informer(resource(Boxed))


async def test_views_that_contradict_each_other_are_refused_when_declared() -> None:
    factory = InformerFactory(ModelApi())
    factory.informer(resource(Plan))
    with pytest.raises(
        TypeError, match=r"tickets\.tests\.dev\.spec\.seats is int in one and str in the other"
    ):
        factory.informer(resource(NoPlan))


async def test_an_object_that_does_not_fit_one_view_is_ignored_only_there(
    caplog: pytest.LogCaptureFixture,
) -> None:
    shared = union([resource(Plan), resource(Cost)])
    plans, costs = Store[Plan]("tickets"), Store[Cost]("tickets")
    fanout = Fanout(shared, [Reader(Plan, plans), Reader(Cost, costs)])
    key = ObjectKey("ns", "a")
    for number, seats in enumerate((1, 0, 2)):
        metadata = {"name": "a", "namespace": "ns", "resourceVersion": str(number + 1)}
        line = msgspec.json.encode({"metadata": metadata, "spec": {"seats": seats}})
        fanout.upsert(msgspec.json.decode(line, type=shared.view), "")
        plan, cost = plans.get(key), costs.get(key)
        assert plan is not None
        assert plan.spec.seats == (seats or 1), "the last known state is kept"
        assert cost is not None
        assert cost.spec == CostSpec(seats=seats)
        assert plans.progress.seen("") == costs.progress.seen("") == number + 1
    assert "tickets.tests.dev ns/a does not fit Plan" in caplog.text
    assert len(caplog.records) == 1


async def test_an_object_that_no_longer_fits_one_view_is_kept_there_until_it_is_deleted() -> None:
    shared = union([resource(Plan), resource(Cost)])
    plans, costs = Store[Plan]("tickets"), Store[Cost]("tickets")
    fanout = Fanout(shared, [Reader(Plan, plans), Reader(Cost, costs)])
    key = ObjectKey("ns", "a")
    metadata = {"name": "a", "namespace": "ns", "uid": "u", "resourceVersion": "1"}
    good = msgspec.convert({"metadata": metadata, "spec": {"seats": 1}}, shared.view)
    bad = msgspec.convert(
        {"metadata": metadata | {"resourceVersion": "2"}, "spec": {"seats": 0}}, shared.view
    )
    fanout.upsert(good, "")
    fanout.begin_list("")
    fanout.listed(bad, "")
    fanout.end_list("2", "")
    plan, cost = plans.get(key), costs.get(key)
    assert plan is not None
    assert plan.spec.seats == 1
    assert cost is not None
    assert cost.spec == CostSpec(seats=0)
    fanout.remove(bad.metadata, "")
    assert len(plans) == len(costs) == 0


@asynccontextmanager
async def running(factory: InformerFactory) -> AsyncIterator[None]:
    task = asyncio.create_task(factory.run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


class Asked(ModelApi):
    """A model that records all lists and watches."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[str, type[KubeObject]]] = []

    def pages(self, resource: Resource[Any], **options: Any) -> Any:
        self.asked.append(("list", resource.view))
        return super().pages(resource, **options)

    def watch(self, resource: Resource[Any], **options: Any) -> Any:
        self.asked.append(("watch", resource.view))
        return super().watch(resource, **options)


async def test_informers_of_the_same_objects_share_one_watch() -> None:
    api = Asked()
    factory = InformerFactory(api)
    plans: Informer[Plan] = factory.informer(resource(Plan))
    costs: Informer[Cost] = factory.informer(resource(Cost))
    assert factory.informer(resource(Plan)) is plans
    others = factory.informer(resource(Plan), namespaces=["other", "one"])
    assert factory.informer(resource(Plan), namespaces=["one", "other"]) is others
    assert others is not plans
    assert factory.informer(resource(Plan), label_selector="a=b") is not plans
    assert [informer.resource.view for informer in factory] == [Plan, Plan, Plan]
    key = api.put(resource(Plan), "a", **WHOLE)

    def plan() -> Plan:
        (found,) = plans.store.values()
        return found

    def cost() -> CostSpec | None:
        (found,) = costs.store.values()
        return found.spec

    async with running(factory):
        await factory.wait_synced()
        assert plans.synced
        assert costs.synced
        assert [verb for verb, _ in api.asked].count("list") == 1 + 2 + 1
        assert plan().route == "from Mumbai"
        assert cost() == CostSpec("Mumbai", 2, 9.5)
        # The result of an own write is decoded into one view, and does not contain the fields of the other.
        mine = await api.patch(resource(Plan), key, {"spec": {"seats": 5}}, type=PatchType.MERGE)
        plans.store.observe(mine)
        assert plan().spec.seats == 5
        assert cost() == CostSpec("Mumbai", 2, 9.5)
        assert await costs.wait_reached(mine.metadata.resource_version, 5)
        assert cost() == CostSpec("Mumbai", 5, 9.5)
        api.remove(resource(Plan), key)
        await eventually(lambda: len(plans.store) == len(costs.store) == 0)
        with pytest.raises(RuntimeError, match="already running"):
            factory.informer(resource(PartialObjectMetadata))


async def test_unreadable_kinds_are_reported_for_every_watch_and_recover() -> None:
    collection = Collection()
    factory = InformerFactory(collection.api)
    informer: Informer[Thing] = factory.informer(THINGS)
    collection.put("a")
    collection.refusals += [NotFound(404, "NotFound", "the server could not find the requested resource")] * 3
    assert factory.waiting_for == ["things.testing.pilothouse.dev have not been listed yet"]
    async with running(factory):
        await asyncio.sleep(1)
        (sentence,) = factory.waiting_for
        assert "install its CustomResourceDefinition" in sentence
        await factory.wait_synced()
        assert factory.waiting_for == []
        assert len(informer.store) == 1
