"""The reference page of a kind, from its declaration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pilothouse.api import Kind
from pilothouse.api.crd import object_schema
from pilothouse.playbook.reconciler import PAUSED, RECONCILE
from pilothouse.process.flags import settings
from release.descriptors import fields
from release.documents import Document, dump

_ANNOTATIONS = (
    "## Annotations",
    "",
    f'- `{PAUSED}: "true"`: the operator leaves the object alone, its deletion included, until this is gone.',
    f"- `{RECONCILE}`: any new value has the object looked at once more, also after a permanent failure.",
    "",
)

HEAD = "<!-- Written by `./inv generate` from the types; change those. -->\n"


def page(kind: Kind[Any], sample: Document, classes: Sequence[type]) -> str:
    """The page: the kind, an example, its fields, conditions and annotations, the operator's settings.

    Args:
        kind: The declaration.
        sample: An object of it.
        classes: The settings of its operator.
    """
    resource = kind.resource
    short = "".join(f", `{name}`" for name in kind.short_names)
    return "\n".join(
        (
            HEAD,
            f"# {resource.kind}",
            "",
            f"`{resource.api_version}`, kubectl knows it as `{resource.plural}`{short}.",
            "",
            kind.description,
            "",
            "```yaml",
            dump(sample).rstrip(),
            "```",
            "",
            *_fields("spec", "What you ask for", kind),
            *_refused(kind),
            *_fields("status", "What the operator says", kind),
            *_reasons(kind),
            *_columns(kind),
            *_ANNOTATIONS,
            *_settings(classes),
        )
    )


def _fields(part: str, title: str, kind: Kind[Any]) -> list[str]:
    schema = _properties(_properties(object_schema(kind))[part])
    lines = [f"## {title}: `{part}`", "", "| field | type | meaning |", "|---|---|---|"]
    for name, declared in fields(kind, part):
        description = (declared.extra_json_schema or {})["description"]
        lines.append(f"| `{name}` | {_type(schema[name])} | {_cell(description)} |")
    return [*lines, ""]


def _refused(kind: Kind[Any]) -> list[str]:
    spec = _properties(object_schema(kind))["spec"]
    found = [
        *((rule.field_path, rule.message) for rule in kind.rules),
        *(
            (f".spec{rule['fieldPath']}", rule["message"])
            for rule in spec.get("x-kubernetes-validations", ())
        ),
    ]
    if not found:
        return []
    head = "An object that breaks one of these is refused when it is created or when that part of it changes:"
    return [head, "", *(f"- `{path.lstrip('.')}`: {message}" for path, message in found), ""]


def _reasons(kind: Kind[Any]) -> list[str]:
    if not kind.reasons:
        return []
    lines = ["### Why it is, or is not, `Ready`", "", "| reason | meaning |", "|---|---|"]
    return [*lines, *(f"| `{name}` | {_cell(meaning)} |" for name, meaning in kind.reasons.items()), ""]


def _settings(classes: Sequence[type]) -> list[str]:
    lines = [
        "## The operator's settings",
        "",
        "Environment variables of its container; under OLM set them in the Subscription (`spec.config.env`).",
        "Durations are seconds, or have units (`10m`). A wrong value ends the new pod with one sentence in",
        "its log; the pod before it works on. OLM takes up a correction after its own wait of 5 minutes.",
        "",
        "Each is a flag of the command line, too, in lower case and with hyphens: `LOG_LEVEL=debug` is",
        "`--log-level=debug`. A flag goes before its variable. Of a setting that is true or false the flag",
        "alone means true (`--leader-elect`). With `play` and `explain` flags stand before the command;",
        "`--help` lists them all.",
        "",
        "| variable | default | meaning |",
        "|---|---|---|",
    ]
    for setting in (setting for cls in classes for setting in settings(cls)):
        default = f"`{setting.default}`" if setting.default else ""
        lines.append(f"| `{setting.name}` | {default} | {_cell(setting.meaning)} |")
    return [*lines, ""]


def _columns(kind: Kind[Any]) -> list[str]:
    lines = ["## What `kubectl get` shows", "", "| column | from | meaning |", "|---|---|---|"]
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


def _properties(schema: Any) -> dict[str, Any]:
    return dict(schema["properties"])


def _cell(text: object) -> str:
    return " ".join(str(text).split()).replace("|", "\\|")
