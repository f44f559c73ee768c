"""Checks the pattern of a field. For development only: a running operator never imports it."""

import re
import warnings

# Python's errors about syntax that is not valid in RE2 either. Its other errors are about syntax that RE2 may
# have, such as \pL and \z.
_INVALID = re.compile(
    r"missing \)|unbalanced|unterminated|unexpected end|nothing to repeat|multiple repeat|min repeat|"
    "bad character range"
)
# An escape, a character class, or (as group 1) syntax of Python that RE2 lacks: groups that look around, are
# atomic, conditional or comments, and references to groups.
_PART = re.compile(r"\\[^1-9]|\[\^?\]?(?:\\.|[^\]\\])*\]|(\(\?(?:<?[=!]|[>(#]|P=)|\\[1-9])", re.DOTALL)


def require_pattern(pattern: str) -> None:
    """Checks a regular expression, which the API server compiles as RE2 (github.com/google/re2/wiki/Syntax).

    Raises:
        TypeError: The API server would refuse the pattern.
    """
    for part in _PART.finditer(pattern):
        if part[1]:
            raise TypeError(
                f"the API server does not support {part[1]!r} in the pattern {pattern!r}; use RE2 syntax"
            )
    if r"\Q" in pattern:
        return  # Quoted text in RE2, which Python does not have.
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # RE2's [[:alpha:]] looks like a mistake to Python.
            re.compile(pattern)
    except re.error as error:
        if _INVALID.search(error.msg):
            raise TypeError(f"the pattern {pattern!r} is not a valid regular expression: {error}") from None
