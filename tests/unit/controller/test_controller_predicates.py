"""Which changes pass which predicate."""

import pytest

from pilothouse.controller import annotations_changed, any_of, generation_changed, labels_changed
from pilothouse.kube import ObjectMeta
from tests.unit.tickets import Ticket

BEFORE = Ticket(ObjectMeta("a", generation=1))
SPEC = Ticket(ObjectMeta("a", generation=2))
LABELS = Ticket(ObjectMeta("a", generation=1, labels={"x": "y"}))
ANNOTATIONS = Ticket(ObjectMeta("a", generation=1, annotations={"x": "y"}))
CHANGES = (SPEC, LABELS, ANNOTATIONS)

CASES = [
    (generation_changed, [SPEC]),
    (labels_changed, [LABELS]),
    (annotations_changed, [ANNOTATIONS]),
    (any_of(generation_changed, labels_changed), [SPEC, LABELS]),
]


@pytest.mark.parametrize(("predicate", "passing"), CASES)
def test_a_predicate_passes_only_its_changes(predicate, passing):
    assert [new for new in CHANGES if predicate(BEFORE, new)] == passing
    assert not predicate(BEFORE, BEFORE)


@pytest.mark.parametrize("predicate", [predicate for predicate, _ in CASES])
def test_objects_that_appear_or_vanish_pass_every_predicate(predicate):
    assert predicate(None, BEFORE)
    assert predicate(BEFORE, None)
