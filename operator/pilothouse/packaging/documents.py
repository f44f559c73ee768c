"""Writes YAML for people to read. The same input gives the same bytes.

Strings are quoted if any reader could take them for something else. PyYAML writes plain scalars for its own
reader, but kubectl reads YAML 1.1 with more booleans and numbers (sigs.k8s.io/yaml, resolve.go), and other
tools read YAML 1.2.
"""

import re
from collections.abc import Iterable
from typing import Any

from pilothouse.packaging.mistakes import ProjectError

Document = dict[str, Any]

try:
    import yaml
except ModuleNotFoundError:
    raise ProjectError("PyYAML is not installed. Install it: pip install 'pilothouse[host]'") from None


# What some reader takes for null, a boolean, a number or a timestamp, without the underscores, which Go and
# YAML 1.1 ignore in numbers. Sources: yaml.org/type (YAML 1.1), the core schema (YAML 1.2, section 10.3.2),
# and resolve.go of go.yaml.in/yaml v2 and v3, which reads numbers with strconv.
_NOT_A_STRING = re.compile(
    r"""
    ~ | null | y | n | yes | no | on | off | true | false | = | <<
    | [-+]? ( 0b[01]+ | 0o[0-7]+ | 0x[0-9a-f]+ )
    | [-+]? ( [0-9]+ \.? [0-9]* | \. [0-9]+ ) ( e [-+]? [0-9]+ )?
    | [-+]? [0-9]+ ( : [0-9]+ )+ ( \. [0-9]* )?
    | [-+]? \. ( inf | nan )
    | [0-9]{4} - [0-9]{1,2} - [0-9]{1,2} ( [t\s] .* )?
    """,
    re.VERBOSE | re.IGNORECASE | re.ASCII,
)
# Line breaks in YAML 1.1 only. Escaped, every reader takes them for characters.
_OLD_BREAKS = re.compile("[\x85\u2028\u2029]")


class _Dumper(yaml.SafeDumper):
    """Writes multi-line strings as blocks, and no anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=_style(text))


def _style(text: str) -> str | None:
    """Returns how a string is written; None if plain, unless its characters require quotes."""
    if _OLD_BREAKS.search(text):
        return '"'
    if "\n" in text:
        return "|"
    return "'" if _NOT_A_STRING.fullmatch(text.replace("_", "")) else None


_Dumper.add_representer(str, _text)


def dump(document: Document, *, comment: str = "") -> str:
    """Returns a document as YAML below an optional comment line. Keys keep their order."""
    text: str = yaml.dump(  # noqa: TID251
        document, Dumper=_Dumper, sort_keys=False, width=110, allow_unicode=True
    )
    return f"# {comment}\n{text}" if comment else text


def dump_all(documents: Iterable[Document]) -> str:
    """Returns several documents as one YAML stream."""
    return "---\n".join(map(dump, documents))
