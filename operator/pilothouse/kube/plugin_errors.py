"""The standard error of an exec plugin, without secret values.

The values that the plugin handles are known only in part: what it printed, its environment and its arguments.
So texts that look like a secret value are hidden, too.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from pilothouse.kube.errors import shorten
from pilothouse.telemetry.redaction import HIDDEN, redacted, without_values

#: How many lines are shown, and their maximum length in characters.
LINES, LINE_LENGTH = 3, 200

_NAMES = "token|secret|passw(?:or)?d|passphrase|credentials?|(?:api|access|private)[_-]?key|authorization"
_SECRET_NAME = re.compile(_NAMES, re.IGNORECASE)
_TERMINAL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x09\x0b-\x1f\x7f]")
# The patterns take a time that is quadratic in the length of a line.
_READ_LENGTH = 2000
_KEY = re.compile(r"-----BEGIN .*?(?:-----END [^\n]*|\Z)", re.DOTALL)
# A value after a name: --password=..., "clientSecret": "...". Without quotes and after a colon, only if it
# has a digit or is long, because "token: expired" is a reason.
_NAMED = re.compile(
    rf"""([\w-]*(?:{_NAMES})[\w-]*["']?\s*
        (?:=\s*|:\s*(?=["']|\S*[0-9]|\S{{20}}))(?:(?:bearer|basic)\s+)?)
        (?:"[^"]*"|'[^']*'|\S+)""",
    re.IGNORECASE | re.VERBOSE,
)
_ALIKE = (
    re.compile(r"(?<=\bbearer )(?=\S*[0-9]|\S{16})\S+", re.IGNORECASE),
    re.compile(r"(?<=\bauthorization: basic )\S+", re.IGNORECASE),
    re.compile(r"(?<=\bpassword: )\S+", re.IGNORECASE),
    # A JSON Web Token, and letters with digits that are too long for a word.
    re.compile(r"\beyJ[\w-]+(?:\.[\w-]*){0,2}"),
    re.compile(r"(?<![\w+=-])(?=[\w+=-]*[0-9])(?=[\w+=-]*[A-Za-z])[\w+=-]{24,}"),
)


def last_lines(errors: bytes, output: bytes, arguments: Sequence[str], environment: Mapping[str, str]) -> str:
    """Returns the last lines of a plugin's standard error on one line; empty if there are none.

    Args:
        errors: The standard error.
        output: The standard output. The values in it are hidden.
        arguments: The arguments of the plugin. Values of options such as --client-secret are hidden.
        environment: Its environment variables. Values of variables such as AWS_SECRET_ACCESS_KEY are hidden.
    """
    text = _TERMINAL.sub(" ", errors.decode(errors="replace").replace("\r", "\n"))
    values = [*_printed(output), *_given(arguments), *_set(environment)]
    text = redacted(without_values(text, lambda: values))
    lines = [" ".join(line.split()) for line in _KEY.sub(HIDDEN, text).splitlines()]
    return " / ".join(_line(line) for line in [line for line in lines if line][-LINES:])


def _line(line: str) -> str:
    line = _NAMED.sub(rf"\1{HIDDEN}", line[:_READ_LENGTH])
    for pattern in _ALIKE:
        line = pattern.sub(HIDDEN, line)
    return shorten(line, LINE_LENGTH)


def _printed(output: bytes) -> Iterator[str]:
    """Yields the values in the standard output: the status of an ExecCredential, or else the whole text."""
    text = output.decode(errors="replace").strip()
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        yield text
        yield from text.split()
        return
    yield from _texts(document.get("status") if isinstance(document, dict) else document)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _texts(each)


def _given(arguments: Sequence[str]) -> Iterator[str]:
    """Yields the values of options with the name of a secret: --client-secret=x, or --client-secret x."""
    for argument, following in pairwise([*arguments, ""]):
        name, separator, value = argument.partition("=")
        if name.startswith("-") and _SECRET_NAME.search(name):
            yield value if separator else following


def _set(environment: Mapping[str, str]) -> Iterator[str]:
    for name, value in environment.items():
        # Paths are not secret: AWS_WEB_IDENTITY_TOKEN_FILE.
        if _SECRET_NAME.search(name) and not value.startswith("/"):
            yield value
