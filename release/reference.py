"""Writes the reference page of a kind from its declaration."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from pilothouse.api import Kind
from pilothouse.api.crd import object_schema
from pilothouse.playbook.annotations import PAUSED, RECONCILE
from pilothouse.process.flags import settings
from release.descriptors import fields
from release.documents import Document, dump

_ANNOTATIONS = (
    "## Annotations",
    "",
    f'- `{PAUSED}: "true"`: the operator does not touch the object, even if it is deleted, until you remove '
    "the annotation.",
    f"- `{RECONCILE}`: if you set a new value, the operator reconciles the object immediately, even after a "
    "permanent failure.",
    "",
)

HEAD = "<!-- Written by `./inv generate` from the types; change those. -->\n"


def page(kind: Kind[Any], sample: Document, classes: Sequence[type]) -> str:
    """Returns the page: the kind, an example, its fields, reasons and annotations, the operator's settings.

    Args:
        kind: The declaration of the kind.
        sample: An example object.
        classes: The settings classes of its operator.
    """
    resource = kind.resource
    short = "".join(f", `{name}`" for name in kind.short_names)
    return "\n".join(
        (
            HEAD,
            f"# {resource.kind}",
            "",
            f"API version `{resource.api_version}`. Names for kubectl: `{resource.plural}`{short}.",
            "",
            kind.description,
            "",
            "```yaml",
            dump(sample).rstrip(),
            "```",
            "",
            *_fields("spec", "Spec", kind),
            *_rules(kind),
            *_fields("status", "Status", kind),
            *_reasons(kind),
            *_columns(kind),
            *_ANNOTATIONS,
            *_settings(classes),
        )
    )


def _fields(part: str, title: str, kind: Kind[Any]) -> list[str]:
    schema = _properties(object_schema(kind))[part]
    lines = [f"## {title}", "", "| field | type | meaning |", "|---|---|---|"]
    for name, declared in fields(kind, part):
        description = (declared.extra_json_schema or {})["description"]
        lines.append(f"| `{name}` | {_type(_at(schema, name))} | {_cell(description)} |")
    return [*lines, ""]


def _rules(kind: Kind[Any]) -> list[str]:
    spec = _properties(object_schema(kind))["spec"]
    found = [
        *((rule.field_path, rule.message) for rule in kind.rules),
        *_rules_below(spec, ".spec"),
    ]
    if not found:
        return []
    head = (
        "The API server also checks these rules when an object is created, or when the field changes. It "
        "rejects the object with the message:"
    )
    lines = (f"- {_named(path)}: {message}" for path, message in found)
    return [head, "", *lines, ""]


def _named(path: str) -> str:
    return f"`{path.lstrip('.')}`" if path else "the object"


def _rules_below(schema: Any, path: str) -> Iterator[tuple[str, str]]:
    """Yields the paths and messages of the rules of a field and of the fields below it."""
    for rule in schema.get("x-kubernetes-validations", ()):
        yield f"{path}{rule.get('fieldPath', '')}", rule["message"]
    for name, part in schema.get("properties", {}).items():
        yield from _rules_below(part, f"{path}.{name}")
    if "items" in schema:
        yield from _rules_below(schema["items"], f"{path}[]")


def _reasons(kind: Kind[Any]) -> list[str]:
    if not kind.reasons:
        return []
    lines = ["### Reasons of the condition `Ready`", "", "| reason | meaning |", "|---|---|"]
    return [*lines, *(f"| `{name}` | {_cell(meaning)} |" for name, meaning in kind.reasons.items()), ""]


def _settings(classes: Sequence[type]) -> list[str]:
    lines = [
        "## Settings of the operator",
        "",
        "Settings are environment variables of the operator's container. Under OLM, set them in the",
        "Subscription (`spec.config.env`). Durations are in seconds, or have units (`10m`). If a value is",
        "wrong, the new pod exits with an error in its log, and the old pod keeps running. OLM waits",
        "5 minutes before it applies a corrected value.",
        "",
        "Each setting is also a command-line flag, in lower case and with hyphens: `LOG_LEVEL=debug` is",
        "`--log-level=debug`. A flag overrides its variable. The flag of a true or false setting needs no",
        "value: `--leader-elect` means true. With `play` and `explain`, put the flags before the command.",
        "`--help` lists all flags.",
        "",
        "| variable | default | meaning |",
        "|---|---|---|",
    ]
    for setting in (setting for cls in classes for setting in settings(cls)):
        default = f"`{setting.default}`" if setting.default else ""
        lines.append(f"| `{setting.name}` | {default} | {_cell(setting.meaning)} |")
    return [*lines, ""]


def _columns(kind: Kind[Any]) -> list[str]:
    lines = ["## Columns of `kubectl get`", "", "| column | field | meaning |", "|---|---|---|"]
    for column in kind.columns:
        wide = " (with `-o wide`)" if column.priority else ""
        path = _cell(column.path.lstrip("."))
        lines.append(f"| {column.name} | `{path}` | {column.description}{wide} |")
    return [*lines, ""]


def _type(schema: Any) -> str:
    name = "integer or string" if schema.get("x-kubernetes-int-or-string") else str(schema["type"])
    if name == "array":
        return f"list of {_type(schema['items'])}s"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "minimum" in schema and "maximum" in schema:
        return f"{name}, {schema['minimum']} to {schema['maximum']}"
    if "minimum" in schema:
        return f"{name}, {schema['minimum']} or more"
    return name


def _at(schema: Any, path: str) -> Any:
    for name in path.split("."):
        schema = schema["properties"][name]
    return schema


def _properties(schema: Any) -> dict[str, Any]:
    return dict(schema["properties"])


def _cell(text: object) -> str:
    return " ".join(str(text).split()).replace("|", "\\|")
