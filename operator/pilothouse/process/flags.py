"""Settings as a table, and as flags of a command line.

A settings class says everything once: the text below an attribute names its environment variable and tells
what it sets. From that come the flag (`LEADER_ELECT` is `--leader-elect`), the text of `--help` and the page
of reference. Flags are laid over the environment, so each setting is read and checked in one place.
"""

import argparse
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
    """One line of the table.

    Attributes:
        name: The variable.
        meaning: What it sets.
        default: What holds without it, as it is written; empty when the meaning says it.
        switch: It is on or off: its flag alone means on.
    """

    name: str
    meaning: str
    default: str
    switch: bool = False

    @property
    def flag(self) -> str:
        """The flag of the same meaning."""
        return "--" + self.name.lower().replace("_", "-")


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
        kind = types[attribute.target.id]
        if isinstance(after, ast.Expr):
            text = inspect.cleandoc(ast.literal_eval(after.value))
            yield _setting(cls, text, attribute.value, switch=kind is bool)
        elif is_dataclass(kind) and isinstance(kind, type):
            yield from settings(kind)


def add_flags(parser: argparse.ArgumentParser, *classes: type) -> None:
    """Gives a parser a flag for each setting of some classes; `overlay` says which were given."""
    for cls in classes:
        group = parser.add_argument_group(f"{cls.__name__} (each is also an environment variable)")
        for setting in settings(cls):
            meaning = " ".join(setting.meaning.split())
            default = f" [{setting.default}]" if setting.default else ""
            group.add_argument(
                setting.flag,
                dest=setting.name,
                metavar="true|false" if setting.switch else setting.name,
                nargs="?" if setting.switch else None,
                const="true" if setting.switch else None,
                default=argparse.SUPPRESS,
                help=f"{meaning}{default}".replace("%", "%%"),
            )


def overlay(arguments: argparse.Namespace) -> dict[str, str]:
    """The variables that flags have set: `{**os.environ, **overlay(arguments)}` is what holds."""
    return {name: value for name, value in vars(arguments).items() if name.isupper()}


def _setting(cls: type, text: str, value: ast.expr | None, *, switch: bool) -> Setting:
    match = _DOCUMENTED.fullmatch(text)
    if not match:
        raise ValueError(f"{cls.__name__}: {text!r} does not begin with the name of a variable")
    return Setting(match["name"], match["meaning"], match["default"] or _default(value), switch)


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
