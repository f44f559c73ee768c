"""`inv core-types`: the schemas of Kubernetes' core types, from the sources of the pinned Kubernetes."""

from __future__ import annotations

import json

from invoke.context import Context
from invoke.tasks import task

from devcluster import toolchain
from devcluster.folders import CHECKOUT
from devcluster.tasks import speaking_plainly
from pilothouse.api import core_types as types
from release import documents


@task
@speaking_plainly
def core_types(_: Context) -> None:
    """Writes the schemas that fields of core types have in CRDs, when another Kubernetes is pinned."""
    folder = toolchain.module_folder(toolchain.TOOLS["kubernetes"])
    document = json.loads((folder / "api" / "openapi-spec" / "v3" / "api__v1_openapi.json").read_text())
    for path in documents.write({types.FILE: types.text(document)}):
        print(f"wrote {path.relative_to(CHECKOUT)}")
