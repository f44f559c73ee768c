"""From a struct type to a structural schema, and what cannot be one."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

import msgspec
import pytest

from pilothouse.api import Rule, field
from pilothouse.api.schema import structural_schema


class Colour(StrEnum):
    RED = "Red"
    BLUE = "Blue"


class Part(msgspec.Struct, rename="camel"):
    wheel_count: Annotated[int, field("Wheels.", minimum=0, format="int32")] = 0


class Whole(msgspec.Struct, rename="camel"):
    name: Annotated[str, field("Name.", title="A name", pattern="^[a-z]+$", maxLength=8)] = ""
    ratio: float = 0.0
    ready: bool = False
    colour: Colour | None = None
    since: datetime | None = None
    labels: dict[str, str] = {}
    parts: Annotated[tuple[Part, ...], field("Parts.", map_keys=["wheelCount"])] = ()
    rest: list[int] = []


def properties(view: type) -> Any:
    return structural_schema(view)["properties"]


def test_every_type_has_its_schema() -> None:
    assert properties(Whole) == {
        "name": {"type": "string", "description": "Name.", "pattern": "^[a-z]+$", "maxLength": 8},
        "ratio": {"type": "number"},
        "ready": {"type": "boolean"},
        "colour": {"type": "string", "enum": ["Red", "Blue"]},
        "since": {"type": "string", "format": "date-time"},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "parts": {
            "type": "array",
            "description": "Parts.",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["wheelCount"],
            "items": {
                "type": "object",
                "properties": {
                    "wheelCount": {
                        "type": "integer",
                        "description": "Wheels.",
                        "minimum": 0,
                        "format": "int32",
                    }
                },
            },
        },
        "rest": {"type": "array", "items": {"type": "integer"}},
    }


def test_rules_are_told_to_the_api_server() -> None:
    class View(msgspec.Struct):
        size: Annotated[int, field("Size.", rules=[Rule("self >= oldSelf", "a size cannot shrink")])] = 0

    assert properties(View)["size"]["x-kubernetes-validations"] == [
        {"rule": "self >= oldSelf", "message": "a size cannot shrink", "reason": "FieldValueInvalid"}
    ]


class Bounded(msgspec.Struct):
    size: Annotated[int, msgspec.Meta(ge=1)] = 1


class Misspelt(msgspec.Struct):
    size: Annotated[int, field("Size.", minimun=1)] = 1


class Either(msgspec.Struct):
    size: int | str = 1


class Unknown(msgspec.Struct):
    size: bytes = b""


@pytest.mark.parametrize(
    ("view", "complaint"),
    [
        (Bounded, "Bounded.size: give ge to field() by its JSON Schema name"),
        (Misspelt, "Misspelt.size: minimun is no keyword of a structural schema"),
        (Either, "Either.size: a structural schema cannot express a union"),
        (Unknown, "Unknown.size: a structural schema cannot express BytesType"),
    ],
)
def test_what_cannot_be_said_is_refused_by_name(view: type, complaint: str) -> None:
    with pytest.raises(TypeError) as raised:
        structural_schema(view)
    assert str(raised.value).startswith(complaint)
