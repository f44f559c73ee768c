"""Values that a structural schema lets in, as hypothesis strategies."""

from typing import Any

from hypothesis import strategies as st

# Python's years begin with 1, Kubernetes' with 0; see test_roundtrip.
_MOMENTS = st.datetimes().map(lambda moment: moment.isoformat() + "Z") | st.from_regex(
    r"(19|20)[0-9]{2}-0[1-9]-(0[1-9]|1[0-9])[Tt]([01][0-9]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,9})?([Zz]|[+-]0[0-9]:30)",
    fullmatch=True,
)
_RANGES = {"int32": (-(2**31), 2**31 - 1)}
_INT64 = (-(2**63), 2**63 - 1)
_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(*_INT64) | _TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_TEXT, inner, max_size=2),
    max_leaves=5,
)


def valid(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values that fit a schema; CEL rules aside."""
    values = _plain(schema)
    return st.none() | values if schema.get("nullable") else values


def _plain(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if schema.get("x-kubernetes-int-or-string"):
        return st.integers(0, 2**31 - 1) | _text(schema)
    if schema.get("x-kubernetes-preserve-unknown-fields"):
        return st.dictionaries(_TEXT, _JSON, max_size=2)
    match schema["type"]:
        case "object":
            return _object(schema)
        case "array":
            return _array(schema)
        case "integer":
            least, most = _RANGES.get(schema.get("format", ""), _INT64)
            return st.integers(schema.get("minimum", least), schema.get("maximum", most))
        case "number":
            return st.floats(
                schema.get("minimum"), schema.get("maximum"), allow_nan=False, allow_infinity=False
            )
        case "boolean":
            return st.booleans()
    return _MOMENTS if schema.get("format") == "date-time" else _text(schema)


def _text(schema: dict[str, Any]) -> st.SearchStrategy[str]:
    least, most = schema.get("minLength", 0), schema.get("maxLength", 20)
    if "pattern" in schema:
        # `$` lets a line end pass in Python, not in Go.
        found = st.from_regex(schema["pattern"].removesuffix("$") + r"\Z")
        return found.filter(lambda text: least <= len(text) <= most and "\0" not in text)
    return st.text(st.characters(exclude_categories=["Cs"]), min_size=least, max_size=min(most, 20))


def _object(schema: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    if "additionalProperties" in schema:
        return st.dictionaries(_TEXT, valid(schema["additionalProperties"]), max_size=2)
    required = set(schema.get("required", ()))
    parts = {name: valid(part) for name, part in schema.get("properties", {}).items()}
    present = {name: part for name, part in parts.items() if name in required}
    optional = {name: part for name, part in parts.items() if name not in required}
    return st.fixed_dictionaries(present, optional=optional)


def _array(schema: dict[str, Any]) -> st.SearchStrategy[list[Any]]:
    keys = schema.get("x-kubernetes-list-map-keys", ())

    def identity(item: Any) -> str:
        if not keys:
            return repr(item)
        defaults = {key: schema["items"]["properties"][key].get("default") for key in keys}
        return repr([item.get(key, defaults[key]) for key in keys])

    unique = keys or schema.get("x-kubernetes-list-type") == "set"
    most = min(schema.get("maxItems", 2), 2)
    return st.lists(valid(schema["items"]), max_size=most, unique_by=identity if unique else None)
