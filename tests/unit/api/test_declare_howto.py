"""The CRD of docs/howto/declare-a-kind.md has the properties that the page describes."""

from datetime import timedelta
from typing import Any

import pytest

from pilothouse.api.core_types import core_schema
from pilothouse.api.crd import crd
from tests.unit.api.howto import EXAMPLE, WEB_SITE

SPEC: Any = crd(WEB_SITE)["spec"]
STORED, OLD = SPEC["versions"]
SCHEMA = STORED["schema"]["openAPIV3Schema"]["properties"]["spec"]
FIELDS = SCHEMA["properties"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("host", {"type": "string", "format": "hostname", "maxLength": 253}),
        ("theme", {"type": "string", "enum": ["Light", "Dark"], "default": "Light"}),
        ("log", {"type": "string", "enum": ["errors", "all"], "default": "errors"}),
        ("size", {"type": "integer", "format": "int32", "default": 2, "minimum": 0, "maximum": 20}),
        ("opens", {"type": "string", "format": "date-time"}),
        ("pages", {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["path"], "maxItems": 50}),
        ("aliases", {"x-kubernetes-list-type": "set"}),
        ("labels", {"type": "object", "additionalProperties": {"type": "string"}, "maxProperties": 20}),
        ("cache", {"x-kubernetes-int-or-string": True, "default": "64Mi"}),
        ("maxAge", {"type": "string", "default": "10m"}),
        ("maxUnavailable", {"x-kubernetes-int-or-string": True}),
        ("resources", core_schema("ResourceRequirements")),
        ("tolerations", {"items": core_schema("Toleration"), "x-kubernetes-list-type": "atomic"}),
    ],
)
def test_a_field_has_the_declared_keywords(name: str, words: dict[str, Any]) -> None:
    assert FIELDS[name].items() >= words.items()


def test_only_the_key_of_a_list_is_required() -> None:
    assert FIELDS["pages"]["items"]["required"] == ["path"]
    assert "required" not in SCHEMA


def test_rules_belong_to_the_declared_values() -> None:
    def messages(schema: Any) -> list[str]:
        return [rule["message"] for rule in schema["x-kubernetes-validations"]]

    assert messages(FIELDS["host"]) == ["host cannot be changed: create another WebSite"]
    assert messages(SCHEMA) == [
        "set host, for example to www.example.com",
        "/admin is reserved for the operator: use another path",
    ]
    whole = STORED["schema"]["openAPIV3Schema"]
    assert messages(whole) == ["set spec, for example to {host: www.example.com}"]
    assert "x-kubernetes-validations" not in OLD["schema"]["openAPIV3Schema"]["properties"]["spec"]


def test_the_kind_has_its_names_columns_and_subresources() -> None:
    assert (SPEC["names"]["shortNames"], SPEC["names"]["categories"]) == (["ws"], ["all"])
    shown = {column["name"]: column.get("priority", 0) for column in STORED["additionalPrinterColumns"]}
    assert shown == {"Host": 0, "Size": 0, "Ready": 0, "Message": 1, "Age": 0}
    scale = {"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.size"}
    assert STORED["subresources"] == {
        "status": {},
        "scale": scale | {"labelSelectorPath": ".status.selector"},
    }


def test_one_version_is_stored_and_has_the_selectable_fields() -> None:
    assert [(each["name"], each["storage"]) for each in (STORED, OLD)] == [("v1", True), ("v1alpha1", False)]
    assert STORED["selectableFields"] == [{"jsonPath": ".spec.host"}, {"jsonPath": ".spec.theme"}]
    assert "selectableFields" not in OLD
    assert OLD["deprecated"]


def test_quantities_and_durations_are_parsed_where_they_are_used() -> None:
    assert EXAMPLE["cached"](EXAMPLE["WebSiteSpec"]()) == (64 * 1024 * 1024, timedelta(minutes=10))
