"""Converts a struct type to a structural schema (apiextensions.k8s.io/v1). For development only."""

from enum import Enum
from typing import Any

import msgspec
from msgspec import inspect

from pilothouse.api.core_types import INT_OR_STRING, core_schema
from pilothouse.api.keywords import broken_keyword, require_bounds, require_keyword, require_list_type
from pilothouse.api.paths import require_rules
from pilothouse.api.patterns import require_pattern
from pilothouse.kube import Condition, ObjectMeta

Schema = dict[str, Any]

_BOUNDS = ("gt", "ge", "lt", "le", "multiple_of", "min_length", "max_length", "pattern")

# The API server's date-time accepts values that Python's datetime does not: year 0, offsets of 24 h and more.
_MOMENT = r"^([1-9][0-9]{3}|0[1-9][0-9]{2}|00[1-9][0-9]|000[1-9])-.*([zZ]|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$"

# k8s.io/apimachinery/pkg/apis/meta/v1, type Condition, with its validation markers.
CONDITION: Schema = {
    "type": "object",
    "description": "One aspect of the object's current state.",
    "required": ["lastTransitionTime", "message", "reason", "status", "type"],
    "properties": {
        "type": {
            "type": "string",
            "description": "The aspect, in CamelCase, such as Ready.",
            "maxLength": 316,
            "pattern": r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?"
            r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$",
        },
        "status": {
            "type": "string",
            "description": "Whether the aspect applies: True, False or Unknown.",
            "enum": ["True", "False", "Unknown"],
        },
        "reason": {
            "type": "string",
            "description": "The reason for the status, as one CamelCase word for programs.",
            "minLength": 1,
            "maxLength": 1024,
            "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
        },
        "message": {
            "type": "string",
            "description": "The reason for the status, as sentences for people.",
            "maxLength": 32768,
        },
        "lastTransitionTime": {
            "type": "string",
            "description": "When the status last changed.",
            "format": "date-time",
        },
        "observedGeneration": {
            "type": "integer",
            "description": "The metadata.generation that the condition was set for.",
            "format": "int64",
            "minimum": 0,
        },
    },
}

# Deployments and some earlier operators have lastUpdateTime. It is kept, and not read.
LENIENT_CONDITION: Schema = {
    "type": "object",
    "description": CONDITION["description"],
    "required": ["status", "type"],
    "properties": {
        **{
            name: {"type": schema["type"], "description": schema["description"]}
            for name, schema in CONDITION["properties"].items()
        },
        "lastTransitionTime": CONDITION["properties"]["lastTransitionTime"],
        "lastUpdateTime": {
            "type": "string",
            "description": "When an earlier operator last wrote the condition.",
        },
    },
}


def structural_schema(view: type) -> Schema:
    """Returns the structural schema of a struct type.

    A field without a default is `required`. For fields in the spec, prefer a default plus a rule: the
    rule's message is clearer, and objects stored earlier stay valid.

    Raises:
        TypeError: A field has a type or a keyword that a structural schema cannot express, or the struct
            could not decode some values that the schema accepts.
    """
    info = inspect.type_info(view)
    _refuse_recursion(info, view.__name__)
    return _schema(info, view.__name__)


def _refuse_recursion(of: inspect.Type, path: str, inside: tuple[type, ...] = ()) -> None:
    """Refuses a struct that contains itself, directly or in other structs."""
    match of:
        case inspect.Metadata() if "core" not in (of.extra or {}):
            _refuse_recursion(of.type, path, inside)
        case inspect.UnionType():
            for member in of.types:
                _refuse_recursion(member, path, inside)
        case inspect.ListType() | inspect.VarTupleType():
            _refuse_recursion(of.item_type, f"{path}[]", inside)
        case inspect.DictType():
            _refuse_recursion(of.value_type, f"{path}{{}}", inside)
        case inspect.StructType():
            if of.cls in inside:
                raise TypeError(
                    f"{path}: {of.cls.__name__} contains itself, which a structural schema cannot express; "
                    "use dict[str, Any]"
                )
            for field in of.fields:
                _refuse_recursion(field.type, f"{path}.{field.encode_name}", (*inside, of.cls))


def _schema(of: inspect.Type, path: str) -> Schema:
    match of:
        case inspect.Metadata():
            base, words = _annotated(of, path), _words(of, path)
            try:
                require_bounds(str(base.get("type", "")), words)
                require_list_type(base, words)
                require_rules(base, words.get("x-kubernetes-validations", ()), root=False)
            except TypeError as error:
                raise TypeError(f"{path}: {error}") from None
            return {**base, **words}
        case inspect.StructType():
            return _struct(of, path)
        case inspect.UnionType():
            return _union(of, path)
        case inspect.EnumType():
            return _enum(of, path)
        case inspect.ListType() | inspect.VarTupleType():
            _refuse_bounds(of, path)
            return {"type": "array", "items": _schema(of.item_type, f"{path}[]")}
        case inspect.DictType(value_type=inspect.AnyType()):
            return {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
        case inspect.DictType():
            _refuse_bounds(of, path)
            return {"type": "object", "additionalProperties": _schema(of.value_type, f"{path}{{}}")}
        case inspect.DateTimeType():
            return {"type": "string", "format": "date-time", "pattern": _MOMENT}
    names = {
        inspect.StrType: "string",
        inspect.IntType: "integer",
        inspect.FloatType: "number",
        inspect.BoolType: "boolean",
    }
    if type(of) not in names:
        raise TypeError(f"{path}: a structural schema cannot express {type(of).__name__}{_instead_of(of)}")
    _refuse_bounds(of, path)
    return {"type": names[type(of)]}


def _instead_of(of: inspect.Type) -> str:
    """Returns the type to use instead of one that a structural schema cannot express."""
    match of:
        case inspect.LiteralType():
            values = ", ".join(map(repr, of.values))
            return f"; use str with field(..., enum=[{values}])"
        case inspect.SetType() | inspect.FrozenSetType():
            return '; use tuple[..., ...] with field(..., list_type="set")'
        case inspect.BytesType() | inspect.ByteArrayType():
            return '; use str with field(..., format="byte"), which holds base64'
        case inspect.DecimalType():
            return "; use QuantityText, or a str with a pattern"
        case inspect.TimeDeltaType():
            return "; use DurationText"
        case inspect.DateType() | inspect.TimeType():
            return "; use datetime, or a str with a pattern"
        case inspect.UUIDType():
            return '; use str with field(..., format="uuid")'
        case inspect.TupleType():
            return "; use tuple[X, ...], or a struct with a field for each item"
    return "; use dict[str, Any] for a value of any shape, or a struct"


def _annotated(of: inspect.Metadata, path: str) -> Schema:
    extra = of.extra or {}
    if "condition" in extra:
        return LENIENT_CONDITION
    core = extra.get("core")
    return core_schema(core) if core else _schema(of.type, path)


def _words(of: inspect.Metadata, path: str) -> Schema:
    words = dict(of.extra_json_schema or {})
    words.pop("title", None)  # for consoles: it is in the CSV
    for word, value in words.items():
        try:
            require_keyword(word, value)
            if word == "pattern":
                require_pattern(value)
        except TypeError as error:
            raise TypeError(f"{path}: {error}") from None
    return words


def _struct(of: inspect.StructType, path: str) -> Schema:
    if of.cls is ObjectMeta:
        return {"type": "object"}  # the API server validates metadata itself
    if of.cls is Condition:
        return CONDITION
    if of.forbid_unknown_fields or of.array_like or of.tag is not None:
        raise TypeError(
            f"{path}: a Kubernetes object cannot be decoded with forbid_unknown_fields, array_like or tag"
        )
    schema: Schema = {"type": "object", "properties": {}}
    types = {each.encode_name: each.type for each in msgspec.structs.fields(of.cls)}
    for field in of.fields:
        _require_default(field, types[field.encode_name], f"{path}.{field.encode_name}")
        schema["properties"][field.encode_name] = _field(field, of, f"{path}.{field.encode_name}")
    if required := [field.encode_name for field in of.fields if field.required]:
        schema["required"] = required
    return schema


def _field(field: inspect.Field, of: inspect.StructType, path: str) -> Schema:
    schema = _schema(field.type, path)
    optional, nullable = _may_be_none(field.type), schema.get("nullable", False)
    if nullable and not optional:
        raise TypeError(f"{path}: nullable=True accepts null, so add '| None' to the type of the field")
    if optional and not nullable and not of.cls.__struct_config__.omit_defaults:
        raise TypeError(f"{path}: None would be encoded as null; set omit_defaults=True on {of.cls.__name__}")
    if "default" in schema and (broken := broken_keyword(schema, schema["default"])):
        raise TypeError(f"{path}: default={schema['default']!r} breaks {broken} of the same field")
    if "default" in schema and schema["default"] != _default(field):
        raise TypeError(
            f"{path}: default={schema['default']!r} in field() differs from the struct's default "
            f"{_default(field)!r}; use the same value"
        )
    return schema


def _default(field: inspect.Field) -> object:
    factory = field.default_factory
    value = field.default if factory is msgspec.NODEFAULT else factory()
    return None if value is msgspec.NODEFAULT else msgspec.json.decode(msgspec.json.encode(value))


def _require_default(field: inspect.Field, of: Any, path: str) -> None:
    """Refuses a default that the field could not be decoded from. Python and msgspec accept any."""
    if field.required:
        return
    try:
        msgspec.convert(_default(field), of)
    except msgspec.ValidationError as error:
        raise TypeError(f"{path}: the default does not match the type of the field: {error}") from None
    except TypeError:
        # The schema refuses the type itself, and says why.
        return


def _may_be_none(of: inspect.Type) -> bool:
    if isinstance(of, inspect.Metadata):
        return _may_be_none(of.type)
    return isinstance(of, inspect.UnionType) and of.includes_none


def _union(of: inspect.UnionType, path: str) -> Schema:
    """Returns the schema of the one type besides None, or of int | str."""
    members = [member for member in of.types if not isinstance(member, inspect.NoneType)]
    if {type(member) for member in members} == {inspect.IntType, inspect.StrType}:
        return dict(INT_OR_STRING)
    if len(members) != 1:
        raise TypeError(
            f"{path}: a structural schema cannot express this union; use a single type, optionally with "
            "'| None', or int | str"
        )
    return _schema(members[0], path)


def _enum(of: inspect.EnumType, path: str) -> Schema:
    """Returns the schema of an enum. Refuses an enum that cannot decode the value of another release."""
    if of.cls._missing_.__func__ is Enum._missing_.__func__:  # type: ignore[attr-defined]  # a classmethod
        raise TypeError(
            f"{path}: {of.cls.__name__} cannot decode values of other releases; add a classmethod _missing_ "
            "that returns a member for an unknown value, or use a str with field(enum=[...])"
        )
    return {"type": "string", "enum": [member.value for member in of.cls]}


def _refuse_bounds(of: inspect.Type, path: str) -> None:
    """Refuses bounds that decoding would check. They belong in `pilothouse.api.field`; see there."""
    bounds = [name for name in _BOUNDS if getattr(of, name, None) is not None]
    if bounds:
        raise TypeError(
            f"{path}: {', '.join(bounds)} cannot be set with Meta; use the JSON Schema keyword in field()"
        )
