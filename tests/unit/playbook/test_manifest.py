"""Manifests compared with live objects: what differs, what is hidden, and names."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.kube import KubeObject, Resource
from pilothouse.playbook.manifest import Json, child_name, differences, full_view, is_secret
from tests.unit.playbook.configured import CONFIG_MAP, DEPLOYMENT, SECRET

OURS = "tickets"


def live(
    resource: Resource[Any], content: Json, owned: Json | None = None, manager: str = OURS
) -> KubeObject:
    """An object as the server would show it, with what `manager` has applied."""
    fields = tuple(sorted(content.keys() - {"metadata"}))
    entry = {"manager": manager, "operation": "Apply", "fieldsV1": owned or {}}
    metadata = {"name": "x", "namespace": "default", **content.get("metadata", {}), "managedFields": [entry]}
    found: KubeObject = msgspec.convert({**content, "metadata": metadata}, full_view(resource, fields).view)
    return found


def told(manifest: Json, obj: KubeObject | None) -> list[str]:
    return [each.told() for each in differences({"metadata": {"name": "x"}, **manifest}, obj, OURS)]


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


@pytest.mark.parametrize(
    ("manifest", "held", "owned", "lines"),
    [
        ({"data": {"a": "1"}}, {"data": {"a": "1", "theirs": "x"}}, {}, []),
        ({"data": {"a": "1"}}, {"data": {"a": "2"}}, {}, ["data.a: 2 -> 1"]),
        ({"data": {"a": "1"}}, {}, {}, ["+ data.a: 1"]),
        ({}, {"data": {"a": "1"}}, {"f:data": {".": {}, "f:a": {}}}, ['- data: {"a":"1"}']),
        (
            {"data": {"b": "2"}},
            {"data": {"a": "1", "b": "2"}},
            {"f:data": {".": {}, "f:a": {}, "f:b": {}}},
            ["- data.a: 1"],
        ),
        ({"spec": {"replicas": 3}}, {"spec": {"replicas": 1}}, {}, ["spec.replicas: 1 -> 3"]),
        ({"spec": {"paused": False}}, {"spec": {"paused": True}}, {}, ["spec.paused: true -> false"]),
        ({"spec": {"nothing": {}}}, {"spec": {}}, {}, []),
        ({"spec": {"nothing": None}}, {"spec": {}}, {}, []),
        (
            {"metadata": {"labels": {"a": "b"}}},
            {"metadata": {"labels": {"a": "c", "d": "e"}}},
            {},
            ["metadata.labels.a: c -> b"],
        ),
        # Lists: merged by key, as sets, or as a whole, as the server says that it does.
        (
            pod({"name": "web", "image": "web:2"}),
            pod({"name": "side", "image": "s"}, {"name": "web", "image": "web:1", "tty": False}),
            CONTAINERS,
            [f"{PATH}[web].image: web:1 -> web:2"],
        ),
        (pod(), pod({"name": "web", "image": "w"}), CONTAINERS, [f"- {PATH}[web]: ?"]),
        (
            pod({"name": "web", "image": "w"}, {"name": "new", "image": "n"}),
            pod({"name": "web", "image": "w"}),
            CONTAINERS,
            [f"+ {PATH}[new].name: new", f"+ {PATH}[new].image: n"],
        ),
        (
            {"spec": {"finalizers": ["a", "b"]}},
            {"spec": {"finalizers": ["a", "c", "x"]}},
            {"f:spec": {"f:finalizers": {'v:"a"': {}, 'v:"c"': {}}}},
            ["+ spec.finalizers: b", "- spec.finalizers: c"],
        ),
        ({"spec": {"args": ["a", "b"]}}, {"spec": {"args": ["a", "b"]}}, {"f:spec": {"f:args": {}}}, []),
        (
            {"spec": {"args": ["a"]}},
            {"spec": {"args": ["a", "b"]}},
            {"f:spec": {"f:args": {}}},
            ['spec.args: ["a","b"] -> ["a"]'],
        ),
        ({"spec": {"rules": [{"a": 1}]}}, {"spec": {"rules": [{"a": 1, "default": 2}]}}, {}, []),
    ],
)
def test_what_differs_is_told_field_by_field(
    manifest: Json, held: Json, owned: Json, lines: list[str]
) -> None:
    assert told(manifest, live(DEPLOYMENT, held, owned)) == lines


def test_a_key_that_only_the_servers_default_completes_is_matched_by_the_rest() -> None:
    owned: Json = {"f:spec": {"f:ports": {'k:{"containerPort":80,"protocol":"TCP"}': {}}}}
    held = {"spec": {"ports": [{"containerPort": 80, "protocol": "TCP"}]}}
    assert told({"spec": {"ports": [{"containerPort": 80}]}}, live(DEPLOYMENT, held, owned)) == []


def test_what_another_manager_has_applied_is_its_own() -> None:
    assert told({}, live(CONFIG_MAP, {"data": {"a": "1"}}, {"f:data": {"f:a": {}}}, manager="other")) == []


def test_a_long_value_is_cut() -> None:
    [line] = told({"data": {"a": "x" * 10_000}}, None)
    assert len(line) < 120


def test_the_contents_of_a_secret_are_one() -> None:
    assert is_secret(SECRET, "data.password")
    assert is_secret(SECRET, "stringData.password")
    assert is_secret(SECRET, "metadata.annotations.kubectl.kubernetes.io/last-applied-configuration")
    assert not is_secret(SECRET, "type")
    assert not is_secret(CONFIG_MAP, "data.password")


values = st.recursive(
    st.none() | st.booleans() | st.integers(0, 3) | st.sampled_from(["", "a", "b"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=12,
)
contents = st.dictionaries(st.sampled_from(["data", "spec", "rules"]), values, max_size=3)


@given(contents)
def test_an_object_is_always_as_it_is(content: Json) -> None:
    assert told(content, live(DEPLOYMENT, content)) == []


@given(contents, contents)
def test_what_is_told_is_what_has_to_be_done(content: Json, held: Json) -> None:
    """Without a difference, to merge the manifest into the object changes nothing in it."""
    if not told(content, live(DEPLOYMENT, held)):
        assert _equal(_merged(held, content), held)


def _merged(held: Any, wanted: Any) -> Any:
    if isinstance(wanted, dict):
        before = held if isinstance(held, dict) else {}
        return before | {key: _merged(before.get(key), value) for key, value in wanted.items()}
    if isinstance(wanted, list) and isinstance(held, list) and len(wanted) == len(held):
        return [_merged(*pair) for pair in zip(held, wanted, strict=True)]
    return held if wanted is None else wanted


def _equal(one: Any, other: Any) -> bool:
    """Whether two values are the same to the server, which does not keep what is empty or null."""
    return bool(_kept(one) == _kept(other))


def _kept(value: Any) -> Any:
    if isinstance(value, dict):
        kept = {key: _kept(each) for key, each in value.items()}
        return {key: each for key, each in kept.items() if each not in (None, {}, [])} or None
    if isinstance(value, list):
        return [_kept(each) for each in value] or None
    return value


@given(st.lists(st.text(min_size=1), min_size=1, max_size=3))
def test_a_childs_name_fits_and_is_the_same_each_time(parts: list[str]) -> None:
    made = child_name("web", *parts)
    assert made == child_name("web", *parts)
    assert 1 <= len(made) <= 63
    assert made.isascii()
    assert made[0].isalnum()
    assert made[-1].isalnum()


def test_long_names_that_differ_at_the_end_stay_different() -> None:
    assert child_name("w" * 70, "a") != child_name("w" * 70, "b")
