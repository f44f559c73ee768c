"""openapi.json matches the handlers and their types."""

import json
from importlib import resources
from typing import Any

import msgspec

from booking_api import faults, model

METHODS = {"get", "post", "put", "patch", "delete"}
DOCUMENT = json.loads(resources.files("booking_api").joinpath("openapi.json").read_bytes())
TYPES = [
    model.Booking,
    model.BookingPage,
    model.NewBooking,
    model.BookingChange,
    model.Capacity,
    model.Flight,
    model.AuditPage,
    model.Statistics,
    model.Problem,
    faults.Faults,
    faults.FaultReport,
]


def test_every_route_is_described_and_nothing_else(airline):
    served = {
        (route.method.lower(), route.resource.canonical)
        for route in airline.api.application().router.routes()
        if route.resource
    }
    described = {
        (method, path) for path, item in DOCUMENT["paths"].items() for method in item if method in METHODS
    }
    assert served == described


def test_the_schemas_are_those_of_the_types():
    _, generated = msgspec.json.schema_components(TYPES, ref_template="#/components/schemas/{name}")
    written = DOCUMENT["components"]["schemas"]
    assert {name: structure(schema) for name, schema in written.items()} == {
        name: structure(schema) for name, schema in generated.items()
    }


def structure(schema: dict[str, Any]) -> dict[str, Any]:
    """Returns a schema without its texts, and without an empty `required`."""
    return {
        k: v for k, v in schema.items() if k not in ("title", "description") and (k, v) != ("required", [])
    }


def test_every_reference_can_be_resolved():
    text = json.dumps(DOCUMENT)
    for part in text.split('"$ref": "#/')[1:]:
        place = DOCUMENT
        for step in part.partition('"')[0].split("/"):
            place = place[step]


async def test_it_is_served(http):
    async with http.get("openapi.json") as answer:
        assert answer.content_type == "application/json"
        assert await answer.json() == DOCUMENT
