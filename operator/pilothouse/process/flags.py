"""Settings as a table, and as command-line flags.

A settings class is the only source: the string below an attribute names the environment variable and
describes it. The flag (`LEADER_ELECT` becomes `--leader-elect`), its `--help` text and the reference page are
generated from that string. Flags override environment variables, so each setting is read and checked in one
place.
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
    """One row of the settings table.

    Attributes:
        name: The environment variable.
        meaning: What it sets.
        default: The default, as a user would write it; empty if the meaning describes it.
        switch: Whether the setting is a boolean. The flag of a boolean means true if it has no value.
    """

    name: str
    meaning: str
    default: str
    switch: bool = False

    @property
    def flag(self) -> str:
        """The command-line flag of the setting."""
        return "--" + self.name.lower().replace("_", "-")


def settings(cls: type) -> Iterator[Setting]:
    """Yields the settings of a class whose attributes are followed by strings such as `LOG_LEVEL: The level`.

    The string may end with the default as a user would write it: `Default: :8081.` An attribute without a
    string stands for the settings of its type, if that is a dataclass.

    Raises:
        ValueError: A string does not begin with the name of a variable.
    """
    definition = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    if not isinstance(definition, ast.ClassDef):
        raise ValueError(f"the source of {cls.__name__} is not a class definition")
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
    """Adds a flag to a parser for each setting of the classes. `overlay` returns the flags that are given."""
    for cls in classes:
        group = parser.add_argument_group(f"{cls.__name__} (each flag is also an environment variable)")
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
    """Returns the variables that flags have set, for use as `{**os.environ, **overlay(arguments)}`."""
    return {name: value for name, value in vars(arguments).items() if name.isupper()}


def _setting(cls: type, text: str, value: ast.expr | None, *, switch: bool) -> Setting:
    match = _DOCUMENTED.fullmatch(text)
    if not match:
        raise ValueError(f"{cls.__name__}: {text!r} does not begin with the name of an environment variable")
    return Setting(match["name"], match["meaning"], match["default"] or _default(value), switch)


def _default(value: ast.expr | None) -> str:
    """Returns a number or a word as a user would write it; empty for anything else."""
    match value:
        case ast.Constant(bool() | None):
            return ""
        case ast.Constant(float(number)):
            return f"{number:g}"
        case ast.Constant(word):
            return str(word)
    return ""
