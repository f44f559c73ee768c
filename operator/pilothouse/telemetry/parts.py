"""Finds the parts of a secret value that are secret on their own.

A value may be a file with several lines, a list of settings, a JSON document, a URL or a credential for HTTP.
A message often quotes only one part of it, such as the password.
"""

import base64
import binascii
import json
import re
from collections.abc import Iterator
from urllib.parse import unquote

# Shorter lines and settings may be ordinary words.
PART_LENGTH = 8
# Settings with such a name are parts whatever their length.
_SECRET_NAME = re.compile(r"pass|pwd|pw$|secret|token|credential|key$|auth$|pin$", re.IGNORECASE)
# A setting of another name is no part if it is an ordinary word, such as "database".
_ORDINARY = re.compile(r"[a-z]+(-[a-z]+)*")
_SETTING = re.compile(r"""(?<![\w.\-])([\w.\-]*)["']?\s*[=:]\s*("[^"]*"|'[^']*'|[^\s;,&"']+)""")
_FIRST = re.compile(r"\s*[^=:]*[=:]\s*")
# The bounds keep the search linear. The second pattern is for a password that contains "@" itself.
_USER_INFO = (
    re.compile(r"://[^/\s\"'<>@:]{0,256}:([^\s\"'<>@]{1,512})@"),
    re.compile(r"://[^/\s\"'<>@:]{0,256}:([^/\s\"'<>]{1,512})@"),
)
_BASIC = re.compile(r"\bBasic +([A-Za-z0-9+/_-]{4,}={0,2})", re.IGNORECASE)
_STANDARD = str.maketrans("-_", "+/")
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{4,}={0,2}")


def parts(text: str) -> Iterator[str]:
    """Yields a value and the parts of it that are secret on their own.

    These are lines of at least 8 characters, strings in JSON, passwords in URLs and in HTTP's Basic
    authorization, and settings (`NAME=value`, `name: value`) whose name is that of a secret, or that have at
    least 8 characters and are not a plain word in lower case.
    """
    yield text
    yield text.strip()
    yield from _credentials(text)
    lines = text.splitlines()
    for line in lines:
        stripped = line.strip()
        if stripped.startswith("-----"):
            continue
        if len(lines) > 1 and len(stripped) >= PART_LENGTH:
            yield line
            yield stripped
        yield from _settings(stripped)
    if text.lstrip()[:1] in ("{", "["):
        try:
            yield from _leaves(json.loads(text))
        except (ValueError, RecursionError):
            return


def basic_password(credential: str) -> str:
    """Returns the password in the base64 of "user:password"; empty if it is something else."""
    padded = credential.rstrip("=")
    padded += "=" * (-len(padded) % 4)
    try:
        decoded = base64.b64decode(padded.translate(_STANDARD), validate=True).decode()
    except (binascii.Error, ValueError):
        return ""
    return decoded.partition(":")[2] if decoded.isprintable() else ""


def without_basic(text: str, hidden: str) -> str:
    """Returns the text with the credential of each `Basic` authorization replaced."""
    return _BASIC.sub(
        lambda found: f"{found[0][: -len(found[1])]}{hidden}" if basic_password(found[1]) else found[0], text
    )


def _settings(line: str) -> Iterator[str]:
    """Yields the values in a line such as `PASSWORD=...`, `password: ...` or `host:port:user:password`."""
    for found in _SETTING.finditer(line):
        name, value = found[1], found[2].strip("\"'")
        if _is_part(name, value):
            yield value
        last = value.rpartition(":")[2]
        if last != value and _is_part("", last):
            yield last
    # The value may contain blanks and separators.
    name, value = _first(line)
    if _is_part(name, value):
        yield value


def _first(line: str) -> tuple[str, str]:
    found = _FIRST.match(line)
    if found is None:
        return "", ""
    return found[0].strip(" \t=:\"'"), line[found.end() :].strip().strip("\"'")


def _is_part(name: str, value: str) -> bool:
    if _SECRET_NAME.search(name):
        return bool(value)
    return len(value) >= PART_LENGTH and not _ORDINARY.fullmatch(value)


def _credentials(text: str) -> Iterator[str]:
    """Yields the passwords in URLs and in authorizations of HTTP."""
    if "://" in text:
        for pattern in _USER_INFO:
            for found in pattern.finditer(text):
                yield found[1]
                yield unquote(found[1])
    for found in _BASIC.finditer(text):
        yield found[1]
        yield basic_password(found[1])
    if _BASE64.fullmatch(text.strip()):
        yield basic_password(text.strip())


def _leaves(value: object) -> Iterator[str]:
    """Yields the strings in a JSON document, such as the passwords in a .dockerconfigjson."""
    if isinstance(value, str):
        yield from parts(value)
    elif isinstance(value, dict):
        for each in value.values():
            yield from _leaves(each)
    elif isinstance(value, list):
        for each in value:
            yield from _leaves(each)
