"""Describes the differences between two states: parts that are missing, left over or have another value."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from itertools import islice
from typing import Any, NamedTuple

import msgspec

#: Maximum number of differences in a report.
SHOWN = 12
#: Maximum length of a value in a report, in characters.
VALUE_LENGTH = 160

_MISSING = object()
# The keys that identify the items of a list, as in the list-maps of Kubernetes.
_KEYS = ("name", "type", "uid")


class Difference(NamedTuple):
    """A part that differs between two states. The value is _MISSING if a state does not have the part."""

    path: str
    one: Any
    other: Any

    def as_unexpected(self) -> str:
        """Returns a description, where the first state is the expected one."""
        path, one, other = self.path or "state()", brief(_plain(self.one)), brief(_plain(self.other))
        if self.other is _MISSING:
            return f"{path} is missing: expected {one}"
        if self.one is _MISSING:
            return f"{path} should not exist: found {other}"
        return f"{path}: expected {one}, found {other}"

    def as_change(self) -> str:
        """Returns a description, where the second state follows the first."""
        if self.other is _MISSING:
            return f"{self.path} removed"
        one = "" if self.one is _MISSING else f"{brief(_plain(self.one))} -> "
        return f"{self.path}: {one}{brief(_plain(self.other))}"


class Fact(NamedTuple):
    """A text in a state: a key, or a value that is not a number.

    Attributes:
        path: The keys that lead to it. All items of a list have the same path.
        text: The text.
    """

    path: str
    text: str

    def __str__(self) -> str:
        return brief(_joined(self.path, self.text) if self.path else self.text)


def facts(state: object, path: str = "") -> Iterator[Fact]:
    """Yields the texts in a state."""
    value = _plain(state)
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield Fact(path, str(key))
            yield from facts(each, _joined(path, str(key)))
    elif isinstance(value, Set) or _is_list(value):
        for each in value:
            yield from facts(each, f"{path}[]")
    elif value is not None and not isinstance(value, int | float):
        yield Fact(path, str(value))


def differences(expected: object, found: object) -> list[str]:
    """Returns a line per difference, at most `SHOWN`, and a line with the number of the others.

    Args:
        expected: The state without faults.
        found: The state to compare with it.
    """
    return _bounded(each.as_unexpected() for each in _compare("", expected, found))


def changes(before: object, after: object) -> list[str]:
    """Returns a line per change between two states, at most `SHOWN`, and one that counts the others."""
    return _bounded(each.as_change() for each in _compare("", before, after))


def _bounded(lines: Iterator[str]) -> list[str]:
    first = list(islice(lines, SHOWN))
    more = sum(1 for _ in lines)
    return [*first, f"and {more} more"] if more else first


def excess(expected: Counter[str], found: Counter[str]) -> list[str]:
    """Returns a line for each effect that happened more often than expected."""
    return [
        f"{brief(effect)}: {times(found[effect])}, but {times(expected[effect])} without faults"
        for effect in islice((found - expected), SHOWN)
    ]


def times(count: int) -> str:
    """Returns a number of times in words: never, once, 2 times."""
    return {0: "never", 1: "once"}.get(count, f"{count} times")


def brief(value: object) -> str:
    """Returns a value on one line of bounded length."""
    text = value if isinstance(value, str) else repr(value)
    text = " ".join(text.split())
    return text if len(text) <= VALUE_LENGTH else f"{text[: VALUE_LENGTH - 3]}..."


def _compare(path: str, expected: Any, found: Any) -> Iterator[Difference]:
    if found is _MISSING or expected is _MISSING:
        yield Difference(path, expected, found)
        return
    if expected == found:
        return
    expected, found = _plain(expected), _plain(found)
    if isinstance(expected, Mapping) and isinstance(found, Mapping):
        names = dict.fromkeys([*expected, *found])
        for name in names:
            yield from _compare(
                _joined(path, str(name)), expected.get(name, _MISSING), found.get(name, _MISSING)
            )
    elif _is_list(expected) and _is_list(found):
        yield from _compare_lists(path, expected, found)
    else:
        yield Difference(path, expected, found)


def _compare_lists(path: str, expected: Sequence[Any], found: Sequence[Any]) -> Iterator[Difference]:
    for key in _KEYS:
        if all(isinstance(each, Mapping) and key in each for each in (*expected, *found)):
            by_key = ({str(each[key]): each for each in items} for items in (expected, found))
            yield from _compare(path, *by_key)
            return
    for index in range(max(len(expected), len(found))):
        where = f"{path or 'state()'}[{index}]"
        yield from _compare(where, _at(expected, index), _at(found, index))


def _at(items: Sequence[Any], index: int) -> Any:
    return items[index] if index < len(items) else _MISSING


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _joined(path: str, name: str) -> str:
    if not path:
        return name
    last = path.rpartition(": ")[2]
    # The name of an object has a space: "configmaps default/a".
    return f"{path}: {name}" if " " in last or last.startswith("state()") else f"{path}.{name}"


def _plain(value: Any) -> Any:
    """Returns a Struct or dataclass as a dict, so that its fields can be compared."""
    if value is _MISSING or isinstance(value, Mapping | str | bytes | list):
        return value
    if isinstance(value, tuple) and not hasattr(value, "_fields"):
        return value
    if isinstance(value, tuple):
        return dict(zip(getattr(value, "_fields", ()), value, strict=True))
    if isinstance(value, msgspec.Struct):
        return {name: getattr(value, name) for name in value.__struct_fields__}
    fields = getattr(value, "__dataclass_fields__", None)
    return {name: getattr(value, name) for name in fields} if fields else value
