"""A struct type as a structural schema (apiextensions.k8s.io/v1). Development only."""

from msgspec import inspect

from pilothouse.kube import Condition, ObjectMeta

Schema = dict[str, object]

_BOUNDS = ("gt", "ge", "lt", "le", "multiple_of", "min_length", "max_length", "pattern")

# The keywords of a structural schema that a field may set:
# https://kubernetes.io/docs/reference/kubernetes-api/extend-resources/custom-resource-definition-v1/
KEYWORDS = frozenset(
    {
        *("default", "enum", "example", "format", "nullable"),
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
        *("minLength", "maxLength", "pattern", "minItems", "maxItems", "uniqueItems"),
        *("minProperties", "maxProperties", "required"),
        *("x-kubernetes-int-or-string", "x-kubernetes-preserve-unknown-fields", "x-kubernetes-map-type"),
        *("x-kubernetes-list-type", "x-kubernetes-list-map-keys", "x-kubernetes-validations"),
    }
)

# k8s.io/apimachinery/pkg/apis/meta/v1, type Condition, with its validation markers.
CONDITION: Schema = {
    "type": "object",
    "description": "One aspect of the present state.",
    "required": ["lastTransitionTime", "message", "reason", "status", "type"],
    "properties": {
        "type": {
            "type": "string",
            "description": "The aspect, in CamelCase.",
            "maxLength": 316,
            "pattern": r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?"
            r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$",
        },
        "status": {
            "type": "string",
            "description": "Whether it holds.",
            "enum": ["True", "False", "Unknown"],
        },
        "reason": {
            "type": "string",
            "description": "Why, as one CamelCase word for programs.",
            "minLength": 1,
            "maxLength": 1024,
            "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
        },
        "message": {
            "type": "string",
            "description": "Why, as a sentence for people.",
            "maxLength": 32768,
        },
        "lastTransitionTime": {
            "type": "string",
            "description": "When the status last changed from one value to another.",
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


def structural_schema(view: type) -> Schema:
    """The structural schema of a struct type.

    No field is `required`: which ones must be there is said by rules, whose messages people understand and
    which leave stored objects alone.

    Raises:
        TypeError: A field is of a type, or carries a keyword, that a structural schema cannot express.
    """
    return _schema(inspect.type_info(view), view.__name__)


def _schema(of: inspect.Type, path: str) -> Schema:
    if isinstance(of, inspect.Metadata):
        words = dict(of.extra_json_schema or {})
        words.pop("title", None)  # for consoles; the CSV has it
        unknown = words.keys() - KEYWORDS - {"description"}
        if unknown:
            raise TypeError(f"{path}: {', '.join(sorted(unknown))} is no keyword of a structural schema")
        return {**_schema(of.type, path), **words}
    match of:
        case inspect.StructType():
            return _struct(of, path)
        case inspect.UnionType():
            return _schema(_only_member(of, path), path)
        case inspect.EnumType():
            return {"type": "string", "enum": [member.value for member in of.cls]}
        case inspect.ListType() | inspect.VarTupleType():
            _refuse_bounds(of, path)
            return {"type": "array", "items": _schema(of.item_type, f"{path}[]")}
        case inspect.DictType():
            return {"type": "object", "additionalProperties": _schema(of.value_type, f"{path}{{}}")}
        case inspect.DateTimeType():
            return {"type": "string", "format": "date-time"}
    names = {
        inspect.StrType: "string",
        inspect.IntType: "integer",
        inspect.FloatType: "number",
        inspect.BoolType: "boolean",
    }
    if type(of) not in names:
        raise TypeError(f"{path}: a structural schema cannot express {type(of).__name__}")
    _refuse_bounds(of, path)
    return {"type": names[type(of)]}


def _struct(of: inspect.StructType, path: str) -> Schema:
    if of.cls is ObjectMeta:
        return {"type": "object"}  # the API server knows its own metadata
    if of.cls is Condition:
        return CONDITION
    properties = {
        field.encode_name: _schema(field.type, f"{path}.{field.encode_name}") for field in of.fields
    }
    return {"type": "object", "properties": properties}


def _only_member(of: inspect.UnionType, path: str) -> inspect.Type:
    """The type beside None: an absent field needs no words in a schema."""
    members = [member for member in of.types if not isinstance(member, inspect.NoneType)]
    if len(members) != 1:
        raise TypeError(
            f"{path}: a structural schema cannot express a union; keep one type, or None beside it"
        )
    return members[0]


def _refuse_bounds(of: inspect.Type, path: str) -> None:
    """Bounds that decoding would hold make one old object stop the reading of all (pilothouse.api.field)."""
    bounds = [name for name in _BOUNDS if getattr(of, name, None) is not None]
    if bounds:
        raise TypeError(f"{path}: give {', '.join(bounds)} to field() by its JSON Schema name, not to Meta")
