"""Paths, keys, and the types that all kinds share."""

import json
from datetime import UTC, datetime

import msgspec
import pytest

from pilothouse.kube import Condition, ObjectKey, ObjectMeta, Resource, version
from tests.unit.kube.views import WIDGETS, Widget

NODES = Resource("", "v1", "Node", "nodes", Widget, namespaced=False)


def test_paths():
    base = "/apis/testing.pilothouse.dev/v1"
    assert WIDGETS.path() == f"{base}/widgets"
    assert WIDGETS.path("ns") == f"{base}/namespaces/ns/widgets"
    assert WIDGETS.path("ns", "a", "status") == f"{base}/namespaces/ns/widgets/a/status"
    assert NODES.path("", "n1") == "/api/v1/nodes/n1"
    assert (WIDGETS.api_version, NODES.api_version) == ("testing.pilothouse.dev/v1", "v1")
    assert (str(WIDGETS), str(NODES)) == ("widgets.testing.pilothouse.dev", "nodes")


def test_a_name_cannot_change_the_path():
    base = "/apis/testing.pilothouse.dev/v1/namespaces/ns/widgets"
    assert WIDGETS.path("ns", "a?dryRun=All#b") == f"{base}/a%3FdryRun%3DAll%23b"
    assert WIDGETS.path("ns", "a b\ud83d") == f"{base}/a%20b%3F"
    assert WIDGETS.path("ns", "system:controller") == f"{base}/system:controller"


@pytest.mark.parametrize(
    "arguments", [("", "a"), ("ns", "", "status"), ("ns", "a/b"), ("ns", ".."), ("n%2f", "a")]
)
def test_invalid_arguments_of_a_path_are_refused(arguments):
    with pytest.raises(ValueError, match=r"namespace|name"):
        WIDGETS.path(*arguments)


def test_a_cluster_scoped_kind_has_no_namespace():
    with pytest.raises(ValueError, match="cluster-scoped"):
        NODES.path("ns", "n1")


def test_keys():
    assert (str(ObjectKey("ns", "a")), str(ObjectKey("", "n1"))) == ("ns/a", "n1")
    assert ObjectMeta(name="a", namespace="ns").key == ObjectKey("ns", "a")


def test_metadata_round_trip():
    sent = {
        "name": "a",
        "uid": "u",
        "resourceVersion": "12",
        "deletionTimestamp": "2026-01-02T03:04:05Z",
        "finalizers": ["x/y"],
        "labels": {"a": "b"},
        "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "q", "controller": True}],
    }
    meta = msgspec.json.decode(json.dumps(sent), type=ObjectMeta)
    assert meta.deletion_timestamp == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert meta.owner_references[0].controller
    assert json.loads(msgspec.json.encode(meta)) == sent, "what is absent stays absent"
    assert version(Widget(meta)) == 12
    assert version(Widget(ObjectMeta())) == 0


def test_metadata_is_frozen_and_shares_empty_values():
    one, two = ObjectMeta(), ObjectMeta()
    with pytest.raises(AttributeError):
        one.name = "b"  # type: ignore[misc]  # that it fails is the test
    assert one.labels is two.annotations


def test_equal_values_are_kept_once():
    """This saves memory in large stores; see the module's docstring."""
    text = b'{"name":"%d","namespace":"a-namespace","finalizers":["x/y"]}'
    one, two = (msgspec.json.decode(text % number, type=ObjectMeta) for number in (1, 2))
    assert one.namespace is two.namespace
    assert one.finalizers is two.finalizers
    moment = datetime(2026, 1, 2, tzinfo=UTC)
    ready = msgspec.json.encode(Condition("Ready", "False", "AirlineUnreachable", "m", moment))
    three, four = (msgspec.json.decode(ready, type=Condition) for _ in range(2))
    assert three.reason is four.reason


def test_conditions_are_encoded_with_all_fields():
    """The schema of metav1.Condition requires the message, even an empty one."""
    condition = Condition("Ready", "True", "Booked", "", datetime(2026, 1, 2, tzinfo=UTC))
    assert json.loads(msgspec.json.encode(condition)) == {
        "type": "Ready",
        "status": "True",
        "reason": "Booked",
        "message": "",
        "lastTransitionTime": "2026-01-02T00:00:00Z",
        "observedGeneration": 0,
    }


def test_a_condition_of_an_earlier_operator_is_decoded():
    """Such a condition may have only a type and a status."""
    condition = msgspec.json.decode(b'{"type": "Scaling", "status": "True"}', type=Condition)
    assert (condition.reason, condition.message, condition.observed_generation) == ("", "", 0)
    assert condition.last_transition_time == datetime(1970, 1, 1, tzinfo=UTC)
    with pytest.raises(msgspec.ValidationError, match="status"):
        msgspec.json.decode(b'{"type": "Scaling"}', type=Condition)
