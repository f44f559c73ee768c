"""The environment variables of a settings class, from the words that stand below its attributes."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, is_dataclass
from itertools import pairwise
from typing import get_type_hints

_DOCUMENTED = re.compile(
    r"(?P<name>[A-Z][A-Z_]+): (?P<meaning>.*?)(\sDefault: (?P<default>\S+)\.)?", re.DOTALL
)


@dataclass(frozen=True)
class Setting:
    """One line of the reference.

    Attributes:
        name: The variable.
        meaning: What it sets.
        default: What holds without it, as it is written; empty when the meaning says it.
    """

    name: str
    meaning: str
    default: str


def settings(cls: type) -> Iterator[Setting]:
    """The settings of a class, whose attributes are each followed by a text such as `LOG_LEVEL: what it is`.

    The text may end with what holds otherwise, as one sets it: `Default: :8081.` An attribute without a text
    whose type is such a class has the settings of that.

    Raises:
        ValueError: such a text does not begin with the name of a variable.
    """
    definition = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    if not isinstance(definition, ast.ClassDef):
        raise ValueError(f"{cls.__name__} is not a class in its source")
    types = get_type_hints(cls)
    for attribute, after in pairwise((*definition.body, ast.Pass())):
        if not isinstance(attribute, ast.AnnAssign) or not isinstance(attribute.target, ast.Name):
            continue
        if isinstance(after, ast.Expr):
            yield _setting(cls, inspect.cleandoc(ast.literal_eval(after.value)), attribute.value)
        elif is_dataclass(kind := types[attribute.target.id]) and isinstance(kind, type):
            yield from settings(kind)


def _setting(cls: type, text: str, value: ast.expr | None) -> Setting:
    match = _DOCUMENTED.fullmatch(text)
    if not match:
        raise ValueError(f"{cls.__name__}: {text!r} does not begin with the name of a variable")
    return Setting(match["name"], match["meaning"], match["default"] or _default(value))


def _default(value: ast.expr | None) -> str:
    """Numbers and words as a person would set them; anything else is left to the meaning."""
    match value:
        case ast.Constant(bool() | None):
            return ""
        case ast.Constant(float(number)):
            return f"{number:g}"
        case ast.Constant(word):
            return str(word)
    return ""
