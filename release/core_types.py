"""`inv core-types`: writes the schemas of Kubernetes' core types from the pinned Kubernetes sources."""

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
    """Writes the CRD schemas of Kubernetes' core types. Run it after pinning another Kubernetes version."""
    folder = toolchain.module_folder(toolchain.TOOLS["kubernetes"])
    document = json.loads((folder / "api" / "openapi-spec" / "v3" / "api__v1_openapi.json").read_text())
    for path in documents.write({types.FILE: types.text(document)}):
        print(f"wrote {path.relative_to(CHECKOUT)}")
