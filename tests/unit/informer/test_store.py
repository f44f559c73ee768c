"""Indexes and transforms: by_index always finds the same objects as a scan."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.informer import Store, drop_last_applied
from pilothouse.kube import ObjectKey, ObjectMeta
from tests.unit.informer.collection import Thing

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


def thing(name: str, version: int, labels: dict[str, str] | None = None, **metadata: Any) -> Thing:
    return Thing(ObjectMeta(name, "ns", "uid", str(version), labels=labels or {}, **metadata))


def by_label(obj: Thing) -> set[str]:
    return set(obj.metadata.labels.values())


def without_labels(obj: Thing) -> Thing:
    return Thing(msgspec.structs.replace(obj.metadata, labels={}))


steps = st.sampled_from(["upsert", "observe", "remove", "list"])
labels = st.dictionaries(st.sampled_from("xy"), st.sampled_from("123"))
script = st.lists(
    st.tuples(steps, st.lists(st.tuples(st.sampled_from("abc"), labels), max_size=3)), max_size=12
)


@given(script, st.integers(0, 12))
def test_an_index_finds_the_same_objects_as_a_scan(changes: Any, added: int) -> None:
    store: Store[Thing] = Store("things")
    version = 0
    for number, (step, objects) in enumerate(changes):
        if number == added:
            store.add_index("label", by_label)
        if step == "list":
            store.begin_list("")
        for name, values in objects:
            version += 1
            obj = thing(name, version, values)
            match step:
                case "list":
                    store.listed(obj, "")
                case "observe":
                    store.observe(obj)
                case "upsert":
                    store.upsert(obj, "")
                case _:
                    store.remove(obj.metadata, "")
        if step == "list":
            store.end_list(str(version), "")
    if len(changes) <= added:
        store.add_index("label", by_label)
    for value in "123":
        found = {obj.metadata.key for obj in store.by_index("label", value)}
        assert found == {obj.metadata.key for obj in store.values() if value in by_label(obj)}


def test_handlers_see_indexes_that_include_the_change() -> None:
    store: Store[Thing] = Store("things")
    store.add_index("label", by_label)
    seen: list[int] = []
    store.add_handler(lambda old, new, initial: seen.append(len(store.by_index("label", "1"))))
    store.upsert(thing("a", 1, {"x": "1"}), "")
    store.upsert(thing("b", 2, {"x": "1", "y": "1"}), "")
    store.upsert(thing("a", 3, {"x": "2"}), "")
    store.remove(thing("b", 4).metadata, "")
    assert seen == [1, 2, 1, 0]


def test_a_second_index_of_the_same_name_is_refused() -> None:
    store: Store[Thing] = Store("things")
    store.add_index("label", by_label)
    store.add_index("label", by_label)
    with pytest.raises(ValueError, match="an index 'label' with another function already exists"):
        store.add_index("label", lambda obj: ())


def test_an_object_on_which_an_index_fails_is_missing_only_from_that_index(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store: Store[Thing] = Store("things")
    store.add_index("x", lambda obj: [obj.metadata.labels["x"]])
    store.upsert(thing("bad", 1), "")
    store.upsert(thing("good", 2, {"x": "1"}), "")
    assert [obj.metadata.name for obj in store.by_index("x", "1")] == ["good"]
    assert len(store) == 2
    assert "Index x failed on ns/bad" in caplog.text


def test_every_object_is_transformed_before_it_is_visible() -> None:
    store: Store[Thing] = Store("things", without_labels)
    handled: list[Thing | None] = []
    store.add_handler(lambda old, new, initial: handled.append(new))
    store.begin_list("")
    store.listed(thing("listed", 1, {"x": "1"}), "")
    store.end_list("1", "")
    store.upsert(thing("watched", 2, {"x": "1"}), "")
    store.observe(thing("written", 3, {"x": "1"}))
    assert [obj.metadata.labels for obj in store.values()] == [{}, {}, {}]
    assert handled == list(store.values())


def test_an_object_on_which_the_transform_fails_keeps_its_last_state(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def only_odd(obj: Thing) -> Thing:
        if int(obj.metadata.resource_version) % 2 == 0:
            raise ZeroDivisionError
        return obj

    store: Store[Thing] = Store("things", only_odd)
    first = thing("a", 1)
    store.upsert(first, "")
    store.upsert(thing("a", 2), "")
    assert store.get(ObjectKey("ns", "a")) is first
    assert store.progress.seen("") == 2, "the stream goes on"
    store.begin_list("")
    store.listed(thing("a", 2), "")
    store.end_list("2", "")
    assert store.get(ObjectKey("ns", "a")) is first, "the object is in the list, so it was not deleted"
    assert "The transform failed on ns/a" in caplog.text


@pytest.mark.parametrize(
    ("transform", "sentence"),
    [
        (lambda obj: None, "returned None, but must return the Thing. Its function may lack a `return`"),
        (lambda obj: obj.metadata, "returned a value of type ObjectMeta, but must return the Thing"),
        (type, "returned a value of type StructMeta, but must return the Thing"),
        (lambda obj: Thing(ObjectMeta()), "changed the namespace, name, uid or resourceVersion"),
        (lambda obj: msgspec.structs.replace(obj, metadata=None), "changed the namespace, name, uid or"),
    ],
)
def test_an_object_that_a_transform_returns_wrongly_is_a_misfit_and_not_missing(
    transform: Any, sentence: str
) -> None:
    broken = False
    store: Store[Thing] = Store("things", lambda obj: transform(obj) if broken else obj)
    known = thing("known", 1)
    store.upsert(known, "")
    broken = True
    for each in (thing("known", 2), thing("unknown", 3)):
        store.upsert(each, "")
        misfit = store.misfit(each.metadata.key)
        assert misfit is not None
        assert misfit.why == f"the transform '<lambda>' of things {misfit.why.partition('of things ')[2]}"
        assert sentence in misfit.why
    assert store.values() == [known]
    broken = False
    store.upsert(thing("unknown", 4), "")
    assert store.misfit(ObjectKey("ns", "unknown")) is None


def test_events_during_a_list_do_not_advance_the_seen_version() -> None:
    store: Store[Thing] = Store("things")
    store.begin_list("")
    store.listed(thing("a", 5), "")
    store.remove(thing("a", 7).metadata, "")
    store.bookmark("8", "")
    assert len(store) == 0
    assert store.progress.seen("") == 0
    store.end_list("9", "")
    assert store.progress.seen("") == 9


@pytest.mark.parametrize("others", [{}, {"team": "web"}])
def test_the_copy_of_kubectl_apply_is_dropped(others: dict[str, str]) -> None:
    obj = thing("a", 1, annotations={**others, LAST_APPLIED: "{}"})
    assert drop_last_applied(obj) == thing("a", 1, annotations=others)
    plain = thing("a", 1, annotations=others)
    assert drop_last_applied(plain) is plain


A = ObjectKey("ns", "a")


@pytest.mark.parametrize("how", ["event", "newer event", "bookmark", "deletion", "list", "list without it"])
def test_an_own_write_is_unconfirmed_until_an_event_or_list_includes_it(how: str) -> None:
    store: Store[Thing] = Store("things")
    store.begin_list("")
    store.listed(thing("a", 1), "")
    store.end_list("1", "")
    assert not store.unconfirmed(A)
    store.observe(thing("a", 5))
    assert store.unconfirmed(A)
    store.upsert(thing("a", 3), "")
    store.upsert(thing("b", 4), "")
    assert store.unconfirmed(A), "an older event does not confirm it"
    match how:
        case "event":
            store.upsert(thing("a", 5), "")
        case "newer event":
            store.upsert(thing("a", 6), "")
        case "bookmark":
            store.bookmark("7", "")
        case "deletion":
            store.remove(thing("a", 6).metadata, "")
        case _:
            store.begin_list("")
            assert store.unconfirmed(A), "the beginning of a list does not confirm it"
            if how == "list":
                store.listed(thing("a", 5), "")
                assert not store.unconfirmed(A)
            store.end_list("6", "")
    assert not store.unconfirmed(A)
    assert store._unconfirmed == {} or how == "bookmark"
    assert store._older_than_list == set()


def test_an_own_write_during_a_list_is_confirmed_only_by_a_newer_state() -> None:
    store: Store[Thing] = Store("things")
    store.begin_list("")
    store.observe(thing("a", 5))
    store.observe(thing("b", 6))
    store.listed(thing("a", 3), "")
    assert store.unconfirmed(A)
    store.listed(thing("b", 7), "")
    assert not store.unconfirmed(ObjectKey("ns", "b"))
    store.end_list("4", "")
    assert store.unconfirmed(A)
    store.begin_list("")
    store.observe(thing("a", 8))
    store.begin_list("")
    store.listed(thing("a", 2), "")
    assert not store.unconfirmed(A), "made before the list that shows this: etcd was restored"
    assert store.get(A) == thing("a", 2)


def test_an_object_of_a_list_is_not_an_own_write() -> None:
    store: Store[Thing] = Store("things")
    store.begin_list("")
    store.listed(thing("a", 9), "")
    assert store.progress.seen("ns") == 0
    assert not store.unconfirmed(A)
