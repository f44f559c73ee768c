"""Manifests compared with live objects: what differs, what is hidden, and names."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.kube import ObjectMeta, Resource, Unstructured
from pilothouse.playbook import TaskFailed
from pilothouse.playbook.awaited import PlaybookError
from pilothouse.playbook.manifest import (
    additions,
    changes,
    completed,
    fulfilled,
    is_secret,
)
from pilothouse.playbook.plain import Json
from tests.unit.playbook.configured import CONFIG_MAP, DEPLOYMENT, SECRET
from tests.unit.tickets import TICKET

OURS = "tickets"


def live(content: Json, owned: Json | None = None, manager: str = OURS) -> Unstructured:
    """Returns an object as the API server would return it, with the fields that `manager` has applied."""
    entry = {"manager": manager, "operation": "Apply", "fieldsV1": owned or {}}
    metadata = {"name": "x", "namespace": "default", **content.get("metadata", {}), "managedFields": [entry]}
    return Unstructured({**content, "metadata": metadata})


def is_fulfilled(manifest: Json, obj: Unstructured) -> bool:
    return fulfilled({"metadata": {"name": "x"}, **manifest}, obj, OURS)


def lines_of(before: Unstructured, after: Unstructured) -> list[str]:
    return [each.line() for each in changes(before, after, OURS)]


def pod(*containers: Json) -> Json:
    return {"spec": {"template": {"spec": {"containers": list(containers)}}}}


CONTAINERS: Json = {
    "f:spec": {
        "f:template": {
            "f:spec": {"f:containers": {'k:{"name":"web"}': {".": {}, "f:image": {}, "f:name": {}}}}
        }
    }
}
PATH = "spec.template.spec.containers"
WEB: Json = {"name": "web", "image": "web:1"}
DATA: Json = {"f:data": {"f:a": {}}}


@pytest.mark.parametrize(
    ("manifest", "held", "owned", "is_so"),
    [
        ({"data": {"a": "1"}}, {"data": {"a": "1", "theirs": "x"}}, DATA, True),
        ({"data": {"a": "1"}}, {"data": {"a": "2"}}, DATA, False),
        ({"data": {"a": "1"}}, {"data": {"a": "1"}}, {}, False),  # of another manager
        ({"data": {"a": "1"}}, {"data": {"a": "1", "b": "2"}}, {"f:data": {"f:a": {}, "f:b": {}}}, False),
        ({}, {"data": {"a": "1"}}, DATA, False),
        ({"data": {"a": "1", "b": None}}, {"data": {"a": "1"}}, DATA, True),
        ({"spec": {"paused": False}}, {"spec": {"paused": True}}, {"f:spec": {"f:paused": {}}}, False),
        (
            {"metadata": {"name": "x", "labels": {"a": "b"}}},
            {"metadata": {"labels": {"a": "b", "c": "d"}, "uid": "1"}},
            {"f:metadata": {"f:labels": {"f:a": {}}}},
            True,
        ),
        # Lists that the API server merges by key, as sets, or as a whole.
        (pod(WEB), pod({"name": "side"}, {**WEB, "tty": False}), CONTAINERS, True),
        (pod({**WEB, "image": "web:2"}), pod(WEB), CONTAINERS, False),
        (pod({**WEB, "tty": True}), pod({**WEB, "tty": True}), CONTAINERS, False),
        (pod(WEB, {"name": "new"}), pod(WEB), CONTAINERS, False),
        (pod(), pod(WEB), CONTAINERS, False),
        ({"s": ["a"]}, {"s": ["x", "a"]}, {"f:s": {'v:"a"': {}}}, True),
        ({"s": ["a"]}, {"s": ["a", "b"]}, {"f:s": {'v:"a"': {}, 'v:"b"': {}}}, False),
        ({"s": ["b"]}, {"s": ["a", "b"]}, {"f:s": {'v:"a"': {}}}, False),
        # A value that the API server treats as a whole must be equal.
        ({"spec": {"args": ["a", "b"]}}, {"spec": {"args": ["a", "b"]}}, {"f:spec": {"f:args": {}}}, True),
        (
            {"spec": {"selector": {"app": "x"}}},
            {"spec": {"selector": {"app": "x", "tier": "y"}}},
            {"f:spec": {"f:selector": {}}},
            False,
        ),
        (
            {"spec": {"nodeSelector": {}}},
            {"spec": {"nodeSelector": {"disk": "ssd"}}},
            {"f:spec": {"f:nodeSelector": {}}},
            False,
        ),
        ({"rules": [{"verbs": ["get"]}]}, {"rules": [{"verbs": ["get"]}]}, {"f:rules": {}}, True),
        (
            {"rules": [{"verbs": ["get"]}]},
            {"rules": [{"verbs": ["get"], "resourceNames": ["a"]}]},
            {"f:rules": {}},
            False,
        ),
    ],
)
def test_a_manifest_is_fulfilled_by_values_and_owners(
    manifest: Json, held: Json, owned: Json, is_so: bool
) -> None:
    assert is_fulfilled(manifest, live(held, owned)) is is_so


def test_a_key_that_only_the_servers_default_completes_is_matched_by_the_rest() -> None:
    item: Json = {".": {}, "f:containerPort": {}}
    owned: Json = {"f:spec": {"f:ports": {'k:{"containerPort":80,"protocol":"TCP"}': item}}}
    ports = [{"containerPort": 80, "protocol": "UDP"}, {"containerPort": 80, "protocol": "TCP"}]
    manifest = {"spec": {"ports": [{"containerPort": 80}]}}
    assert is_fulfilled(manifest, live({"spec": {"ports": ports}}, owned))
    assert not is_fulfilled(manifest, live({"spec": {"ports": ports[:1]}}, owned))


def test_fields_of_another_manager_are_not_ours() -> None:
    obj = live({"data": {"a": "1"}}, DATA, manager="other")
    assert lines_of(obj, live({"data": {"a": "1"}})) == []
    assert not is_fulfilled({"data": {"a": "1"}}, obj)


@pytest.mark.parametrize(
    ("before", "after", "owned", "lines"),
    [
        ({"data": {"a": "1"}}, {"data": {"a": "2"}}, {}, ["data.a: 1 -> 2"]),
        ({}, {"data": {"a": "1"}}, {}, ["+ data.a: 1"]),
        ({"data": {"a": "1"}}, {}, {}, ['- data: {"a":"1"}']),
        ({"data": {"a": "1", "b": "2"}}, {"data": {"b": "2"}}, {}, ["- data.a: 1"]),
        ({"status": {"phase": "a"}}, {"status": {"phase": "b"}}, {}, []),
        ({"metadata": {"resourceVersion": "1"}}, {"metadata": {"resourceVersion": "2"}}, {}, []),
        ({}, {"metadata": {"labels": {"a": "c"}}}, {}, ["+ metadata.labels.a: c"]),
        (
            pod({"name": "side"}, WEB),
            pod({"name": "side"}, {**WEB, "image": "web:2"}),
            CONTAINERS,
            [f"{PATH}[web].image: web:1 -> web:2"],
        ),
        (
            pod({"name": "side"}, WEB),
            pod({"name": "new", "image": "n"}, WEB),
            CONTAINERS,
            [f'- {PATH}[side]: {{"name":"side"}}', f"+ {PATH}[new].name: new", f"+ {PATH}[new].image: n"],
        ),
        ({"s": ["a", "c"]}, {"s": ["a", "b"]}, {"f:s": {'v:"a"': {}}}, ["+ s: b", "- s: c"]),
        ({"args": ["a", "b"]}, {"args": ["a"]}, {"f:args": {}}, ['args: ["a","b"] -> ["a"]']),
        ({"rules": [{"a": 1, "b": 2}]}, {"rules": [{"a": 1}]}, {"f:rules": {}}, ["- rules[0].b: 2"]),
    ],
)
def test_changes_are_listed_by_field(before: Json, after: Json, owned: Json, lines: list[str]) -> None:
    assert lines_of(live(before, owned), live(after, owned)) == lines


def test_an_apply_that_only_takes_fields_over_is_listed() -> None:
    before, after = live({"data": {"a": "1"}}), live({"data": {"a": "1"}}, DATA)
    assert lines_of(before, after) == ["+ metadata.managedFields: tickets"]


def test_a_long_value_is_truncated() -> None:
    [added] = additions({"metadata": {}, "data": {"a": "x" * 10_000}})
    assert len(added.line()) < 120


def test_the_contents_of_a_secret_are_secret() -> None:
    assert is_secret(SECRET, "data.password")
    assert is_secret(SECRET, "stringData.password")
    assert is_secret(SECRET, "metadata.annotations.kubectl.kubernetes.io/last-applied-configuration")
    assert not is_secret(SECRET, "type")
    assert not is_secret(CONFIG_MAP, "data.password")


def complete(resource: Resource[Any], body: Json) -> Json:
    return completed(resource, body, TICKET, ObjectMeta(name="x", namespace="default"), owned=False)


def test_string_data_is_stated_as_data() -> None:
    """Otherwise the API server copies it there, and a key that is dropped later would stay."""
    made = complete(
        SECRET, {"data": {"a": "b2xk", "c": "Yw=="}, "stringData": {"a": "new", "b": "ö", "d": None}}
    )
    assert made["data"] == {"a": "bmV3", "c": "Yw==", "b": "w7Y="}
    assert "stringData" not in made
    assert complete(CONFIG_MAP, {"stringData": {"a": "b"}})["stringData"] == {"a": "b"}


@pytest.mark.parametrize("value", [8675309, True, ["hunter2"], {"a": "hunter2"}, "hunter2"])
def test_string_data_that_is_not_text_is_refused_without_its_value(value: Any) -> None:
    stated = value if value == "hunter2" else {"pin": value}
    with pytest.raises(TaskFailed, match="Secret is not valid") as refused:
        complete(SECRET, {"stringData": stated})
    assert refused.value.reason == "InvalidManifest"
    assert "hunter2" not in str(refused.value)
    assert "8675309" not in str(refused.value)


@pytest.mark.parametrize("field", ["data", "stringData"])
@pytest.mark.parametrize(("value", "shown"), [(None, "None"), (["hunter2"], "of type list")])
def test_contents_of_a_secret_that_are_no_mapping_are_refused(field: str, value: Any, shown: str) -> None:
    with pytest.raises(TaskFailed) as refused:
        complete(SECRET, {field: value})
    assert refused.value.reason == "InvalidManifest"
    assert str(refused.value) == (
        f"The manifest of the Secret is not valid: {field} is {shown}, but must be a mapping. Remove it, or "
        "state its keys."
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("uid", "a"),
        ("resourceVersion", "1"),
        ("managedFields", []),
        ("creationTimestamp", "2026-01-01T00:00:00Z"),
        ("deletionTimestamp", "2026-01-01T00:00:00Z"),
        ("deletionGracePeriodSeconds", 0),
        ("generation", 1),
        ("selfLink", "/a"),
    ],
)
def test_metadata_that_only_the_api_server_sets_is_refused(field: str, value: Any) -> None:
    with pytest.raises(PlaybookError) as refused:
        complete(CONFIG_MAP, {"metadata": {field: value}})
    assert str(refused.value) == (
        f"the manifest of the ConfigMap: metadata.{field} is stated, but only the API server sets it. Remove "
        "the field."
    )


def test_a_status_that_an_apply_would_not_change_is_refused() -> None:
    with pytest.raises(PlaybookError) as refused:
        complete(DEPLOYMENT, {"status": {"replicas": 1}})
    assert str(refused.value) == (
        "the manifest of the Deployment: status is stated, but the API server ignores it in an apply. Remove "
        "the field. A task can set only the status of the play's object, with play.status."
    )


@pytest.mark.parametrize("status", [None, {}])
def test_what_generators_write_without_a_value_is_accepted(status: Any) -> None:
    made = complete(DEPLOYMENT, {"metadata": {"creationTimestamp": None}, "status": status})
    assert "status" not in made


@pytest.mark.parametrize("path", ["spec", "spec.template.spec", "spec.jobTemplate.spec.template.spec"])
def test_an_alias_that_the_server_ignores_is_refused(path: str) -> None:
    def workload(**accounts: str) -> Json:
        body: Json = {"containers": [], **accounts}
        for name in reversed(path.split(".")):
            body = {name: body}
        return body

    with pytest.raises(TaskFailed, match=rf"{path}\.serviceAccount.*State serviceAccountName instead"):
        complete(DEPLOYMENT, workload(serviceAccount="web"))
    complete(DEPLOYMENT, workload(serviceAccountName="web"))
    complete(DEPLOYMENT, workload(serviceAccountName="web", serviceAccount="web"))


values = st.recursive(
    st.booleans() | st.integers(0, 3) | st.sampled_from(["", "a", "b"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=12,
)
contents = st.dictionaries(st.sampled_from(["data", "spec", "rules"]), values, max_size=3)


@given(contents)
def test_an_object_matches_itself(content: Json) -> None:
    assert lines_of(live(content), live(content)) == []


@given(contents, contents)
def test_every_change_is_listed(before: Json, after: Json) -> None:
    assert bool(lines_of(live(before), live(after))) == (before != after)


@given(contents, contents)
def test_without_subfields_only_an_equal_value_matches(manifest: Json, held: Json) -> None:
    """A value that the API server treats as a whole must be equal."""
    owned: Json = {f"f:{name}": {} for name in manifest}
    assert is_fulfilled(manifest, live(held, owned)) == (
        bool(manifest) and {name: held.get(name) for name in manifest} == manifest
    )


def test_an_object_in_another_namespace_is_named_by_its_kind() -> None:
    owner = ObjectMeta(name="t", namespace="default", uid="1")
    body = {"metadata": {"name": "x", "namespace": "other"}}
    sentence = "Ticket default/t cannot own ConfigMap other/x in another namespace: use owned=False"
    with pytest.raises(PlaybookError, match=sentence):
        completed(CONFIG_MAP, body, TICKET, owner, owned=True)
