"""Patterns are checked as the API server does, which compiles them as RE2."""

import pytest

from pilothouse.api.patterns import require_pattern


@pytest.mark.parametrize(
    "pattern",
    [
        "^a+$",
        r"^\pL\z",
        r"[(?=\]x]+",
        r"\(\?=",
        "[[:alpha:]]",
        r"\Q(\E",
        "(?P<x>a)",
        "(?i:a)",
        "[]a]",
        "a{1,3}?",
    ],
)
def test_a_valid_pattern_passes(pattern: str) -> None:
    require_pattern(pattern)


@pytest.mark.parametrize("pattern", ["(", ")", "[a", "*a", "a**", "[z-a]", "a{3,1}", "(?"])
def test_an_invalid_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(TypeError, match="is not a valid regular expression"):
        require_pattern(pattern)


@pytest.mark.parametrize(
    "pattern", ["a(?=b)", "(?!a)", "(?<=a)b", "(?<!a)b", "(?>a)", r"(a)\1", "(?P<x>a)(?P=x)"]
)
def test_syntax_that_the_api_server_lacks_is_refused(pattern: str) -> None:
    with pytest.raises(TypeError, match="the API server does not support"):
        require_pattern(pattern)
