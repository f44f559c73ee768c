"""The merge patch of a status contains only the differences."""

from datetime import UTC, datetime
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.api.schema import structural_schema
from pilothouse.kube import Condition
from pilothouse.playbook import Status
from pilothouse.playbook.status import READY, Aspect, merge_patch, with_conditions
from pilothouse.testing.patches import merged
from tests.unit.tickets import TicketStatus


class Nested(msgspec.Struct, frozen=True, omit_defaults=True):
    text: str = ""
    number: int | None = None
    names: dict[str, int] = {}
    items: tuple[int, ...] = ()
    inner: "Nested | None" = None
    observed_generation: int = 0
    conditions: tuple[Condition, ...] = ()


nested = st.recursive(
    st.builds(
        Nested,
        text=st.sampled_from(["", "a", "b"]),
        number=st.sampled_from([None, 0, 1]),
        names=st.dictionaries(st.sampled_from("xy"), st.integers(0, 1)),
        items=st.lists(st.integers(0, 1), max_size=2).map(tuple),
    ),
    lambda inner: st.builds(Nested, text=st.sampled_from(["", "c"]), inner=st.none() | inner),
    max_leaves=3,
)


@given(old=nested, new=nested)
def test_the_patch_makes_the_old_into_the_new(old: Nested, new: Nested) -> None:
    before: Any = msgspec.to_builtins(old)
    after = msgspec.to_builtins(new)
    patch = merge_patch(old, new)
    assert merged(before, patch) == after
    assert (patch == {}) == (before == after)


def test_a_field_that_became_empty_is_removed() -> None:
    old = TicketStatus(phase="Booked", booking="B-1")
    assert merge_patch(old, TicketStatus(phase="Pending")) == {"phase": "Pending", "booking": None}


def settled(status: TicketStatus, generation: int, *aspects: Aspect) -> TicketStatus:
    return with_conditions(status, generation, aspects, observed_generation=generation)


def test_an_equal_status_gives_an_empty_patch() -> None:
    one = settled(TicketStatus(), 3, Aspect(READY, True, "Booked", "Yes."))
    again = settled(one, 3, Aspect(READY, True, "Booked", "Yes."))
    assert again is one
    assert merge_patch(one, again) == {}


def test_a_long_message_is_truncated() -> None:
    status = settled(TicketStatus(), 1, Aspect(READY, False, "Long", "x" * 100_000))
    assert len(status.conditions[0].message) < 32768
    assert settled(status, 1, Aspect(READY, False, "Long", "x" * 100_000)) is status


def test_characters_of_a_message_that_cannot_be_encoded_are_replaced() -> None:
    aspect = Aspect(READY, False, "Closed", "Gate \ud83d is closed.")
    status = settled(TicketStatus(), 1, aspect)
    assert status.conditions[0].message == "Gate ? is closed."
    assert settled(status, 1, aspect) is status


def test_other_conditions_are_not_changed() -> None:
    one = settled(TicketStatus(), 1, Aspect(READY, True, "Booked", ""), Aspect("Seated", None, "Asked", ""))
    other = settled(one, 2, Aspect(READY, False, "Full", ""))
    assert [(each.type, each.status, each.observed_generation) for each in other.conditions] == [
        (READY, "False", 2),
        ("Seated", "Unknown", 1),
    ]


def test_last_transition_time_is_the_time_of_the_last_change_of_status() -> None:
    one = settled(TicketStatus(), 1, Aspect(READY, True, "Booked", ""))
    long_ago = msgspec.structs.replace(
        one.conditions[0], last_transition_time=datetime(2020, 1, 1, tzinfo=UTC)
    )
    one = msgspec.structs.replace(one, conditions=(long_ago,))
    same = settled(one, 2, Aspect(READY, True, "Changed", "Anew."))
    assert same.conditions[0].last_transition_time == long_ago.last_transition_time
    other = settled(one, 2, Aspect(READY, False, "Full", ""))
    assert other.conditions[0].last_transition_time > long_ago.last_transition_time


def test_observed_generation_stays_unless_it_is_given() -> None:
    status = with_conditions(TicketStatus(observed_generation=4), 5, [Aspect(READY, None, "Paused", "")])
    assert (status.observed_generation, status.conditions[0].observed_generation) == (4, 5)


class SiteStatus(Status, frozen=True):
    ready_replicas: int = 0


def test_a_subclass_of_status_inherits_how_it_is_written() -> None:
    assert msgspec.json.encode(SiteStatus()) == b"{}"
    status = with_conditions(SiteStatus(2), 3, [Aspect(READY, True, "Done", "")], observed_generation=3)
    assert list(msgspec.to_builtins(status)) == ["readyReplicas", "observedGeneration", "conditions"]
    assert msgspec.json.decode(msgspec.json.encode(status), type=SiteStatus) == status


def test_the_schema_of_a_status_is_that_of_kubernetes() -> None:
    fields = structural_schema(SiteStatus)["properties"]
    assert fields["readyReplicas"] == {"type": "integer"}
    assert (fields["observedGeneration"]["format"], fields["observedGeneration"]["minimum"]) == ("int64", 0)
    assert fields["conditions"]["x-kubernetes-list-type"] == "map"
    assert fields["conditions"]["x-kubernetes-list-map-keys"] == ["type"]
    assert all(fields[name]["description"] for name in ("observedGeneration", "conditions"))
