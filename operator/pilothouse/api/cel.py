"""Checks the syntax and the fields of CEL rules. For development only: a running operator never imports it.

The grammar is that of github.com/google/cel-spec/blob/master/doc/langdef.md. Types and functions are not
checked: the API server does that when the CRD is installed.
"""

import re
from collections.abc import Sequence

_TOKEN = re.compile(
    r"""
    (?P<space>\s+|//[^\n]*)
    |(?P<text>[rRbB]{0,2}(?:\"{3}(?:\\.|[^\\])*?\"{3}|'{3}(?:\\.|[^\\])*?'{3}
        |"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'))
    |(?P<number>0x[0-9a-fA-F]+u?|[0-9]*\.[0-9]+(?:[eE][+-]?[0-9]+)?|[0-9]+[eE][+-]?[0-9]+|[0-9]+[uU]?)
    |(?P<name>[A-Za-z_][A-Za-z0-9_]*|`[^`\n]+`)
    |(?P<sign>&&|\|\||[=!<>]=|[-+*/%<>!?:.,()\[\]{}])
    """,
    re.VERBOSE | re.DOTALL,
)
_BINARY = {"&&", "||", "==", "!=", "<", "<=", ">", ">=", "in", "+", "-", "*", "/", "%"}
_CLOSING = {"(": ")", "[": "]", "{": "}"}

Path = tuple[str, ...]


def paths_of_self(rule: str) -> Sequence[Path]:
    """Returns the fields that a rule reads from `self`: ("spec", "size") for `self.spec.size > 1`.

    Raises:
        TypeError: The rule is not a CEL expression. The text names the place.
    """
    parser = _Parser(rule)
    parser.expression()
    if parser.next:
        parser.refuse("the end of the rule")
    return parser.paths


class _Parser:
    """A recursive-descent parser without a result: it accepts a rule, and notes what it reads of `self`."""

    def __init__(self, rule: str) -> None:
        self.paths: list[Path] = []
        self._rule = rule
        self._tokens: list[tuple[str, str, int]] = []
        self._at = 0
        place = 0
        while place < len(rule):
            found = _TOKEN.match(rule, place)
            if found is None:
                quote = rule[place] in "\"'"
                problem = "has no closing quote" if quote else "is not allowed there"
                raise TypeError(
                    f"the CEL rule {rule!r} is not valid: {rule[place]!r} at {place + 1} {problem}"
                )
            if found.lastgroup != "space":
                self._tokens.append((str(found.lastgroup), found[0], place))
            place = found.end()

    @property
    def next(self) -> str:
        """The next token; empty at the end."""
        return self._tokens[self._at][1] if self._at < len(self._tokens) else ""

    def refuse(self, expected: str) -> None:
        """Raises the error for the next token."""
        place = f"{self.next!r} at {self._tokens[self._at][2] + 1}" if self.next else "the end"
        raise TypeError(f"the CEL rule {self._rule!r} is not valid: expected {expected}, found {place}")

    def expression(self) -> None:
        """Reads operands with operators between them, and at most one condition `? :`."""
        self._operand()
        while self.next in _BINARY:
            self._at += 1
            self._operand()
        if self._read("?"):
            self.expression()
            self._require(":")
            self.expression()

    def _operand(self) -> None:
        while self.next in ("!", "-"):
            self._at += 1
        path = self._primary()
        while True:
            if self._read("."):
                optional = self._read("?")
                name = self._name()
                called = self.next == "("
                if called:
                    self._at += 1
                    self._list(")")
                if path is not None and not (called or optional):
                    path = (*path, name)
                    continue
                path = self._note(path)
            elif self._read("["):
                path = self._note(path)
                self._read("?")
                self.expression()
                self._require("]")
            elif self.next == "{" and self._tokens[self._at - 1][0] == "name":
                self._at += 1
                self._list("}", pairs=True)
            else:
                self._note(path)
                return

    def _note(self, path: Path | None) -> Path | None:
        """Notes a path that has ended, and returns None: what follows is not a field of `self`."""
        if path:
            self.paths.append(path)
        return None

    def _primary(self) -> Path | None:
        """Reads a value without its selectors. Returns an empty path if it is `self`."""
        kind = self._tokens[self._at][0] if self.next else ""
        if kind in ("text", "number"):
            self._at += 1
        elif self.next in _CLOSING:
            opening = self.next
            self._at += 1
            if opening == "(":
                self.expression()
                self._require(")")
            else:
                self._list(_CLOSING[opening], pairs=opening == "{")
        else:
            self._read(".")
            name = self._name()
            if self._read("("):
                self._list(")")
            elif name == "self":
                return ()
        return None

    def _list(self, closing: str, *, pairs: bool = False) -> None:
        """Reads expressions, or pairs of them, up to the closing bracket."""
        while self.next != closing:
            self._read("?")
            self.expression()
            if pairs:
                self._require(":")
                self.expression()
            if not self._read(","):
                break
        self._require(closing)

    def _name(self) -> str:
        name = self.next
        if not name or self._tokens[self._at][0] != "name" or name == "in":
            self.refuse("a value")
        self._at += 1
        return name.strip("`")

    def _read(self, sign: str) -> bool:
        found = self.next == sign
        self._at += found
        return found

    def _require(self, sign: str) -> None:
        if not self._read(sign):
            self.refuse(repr(sign))
