"""The syntax of CEL rules, and the fields that they read."""

import pytest

from pilothouse.api.cel import paths_of_self

VALID = [
    "true",
    "self.size >= 1 && self.size <= 7",
    "!has(self.from) || size(self.from) <= 100",
    "self.items.all(each, !each.name.startsWith('a') && each.port in [1, 2u, 0x1F])",
    "oldSelf.hasValue() ? oldSelf.value().size == self.size : -self.size < 1.5e3",
    "self.labels['a'] == \"b's\" + r'\\d'",
    "{'a': 1, 'b': 2}['a'] == 1",
    "self.?size.orValue(1) > 0 && self.map[?'a'].hasValue()",
    "quantity(self.size).isGreaterThan(quantity('1Gi')) // a comment",
    "!!self.enabled && --self.size < 3",
    "duration('1h') > google.protobuf.Duration{seconds: 5}",
    "(self.a ? 1 : self.b ? 2 : 3) == 2",
    "'''a\nb''' == self.text",
]
INVALID = [
    ("", "expected a value, found the end"),
    ("self ==", "expected a value, found the end"),
    ("has(self.message &&", "expected a value, found the end"),
    ("has(self.message", "expected '\\)', found the end"),
    ("self.size > 1)", "expected the end of the rule, found '\\)' at 14"),
    ("self.size >> 1", "expected a value, found '>' at 12"),
    ("self.size = 1", "'=' at 11 is not allowed there"),
    ("self.name == 'a", "at 14 has no closing quote"),
    ("self.size > 1 ? 2", "expected ':', found the end"),
    ("self.size and true", "expected the end of the rule, found 'and' at 11"),
    ("self.[0]", "expected a value"),
    ("[1, 2", "expected '\\]', found the end"),
    ("self.size > $1", "at 13 is not allowed there"),
    ("{'a'}", "expected ':'"),
]


@pytest.mark.parametrize("rule", VALID)
def test_a_valid_rule_is_accepted(rule: str) -> None:
    paths_of_self(rule)


@pytest.mark.parametrize(("rule", "problem"), INVALID)
def test_an_invalid_rule_is_refused_with_the_place(rule: str, problem: str) -> None:
    with pytest.raises(TypeError, match=problem):
        paths_of_self(rule)


def test_it_finds_the_fields_of_self() -> None:
    rule = (
        "has(self.a.b) && self.c.all(x, x.d > 1) && self.e[0].f == oldSelf.g && self.?h.i == 'self.j' && self"
    )
    assert paths_of_self(rule) == [("a", "b"), ("c",), ("e",)]
