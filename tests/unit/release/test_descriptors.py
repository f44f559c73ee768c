"""The owned-CRD entries of a kind that has several versions."""

from release.descriptors import owned
from tests.unit.api.kitchen_sink import KITCHEN_SINK


def test_every_served_version_has_an_entry_and_they_differ_in_nothing_else() -> None:
    stored, old = owned(KITCHEN_SINK)
    assert (stored["version"], old["version"]) == ("v2", "v1")
    assert {**stored, "version": ""} == {**old, "version": ""}
