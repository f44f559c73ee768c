"""An Event's name is valid for every name of its object."""

import re

from hypothesis import example, given
from hypothesis import strategies as st

from pilothouse.controller.events import _name

# kubernetes apimachinery, util/validation IsDNS1123Subdomain, which an Event's name has to be.
SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*", re.ASCII)
names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=253) | st.text(
    "aZ09.:-_", min_size=1, max_size=253
)


@given(names)
@example("system:Node:worker-1")
@example("a" * 253)
@example("a" * 229 + ".-b")
@example("a..b.-c-.")
@example("İ" * 253)
@example(":")
def test_the_name_of_an_event_is_valid_for_any_object(name: str) -> None:
    made = _name(name)
    assert SUBDOMAIN.fullmatch(made)
    assert len(made) <= 253
    assert made != _name(name), "unique"
    assert _name("my-ticket").startswith("my-ticket.")
