"""The owned-CRD entries of a kind that has several versions, and of one with nested fields."""

from etcd_operator.types import ETCD_CLUSTER
from release.descriptors import fields, owned
from release.reference import page
from tests.unit.api.kitchen_sink import KITCHEN_SINK


def test_every_served_version_has_an_entry_and_they_differ_in_nothing_else() -> None:
    stored, old = owned(KITCHEN_SINK)
    assert (stored["version"], old["version"]) == ("v2", "v1")
    assert {**stored, "version": ""} == {**old, "version": ""}


def test_fields_of_structs_follow_the_struct() -> None:
    paths = [path for path, _ in fields(ETCD_CLUSTER, "spec")]
    at = paths.index("TLS")
    assert paths[at : at + 4] == ["TLS", "TLS.static", "TLS.static.member", "TLS.static.member.peerSecret"]
    assert "pod.affinity" in paths
    assert not any(path.startswith("pod.affinity.") for path in paths), "a type of the core API has no parts"


def test_the_reference_page_has_the_rules_of_nested_fields() -> None:
    text = page(ETCD_CLUSTER, {"spec": {}}, ())
    assert "| `pod.etcdEnv` | list of objects |" in text
    assert "- `spec.TLS.static`: set both operatorSecret and member.serverSecret, or neither" in text
