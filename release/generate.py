"""Generates files: CRDs, the API part of ClusterServiceVersions and reference pages from the types; stubs."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from devcluster.folders import CHECKOUT
from pilothouse.api import Kind
from pilothouse.api.crd import crd
from release import docstrings, etcd_stubs, metrics
from release.descriptors import owned
from release.documents import Document, dump, load
from release.packages import PACKAGES, Package
from release.reference import page


def files() -> dict[Path, str]:
    """Returns every generated file and its expected text."""
    found: dict[Path, str] = {}
    for package in PACKAGES.values():
        found |= manifests(package, "inv generate")
        for kind in package.kinds:
            reference = CHECKOUT / "docs" / "reference" / f"{kind.resource.kind.lower()}.md"
            found[reference] = page(kind, _sample(package, kind), package.settings)
    found[CHECKOUT / "docs" / "reference" / "metrics.md"] = metrics.page()
    folder = CHECKOUT / "docs" / "reference" / "runtime"
    found[folder / "pilothouse.md"] = docstrings.facade()
    for name in docstrings.PACKAGES:
        found[folder / f"{name}.md"] = docstrings.page(f"pilothouse.{name}")
    return found | etcd_stubs.files()


def manifests(package: Package, command: str) -> dict[Path, str]:
    """Returns the CRDs of a package and the API part of its ClusterServiceVersion.

    Args:
        package: The package.
        command: The command that writes them: "inv generate".
    """
    comment = f"Written by `./{command}` from the types; change those."
    found = {
        package.config / "crd" / f"{kind.resource.group}_{kind.resource.plural}.yaml": dump(
            crd(kind), comment=comment
        )
        for kind in package.kinds
    }
    return {**found, **csv_patch(package, command)}


def csv_patch(package: Package, command: str) -> dict[Path, str]:
    """Returns the API part of a package's ClusterServiceVersion; see `manifests`."""
    comment = f"Written by `./{command}` from the types; change those."
    return {package.config / "manifests" / "generated.yaml": dump(_csv_patch(package), comment=comment)}


def _csv_patch(package: Package) -> Document:
    icon = base64.b64encode((package.config / "manifests" / "icon.svg").read_bytes()).decode()
    return {
        "apiVersion": "operators.coreos.com/v1alpha1",
        "kind": "ClusterServiceVersion",
        "metadata": {"name": load(package.csv_base)["metadata"]["name"]},
        "spec": {
            "icon": [{"base64data": icon, "mediatype": "image/svg+xml"}],
            "customresourcedefinitions": {
                "owned": [entry for kind in package.kinds for entry in owned(kind)]
            },
        },
    }


def _sample(package: Package, kind: Kind[Any]) -> Document:
    resource = kind.resource
    group = resource.group.partition(".")[0]
    return load(package.config / "samples" / f"{group}_{resource.version}_{resource.kind.lower()}.yaml")
