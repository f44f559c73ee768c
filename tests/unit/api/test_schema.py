"""Structural schemas of struct types, and types that cannot be expressed."""

import json
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any
from unittest.mock import ANY

import msgspec
import pytest

from pilothouse.api import LenientCondition, Rule, core, field
from pilothouse.api.core_types import core_schema
from pilothouse.api.schema import structural_schema
from tests.unit.api.kitchen_sink import Sink


class Colour(StrEnum):
    RED = "Red"
    BLUE = "Blue"

    @classmethod
    def _missing_(cls, value: object) -> "Colour":
        return cls.RED


class Part(msgspec.Struct, rename="camel"):
    wheel_count: Annotated[int, field("Wheels.", minimum=0, format="int32")]


class Whole(msgspec.Struct, rename="camel", omit_defaults=True):
    name: Annotated[str, field("Name.", title="A name", pattern="^[a-z]+$", maxLength=8)] = ""
    ratio: float = 0.0
    ready: bool = False
    colour: Colour | None = None
    since: datetime | None = None
    labels: dict[str, str] = {}
    parts: Annotated[tuple[Part, ...], field("Parts.", map_keys=["wheelCount"])] = ()
    rest: list[int] = []
    port: int | str = 0
    anything: dict[str, Any] = {}


def properties(view: type) -> Any:
    return structural_schema(view)["properties"]


def test_every_type_has_its_schema() -> None:
    assert properties(Whole) == {
        "name": {"type": "string", "description": "Name.", "pattern": "^[a-z]+$", "maxLength": 8},
        "ratio": {"type": "number"},
        "ready": {"type": "boolean"},
        "colour": {"type": "string", "enum": ["Red", "Blue"]},
        "since": {"type": "string", "format": "date-time", "pattern": ANY},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "parts": {
            "type": "array",
            "description": "Parts.",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["wheelCount"],
            "items": {
                "type": "object",
                "required": ["wheelCount"],
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
        "port": {"anyOf": [{"type": "integer"}, {"type": "string"}], "x-kubernetes-int-or-string": True},
        "anything": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    }


def test_rules_are_part_of_the_schema() -> None:
    class View(msgspec.Struct):
        size: Annotated[int, field("Size.", rules=[Rule("self >= oldSelf", "a size cannot shrink")])] = 0

    assert properties(View)["size"]["x-kubernetes-validations"] == [
        {"rule": "self >= oldSelf", "message": "a size cannot shrink", "reason": "FieldValueInvalid"}
    ]


class Bounded(msgspec.Struct):
    size: Annotated[int, msgspec.Meta(ge=1)] = 1


class Misspelt(msgspec.Struct):
    size: Annotated[int, msgspec.Meta(extra_json_schema={"minimun": 1})] = 1


class Either(msgspec.Struct):
    size: int | bool = 1


class Unknown(msgspec.Struct):
    size: bytes = b""


class Word(StrEnum):
    ONE = "One"


class Closed(msgspec.Struct):
    size: Word = Word.ONE


class Null(msgspec.Struct):
    size: int | None = None


class NotNull(msgspec.Struct):
    size: Annotated[int, field("Size.", nullable=True)] = 0


class TwoDefaults(msgspec.Struct):
    size: Annotated[int, field("Size.", default=3)] = 0


class Tagged(msgspec.Struct, tag=True):
    size: int = 0


@pytest.mark.parametrize(
    ("view", "complaint"),
    [
        (Bounded, "Bounded.size: ge cannot be set with Meta; use the JSON Schema keyword in field()"),
        (Misspelt, "Misspelt.size: 'minimun' is not a keyword of a structural schema; did you mean minimum?"),
        (Either, "Either.size: a structural schema cannot express this union; use a single type"),
        (Unknown, "Unknown.size: a structural schema cannot express BytesType"),
        (
            Closed,
            "Closed.size: Word cannot decode values of other releases; add a classmethod _missing_",
        ),
        (Null, "Null.size: None would be encoded as null; set omit_defaults=True on Null"),
        (NotNull, "NotNull.size: nullable=True accepts null, so add '| None' to the type of the field"),
        (TwoDefaults, "TwoDefaults.size: default=3 in field() differs from the struct's default 0; use"),
        (Tagged, "Tagged: a Kubernetes object cannot be decoded with forbid_unknown_fields, array_like or"),
    ],
)
def test_types_that_a_schema_cannot_express_are_refused(view: type, complaint: str) -> None:
    with pytest.raises(TypeError) as raised:
        structural_schema(view)
    assert str(raised.value).startswith(complaint)


@pytest.mark.parametrize(
    ("of", "keywords", "complaint"),
    [
        (str, {"minimum": 1}, "minimum is for the type integer or number, but the field is of type string"),
        (int, {"maxLength": 1}, "maxLength is for the type string, but the field is of type integer"),
        (list[str], {"maxLength": 1}, "maxLength is for the type string, but the field is of type array"),
        (str, {"maxLength": -1}, "maxLength must not be negative, but is -1"),
        (list[int], {"minItems": -2}, "minItems must not be negative, but is -2"),
        (str, {"minLength": 3, "maxLength": 2}, "minLength is 3, but maxLength is 2, so no value is valid"),
        (float, {"minimum": 0.5, "maximum": 0}, "minimum is 0.5, but maximum is 0, so no value is valid"),
    ],
)
def test_bounds_that_mean_nothing_are_refused(of: Any, keywords: dict[str, Any], complaint: str) -> None:
    view = msgspec.defstruct("View", [("value", Annotated[of, field("A value.", **keywords)])])
    with pytest.raises(TypeError, match=f"^View.value: {complaint}$"):
        structural_schema(view)


class Leaf(msgspec.Struct):
    trees: "list[Tree]" = []


class Tree(msgspec.Struct):
    leaves: dict[str, Leaf] = {}
    first: Leaf = msgspec.field(default_factory=Leaf)


def test_a_type_that_contains_itself_is_refused() -> None:
    with pytest.raises(
        TypeError, match=r"^Tree\.leaves{}\.trees\[\]: Tree contains itself, .*use dict\[str, Any\]"
    ):
        structural_schema(Tree)


def test_a_core_type_has_the_schema_of_kubernetes_and_the_keywords_of_the_field() -> None:
    class View(msgspec.Struct, omit_defaults=True):
        one: Annotated[core.Toleration | None, field("One.")] = None
        many: Annotated[tuple[core.Toleration, ...], field("Many.", list_type="atomic")] = ()

    toleration = {
        "type": "object",
        "properties": {
            **{name: {"type": "string"} for name in ("effect", "key", "operator", "value")},
            "tolerationSeconds": {"type": "integer", "format": "int64"},
        },
    }
    assert properties(View) == {
        "one": {**toleration, "description": "One."},
        "many": {
            "type": "array",
            "items": toleration,
            "description": "Many.",
            "x-kubernetes-list-type": "atomic",
        },
    }


def test_every_core_type_has_a_complete_schema() -> None:
    names = [
        name for name in vars(core) if name[0].isupper() and name not in ("Annotated", "Any", "TypeAlias")
    ]
    assert len(names) > 10
    for name in names:
        assert "$ref" not in json.dumps(core_schema(name)), name


def test_a_value_of_a_core_type_is_encoded_as_it_was_written() -> None:
    pod = b'{"affinity":{"nodeAffinity":{"newer":[1,null,{}]}},"resources":{"limits":{"cpu":2}}}'
    written = b'{"spec":{"pod":' + pod + b"}}"
    assert msgspec.json.encode(msgspec.json.decode(written, type=Sink)) == written


class Lenient(msgspec.Struct):
    conditions: Annotated[tuple[LenientCondition, ...], field("Its state.", map_keys=["type"])] = ()


def test_a_lenient_condition_requires_only_its_type_and_status() -> None:
    items = structural_schema(Lenient)["properties"]["conditions"]["items"]
    assert items["required"] == ["status", "type"]
    kept = {"type", "description", "format", "pattern"}
    assert all(schema.keys() <= kept for schema in items["properties"].values())
    assert "pattern" not in items["properties"]["reason"]
    assert items["properties"]["lastUpdateTime"]["type"] == "string"
