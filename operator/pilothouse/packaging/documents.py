"""YAML for files that people read. The same input gives the same bytes."""

from typing import Any

from pilothouse.packaging.mistakes import ProjectError

Document = dict[str, Any]

try:
    import yaml
except ModuleNotFoundError:
    raise ProjectError("PyYAML is not installed. Install it: pip install 'pilothouse[host]'") from None


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as they are, and no anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def dump(document: Document, *, comment: str = "") -> str:
    """Returns the document as YAML, with its keys in their order, below a comment line."""
    text: str = yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=110, allow_unicode=True)
    return f"# {comment}\n{text}" if comment else text
