"""Every reader of the written YAML sees the strings that were written."""

import re

import pytest
import yaml
from hypothesis import example, given, strategies

from pilothouse.packaging.documents import Document, dump, dump_all

# YAML 1.2.2, section 10.3.2: the core schema. A plain scalar that does not match is a string.
CORE = re.compile(
    r"|null|Null|NULL|~|true|True|TRUE|false|False|FALSE|[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+"
    r"|[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?(\.inf|\.Inf|\.INF)|\.nan|\.NaN|\.NAN"
)
# yaml.org/type: YAML 1.1, except that readers take only a number with a digit and one point for a float.
OLD = re.compile(
    r"|~|null|Null|NULL|=|<<|y|Y|yes|Yes|YES|n|N|no|No|NO|true|True|TRUE|false|False|FALSE"
    r"|on|On|ON|off|Off|OFF|[-+]?0b[01_]+|[-+]?0[0-7_]+|[-+]?(0|[1-9][0-9_]*)|[-+]?0x[0-9a-fA-F_]+"
    r"|[-+]?[1-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?|[-+]?([0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)([eE][-+][0-9]+)?"
    r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)|[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"|[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([Tt]|[ \t]+)[0-9]{1,2}:[0-9]{2}:[0-9]{2}(\.[0-9]*)?"
    r"([ \t]*(Z|[-+][0-9]{1,2}(:[0-9]{2})?))?"
)
# Go's yaml, resolve.go: yamlStyleFloat after the underscores are removed; strconv.ParseInt with base 0.
GO = re.compile(
    r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?(0[bB][01]+|0[oO]?[0-7]+|0[xX][0-9a-fA-F]+)"
    r"|[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([Tt ][0-9]{1,2}:[0-9]{1,2}:[0-9]{1,2}.*)?"
)

WORDS = [
    "y",
    "Y",
    "n",
    "N",
    "yes",
    "No",
    "on",
    "OFF",
    "true",
    "null",
    "~",
    "=",
    "<<",
    "1e3",
    "1E5",
    ".1e3",
    "1.",
    "0o7",
    "0O7",
    "-0o7",
    "0b1",
    "-0B1",
    "0x1F",
    "1_000",
    "1_0",
    "+1",
    "-_1",
    "0_b1",
    "07",
    "08",
    "12:30",
    "1:30",
    "190:20:30.15",
    "2001-01-01",
    "2001-1-1",
    "2001-1-1T1:2:3Z",
    ".inf",
    "-.INF",
    ".NaN",
]

TEXTS = strategies.one_of(
    strategies.text(),
    strategies.text("yYnNoOeExXbBfFtTzZ0123456789_+-.:~ \n\t#'\"=<", max_size=12),
    *(strategies.from_regex(each, fullmatch=True) for each in (CORE, OLD, GO)),
)


def strings(text: str) -> list[str]:
    """Returns what the strings in a YAML text are for a reader that takes plain scalars for more types."""
    found = [each for each in yaml.parse(text) if isinstance(each, yaml.ScalarEvent)]
    plain = [each.value for each in found if each.implicit[0]]
    for each in plain:
        assert not CORE.fullmatch(each), each
        assert not OLD.fullmatch(each), each
        assert not GO.fullmatch(each.replace("_", "")), each
    return [each.value for each in found]


@pytest.mark.parametrize("word", WORDS)
def test_a_word_that_a_reader_takes_for_another_type_is_quoted(word: str) -> None:
    assert dump({word: word}) == f"'{word}': '{word}'\n"


@pytest.mark.parametrize(
    "word", ["x", "yaml", "v1", "0.1.0", "1.2.3.4", "1e3s", "30s", "500m", "1Gi", "on-call", "/v1", "_"]
)
def test_other_words_stay_plain(word: str) -> None:
    assert dump({word: word}) == f"{word}: {word}\n"


@given(TEXTS, TEXTS)
@example("a\u2028b", "a\x85b")
def test_what_is_written_is_read_as_the_same_strings(key: str, value: str) -> None:
    document = {key: value, f"{key}list": [value, {value: [key]}]}
    text = dump(document)
    assert yaml.safe_load(text) == document
    assert strings(text) == [key, value, f"{key}list", value, value, key]


def test_other_types_stay_what_they_are() -> None:
    document: Document = {"a": True, "b": None, "c": 1, "d": 1e20, "e": 0.5, "f": [], "g": {}, "h": [1, "1"]}
    assert yaml.safe_load(dump(document)) == document


def test_several_documents_are_one_stream() -> None:
    documents = [{"y": "n"}, {"a": "b"}]
    assert list(yaml.safe_load_all(dump_all(documents))) == documents
