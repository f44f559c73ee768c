"""The parts of a generated CRD besides the schema."""

from dataclasses import replace
from typing import Annotated, Any

import msgspec
import pytest

from pilothouse.api import Version, field
from pilothouse.api.crd import crd, size_note
from pilothouse.kube import ObjectMeta
from tests.unit.api.kitchen_sink import KITCHEN_SINK, SinkStatus

SPEC: Any = crd(KITCHEN_SINK)["spec"]


def test_one_version_is_stored_and_the_others_are_listed() -> None:
    stored, old = SPEC["versions"]
    assert (stored["name"], stored["served"], stored["storage"]) == ("v2", True, True)
    assert "deprecated" not in stored
    assert (old["name"], old["served"], old["storage"]) == ("v1", True, False)
    assert (old["deprecated"], old["deprecationWarning"]) == (True, KITCHEN_SINK.versions[0].deprecation)
    assert "conversion" not in SPEC


def test_all_versions_have_the_same_columns_and_subresources() -> None:
    for version in SPEC["versions"]:
        assert version["subresources"] == {
            "status": {},
            "scale": {
                "specReplicasPath": ".spec.size",
                "statusReplicasPath": ".status.size",
                "labelSelectorPath": ".status.selector",
            },
        }
        assert [column["name"] for column in version["additionalPrinterColumns"]] == ["Size", "Ready", "Age"]


def test_fields_are_selectable_only_in_the_stored_version() -> None:
    stored, old = SPEC["versions"]
    paths = [".spec.colour", ".spec.size", ".spec.enabled"]
    assert stored["selectableFields"] == [{"jsonPath": path} for path in paths]
    assert "selectableFields" not in old


class Renamed(msgspec.Struct):
    length: int = 0


class Retyped(msgspec.Struct):
    size: str = ""


class Lacking(msgspec.Struct):
    size: int = 0


@pytest.mark.parametrize(
    ("spec", "lost"), [(Renamed, ".spec.length"), (Retyped, ".spec.size"), (Lacking, ".spec.word")]
)
def test_a_version_that_the_stored_one_cannot_hold_is_refused(spec: type, lost: str) -> None:
    view = msgspec.defstruct(
        "Old",
        [
            ("metadata", ObjectMeta, ObjectMeta()),
            ("spec", Annotated[spec, field("Spec.")], msgspec.field(default_factory=spec)),
            ("status", SinkStatus, SinkStatus()),
        ],
    )
    kind = replace(KITCHEN_SINK, versions=(Version("v1", view),))
    with pytest.raises(
        TypeError,
        match=f"Sink v1: .*{lost}[, ].*would be lost or refused; declare the same fields .* as in v2, the",
    ):
        crd(kind)


@pytest.mark.parametrize(
    ("size", "note"),
    [
        (100_000, ""),
        (230_000, "kubectl apply --server-side"),
        (300_000, "kubectl apply --server-side"),
        (1_400_000, "close to etcd's limit of 1,572,864 bytes"),
        (1_600_000, "cannot be stored: etcd accepts at most 1,572,864 bytes"),
    ],
)
def test_a_crd_near_a_size_limit_gets_a_note(size: int, note: str) -> None:
    found = size_note({"metadata": {"name": "things.example.com"}, "description": "x" * size})
    assert note in found
    assert bool(found) == bool(note)
    assert not found or found.startswith("the CustomResourceDefinition things.example.com has ")
