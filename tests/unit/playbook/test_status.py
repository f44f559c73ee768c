"""The patch of a status: what differs and nothing else."""

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.kube import Condition
from pilothouse.playbook.status import merge_patch, with_ready
from tests.model_api import _merged
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
    assert _merged(before, patch) == after
    assert (patch == {}) == (before == after)


def test_a_field_that_became_empty_is_taken_away() -> None:
    old = TicketStatus(phase="Booked", booking="B-1")
    assert merge_patch(old, TicketStatus(phase="Pending")) == {"phase": "Pending", "booking": None}


def test_the_same_status_is_no_patch() -> None:
    one = with_ready(TicketStatus(), 3, ready=True, reason="Booked", message="Yes.")
    again = with_ready(one, 3, ready=True, reason="Booked", message="Yes.")
    assert again is one
    assert merge_patch(one, again) == {}


def test_a_message_of_any_length_is_accepted() -> None:
    status = with_ready(TicketStatus(), 1, ready=False, reason="Long", message="x" * 100_000)
    assert len(status.conditions[0].message) < 32768
