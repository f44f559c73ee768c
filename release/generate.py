"""What the types say, where others read it: CRDs, the API part of ClusterServiceVersions, reference pages."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from devcluster.folders import CHECKOUT
from pilothouse.api import Kind
from pilothouse.api.crd import crd
from release.descriptors import owned
from release.documents import Document, dump, load
from release.packages import PACKAGES, Package
from release.reference import page

_COMMENT = "Written by `./inv generate` from the types; change those."


def files() -> dict[Path, str]:
    """Every generated file with the text that it should have."""
    found: dict[Path, str] = {}
    for package in PACKAGES.values():
        for kind in package.kinds:
            resource = kind.resource
            path = package.config / "crd" / f"{resource.group}_{resource.plural}.yaml"
            found[path] = dump(crd(kind), comment=_COMMENT)
            reference = CHECKOUT / "docs" / "reference" / f"{resource.kind.lower()}.md"
            found[reference] = page(kind, _sample(package, kind), package.settings)
        found[package.config / "manifests" / "generated.yaml"] = dump(_csv_patch(package), comment=_COMMENT)
    return found


def _csv_patch(package: Package) -> Document:
    icon = base64.b64encode((package.config / "manifests" / "icon.svg").read_bytes()).decode()
    return {
        "apiVersion": "operators.coreos.com/v1alpha1",
        "kind": "ClusterServiceVersion",
        "metadata": {"name": load(package.csv_base)["metadata"]["name"]},
        "spec": {
            "icon": [{"base64data": icon, "mediatype": "image/svg+xml"}],
            "customresourcedefinitions": {"owned": [owned(kind) for kind in package.kinds]},
        },
    }


def _sample(package: Package, kind: Kind[Any]) -> Document:
    resource = kind.resource
    group = resource.group.partition(".")[0]
    return load(package.config / "samples" / f"{group}_{resource.version}_{resource.kind.lower()}.yaml")
