"""Operators outside of this repository, each in a folder of its own: `inv new` makes one."""

from __future__ import annotations

import importlib
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from invoke.context import Context
from invoke.tasks import task

from devcluster import images as builder
from devcluster.folders import CHECKOUT, given
from devcluster.shell import ClusterError
from devcluster.tasks import speaking_plainly
from pilothouse.api import Kind
from release import bundle as bundles
from release import documents, generate, publish
from release.packages import PACKAGES, Package, version

COMMAND = "inv project DIR"


@dataclass(frozen=True)
class Project(Package):
    """A folder with one operator: its package in Python, config/ and bundle/.

    Attributes:
        root: The folder.
    """

    root: Path = CHECKOUT

    @property
    def source(self) -> Path:
        """The project: its Python package lies at its top."""
        return self.root

    @property
    def argument(self) -> str:
        """Its folder."""
        return str(self.root)

    @property
    def installation(self) -> str:
        """Its README tells how the image gets in there."""
        return f"kubectl apply -k {self.config}"

    @property
    def config(self) -> Path:
        """Its kustomize rooms."""
        return self.root / "config"

    @property
    def bundle(self) -> Path:
        """Its bundle."""
        return self.root / "bundle"


@task(
    positional=["folder"],
    help={
        "folder": "the project, as `inv new` made it",
        "check": "write nothing; fail when a file is not what its sources make of it",
    },
)
@speaking_plainly
def project(_: Context, folder: str, check: bool = False) -> None:
    """Writes what the types and config of a project say: its CRD, ClusterServiceVersion and bundle."""
    for path in update(given(folder), check=check):
        print(f"wrote {path}")


@task(positional=["folder"], help={"folder": "the project, as `inv new` made it"})
@speaking_plainly
def build(_: Context, folder: str) -> None:
    """Builds and pushes a project's image for the current cluster; prints its reference."""
    print(image(given(folder)))


def image(folder: Path) -> str:
    """Builds and pushes the image of a project upon the runtime's of this checkout.

    Returns:
        The reference, with its digest, by which the current cluster pulls it.

    Raises:
        ClusterError: the folder is no project, there is no cluster or registry, or the build failed.
    """
    found = load(folder)
    arguments = {"BASE": publish.operator_image()}
    dockerfile = found.root / "Dockerfile"
    return builder.build(dockerfile, found.root, found.name, tag=f"v{version()}", build_args=arguments)


def update(folder: Path, *, check: bool = False) -> list[Path]:
    """Writes what is generated in a project, holds the bundle to operator-sdk's checks, returns what changed.

    Raises:
        ClusterError: the folder is no project, or its bundle is not in order; with check, a file is not what
            its sources make of it.
    """
    found = load(folder)
    changed = _put(generate.manifests(found, COMMAND), check=check)
    changed += _put(bundles.files(found), found.bundle, check=check)
    bundles.validate(found.bundle)
    return changed


def operators(folder: str) -> Sequence[Package]:
    """The operators that a person means: that of a project's folder, or without one those of this checkout.

    Raises:
        ClusterError: the folder is no project.
    """
    return [load(given(folder))] if folder else [*PACKAGES.values()]


def load(folder: Path) -> Project:
    """The project in a folder; imports its types.

    Raises:
        ClusterError: there is none.
    """
    root = folder.resolve()
    try:
        name = str(tomllib.loads((root / "pyproject.toml").read_text())["project"]["name"])
    except (OSError, KeyError) as error:
        raise ClusterError(f"{folder} is no project: its pyproject.toml names none ({error!r})") from error
    start = name.replace("-", "_")
    module = f"{start}_operator"
    for known in [each for each in sys.modules if each.partition(".")[0] == module]:
        del sys.modules[known]  # of another folder
    sys.path.insert(0, str(root))
    try:
        types = importlib.import_module(f"{module}.types")
    except ModuleNotFoundError as error:
        raise ClusterError(f"{folder} is no project: {error}") from error
    finally:
        sys.path.remove(str(root))
    return Project(name, start, [each for each in vars(types).values() if isinstance(each, Kind)], root=root)


def _put(files: dict[Path, str], *whole: Path, check: bool) -> list[Path]:
    if not check:
        return documents.write(files, whole)
    if wrong := documents.different(files, whole):
        names = ", ".join(map(str, wrong))
        raise ClusterError(
            f"{names} differ from what their sources say: run ./{COMMAND} and commit the result"
        )
    return []
