"""The CustomResourceDefinitions of a project, and its files in config/crd."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pilothouse.api import Kind
from pilothouse.api.crd import size_note
from pilothouse.packaging.documents import Document, dump
from pilothouse.packaging.projects import Project, crd_of

# The first line of each generated file.
WRITTEN = "Written by `pilothouse crd --write` from the types; change those."


def documents(root: Path, kinds: Sequence[Kind[Any]]) -> Sequence[Document]:
    """Returns the CustomResourceDefinition of each kind. Prints a warning if one becomes too large.

    Args:
        root: The project's folder.
        kinds: The kinds.

    Raises:
        ProjectError: A kind is not valid. The text names file and line.
    """
    found = []
    for kind in kinds:
        found.append(crd_of(root, kind))
        if note := size_note(found[-1]):
            sys.stderr.write(f"pilothouse: {note}\n")
    return found


def files(project: Project, kinds: Sequence[Kind[Any]]) -> Mapping[Path, str]:
    """Returns the files of config/crd by their paths: one per kind, and the kustomization that lists them.

    Raises:
        ProjectError: A kind is not valid. The text names file and line.
    """
    folder = project.root / "config" / "crd"
    names = [f"{kind.resource.group}_{kind.resource.plural}.yaml" for kind in kinds]
    kustomization: Document = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": names,
    }
    texts = [dump(document, comment=WRITTEN) for document in documents(project.root, kinds)]
    return {
        **{folder / name: text for name, text in zip(names, texts, strict=True)},
        folder / "kustomization.yaml": dump(kustomization, comment=WRITTEN),
    }


def earlier(project: Project, current: Mapping[Path, str]) -> Sequence[Path]:
    """Returns the generated CRDs of kinds that no longer exist, for example under their earlier group.

    Args:
        project: The project.
        current: Its files, as `files` returns them.
    """
    generated = sorted((project.root / "config" / "crd").glob("*.yaml"))
    return [path for path in generated if path not in current and path.read_text().startswith(f"# {WRITTEN}")]
