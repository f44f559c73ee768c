"""Writes YAML for people to read. The same input gives the same bytes."""

from typing import Any

from pilothouse.packaging.mistakes import ProjectError

Document = dict[str, Any]

try:
    import yaml
except ModuleNotFoundError:
    raise ProjectError("PyYAML is not installed. Install it: pip install 'pilothouse[host]'") from None


class _Dumper(yaml.SafeDumper):
    """Writes multi-line strings as blocks, and no anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def dump(document: Document, *, comment: str = "") -> str:
    """Returns a document as YAML below an optional comment line. Keys keep their order."""
    text: str = yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=110, allow_unicode=True)
    return f"# {comment}\n{text}" if comment else text
