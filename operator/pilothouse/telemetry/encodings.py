r"""Finds a text where a server or a library has encoded it.

Every encoder leaves ASCII letters and digits as they are, and replaces other characters in its own way. For
example, `<` is `\u003c` in the JSON of Go, `%3C` in a URL, and `&lt;` in HTML. A message may be encoded
several times, such as JSON in a Go string. So the pattern of a text accepts every way for every character,
which also covers encoders that leave different characters alone.
"""

import re
from collections.abc import Iterator

# Every encoder writes one of these in place of another character.
MARKS = re.compile(r"[\\%&+\s'\"]")

# Longer texts are found in pieces, because a pattern is compiled for each of them.
PIECE_LENGTH = 1024
# Each level of quoting doubles the backslashes. A bound keeps the search linear.
_BACKSLASHES = r"\\{1,15}"
_OPTIONAL_BACKSLASHES = r"\\{0,15}"
_PERCENT = "%(?:25){0,4}"
_ENTITY = "&(?:amp;){0,4}"
# The escapes by letter of Go, Python, JSON and YAML.
_LETTERS = {
    "\0": "0",
    "\a": "a",
    "\b": "b",
    "\f": "f",
    "\v": "v",
    "\x1b": "e",
    "\x85": "N",
    "\xa0": "_",
    "\u2028": "L",
    "\u2029": "P",
}
_ENTITIES = {"&": "amp", "<": "lt", ">": "gt", '"': "quot", "'": "apos"}
# A run of characters that are encoded alike, or that YAML folds.
_TOKENS = re.compile(r"[A-Za-z0-9]+|\\+|[ \t\r\n]+|.", re.DOTALL)
_WORD = re.compile(r"[A-Za-z0-9]+")
# YAML wraps long texts at spaces, and indents the lines of a text.
_SPACE = (
    rf"(?:{_OPTIONAL_BACKSLASHES}[ \t\r\n]"
    rf"|{_BACKSLASHES}(?:[nrt]|(?:u00|x)(?:20|09|0[aA]|0[dD])|0(?:40|11|12|15))"
    rf"|{_PERCENT}(?:20|09|0[aA]|0[dD])|\+|{_ENTITY}\#(?:32|9|10|13|x20|x9|x[aAdD]);){{1,400}}"
)


def is_plain(text: str) -> bool:
    """Returns whether no encoder changes a text."""
    return text.isascii() and text.isalnum()


def anchor(text: str) -> str:
    """Returns the longest part of a text that occurs in every encoded form of it; it may be empty."""
    return max(_WORD.findall(text), key=len, default="")


def encoded(text: str) -> str:
    """Returns the pattern of the encoded forms of a text of at most `PIECE_LENGTH` characters."""
    return "".join(map(_token, _TOKENS.findall(text)))


def _token(token: str) -> str:
    first = token[0]
    if first.isascii() and first.isalnum():
        return token
    if first in " \t\r\n":
        return _SPACE
    if first == "\\":
        count = len(token)
        ways = rf"{_BACKSLASHES}(?:u005|x5)[cC]|\\|{_PERCENT}5[cC]|{_ENTITY}\#(?:92|x5[cC]);"
        return rf"(?:{ways}){{{count},{16 * count}}}"
    return _character(first)


def _character(character: str) -> str:
    """Returns the pattern of the ways in which encoders write a character, the longest first."""
    point, octets = ord(character), character.encode(errors="replace")
    percent = "".join(f"{_PERCENT}{_hex(f'{octet:02x}')}" for octet in octets)
    entity = rf"\#(?:0{{0,6}}{point}|[xX]0{{0,6}}{_hex(f'{point:x}')})"
    if character in _ENTITIES:
        entity = f"(?:{_ENTITIES[character]}|{entity})"
    ways = [
        f"{_BACKSLASHES}(?:{'|'.join(_escapes(character, point, octets))})",
        percent,
        f"{_ENTITY}{entity};",
        f"{_OPTIONAL_BACKSLASHES}{re.escape(character)}",
    ]
    if character == "'":
        # YAML doubles it, and a shell quotes it as '\'' or '"'"'.
        ways[:0] = [r"'\\{1,15}''", "'\"'\"'", "''"]
    return f"(?:{'|'.join(ways)})"


def _escapes(character: str, point: int, octets: bytes) -> Iterator[str]:
    """Yields the patterns of the escapes of a character, without the backslashes before them."""
    if character in _LETTERS:
        yield _LETTERS[character]
    if point < 0x10000:
        yield f"u{_hex(f'{point:04x}')}"
    else:
        # JSON writes two surrogates.
        pair = character.encode("utf-16-be").hex()
        yield f"U{_hex(f'{point:08x}')}"
        yield f"u{_hex(pair[:4])}{_BACKSLASHES}u{_hex(pair[4:])}"
    if 0x7F < point < 0x100:
        yield f"x{_hex(f'{point:02x}')}"
    yield _BACKSLASHES.join(f"x{_hex(f'{octet:02x}')}" for octet in octets)
    yield _BACKSLASHES.join(f"{octet:03o}" for octet in octets)


def _hex(digits: str) -> str:
    return "".join(f"[{each}{each.upper()}]" if each.isalpha() else each for each in digits)
