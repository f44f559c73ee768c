"""Operators outside of this repository, each in a folder of its own: `inv new` creates one."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from invoke.context import Context
from invoke.tasks import task

from devcluster import folders
from devcluster import images as builder
from devcluster.folders import CHECKOUT, given
from devcluster.shell import ClusterError, run
from devcluster.tasks import speaking_plainly
from pilothouse.packaging import crds
from pilothouse.packaging import lock as locks
from pilothouse.packaging import projects as framework
from release import bundle as bundles
from release import documents, generate, publish
from release.packages import PACKAGES, Package

COMMAND = "inv project DIR"
_NONE = framework.Project(CHECKOUT, "", "")


@dataclass(frozen=True)
class Project(Package):
    """A folder with one operator: its package in Python, config/ and bundle/.

    Attributes:
        own: What its pyproject.toml says.
        packages: The folder of the packages that it adds to the framework's; None: it adds none.
    """

    own: framework.Project = _NONE
    packages: Path | None = None

    @property
    def root(self) -> Path:
        """The folder."""
        return self.own.root

    @property
    def version(self) -> str:
        """Its version, from its pyproject.toml."""
        return self.own.version

    @property
    def source(self) -> Path:
        """The project: its Python package lies at its top."""
        return self.root

    @property
    def python_path(self) -> str:
        """PYTHONPATH for its process on this host: the framework, its own source and its packages."""
        more = [str(self.packages)] if self.packages else []
        return os.pathsep.join([super().python_path, *more])

    @property
    def argument(self) -> str:
        """Its folder."""
        return str(self.root)

    @property
    def installation(self) -> str:
        """Its README says how the image gets there."""
        return f"kubectl apply --server-side -k {self.config}"

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
        "folder": "the project, as `inv new` created it",
        "check": "write nothing; fail when a file is not what its sources make of it",
    },
)
@speaking_plainly
def project(_: Context, folder: str, check: bool = False) -> None:
    """Writes what follows from a project's types and config: CRDs, ClusterServiceVersion, bundle."""
    for path in update(given(folder), check=check):
        print(f"wrote {path}")


@task(positional=["folder"], help={"folder": "the project, as `inv new` created it"})
@speaking_plainly
def build(_: Context, folder: str) -> None:
    """Builds and pushes a project's image for the current cluster; prints its reference."""
    print(image(given(folder)))


def image(folder: Path) -> str:
    """Builds and pushes the image of a project upon the framework's of this checkout.

    Returns:
        The reference, with its digest, by which the current cluster pulls it.

    Raises:
        ClusterError: There is no cluster or registry, or the build failed.
        ProjectError: The folder is not a project, or its requirements.txt is out of date.
    """
    own = framework.read(folder)
    locks.require_locked(own)
    arguments = {"BASE": publish.operator_image()}
    return builder.build(
        own.root / "Dockerfile", own.root, own.name, tag=f"v{own.version}", build_args=arguments
    )


def update(folder: Path, *, check: bool = False) -> list[Path]:
    """Writes what is generated in a project, holds the bundle to operator-sdk's checks, returns what changed.

    Raises:
        ClusterError: A permission or a sample is missing, or the bundle is not valid; with check, a file is
            not what its sources make of it.
        ProjectError: The folder is not a project, or its types have a mistake.
    """
    found = load(folder)
    changed = _put({**crds.files(found.own, found.kinds), **generate.csv_patch(found, COMMAND)}, check=check)
    _require_role(found)
    _require_samples(found)
    changed += _put(bundles.files(found), found.bundle, check=check)
    bundles.validate(found.bundle)
    return changed


def operators(folder: str) -> Sequence[Package]:
    """The operators that a person means: that of a project's folder, or without one those of this checkout.

    Raises:
        ProjectError: The folder is not a project.
    """
    return [load(given(folder))] if folder else [*PACKAGES.values()]


def load(folder: Path) -> Project:
    """The project in a folder; imports its types.

    Raises:
        ProjectError: There is none, or its types have a mistake.
    """
    own = framework.read(folder)
    packages = installed(own)
    if packages and str(packages) not in sys.path:
        sys.path.append(str(packages))
    return Project(own.name, own.start, framework.kinds(own), own=own, packages=packages)


def installed(own: framework.Project) -> Path | None:
    """Installs the locked packages of a project, once per content of its requirements.txt.

    Returns:
        Their folder, which is kept in the cache; None: the project adds none.

    Raises:
        ProjectError: requirements.txt is out of date.
        ClusterError: They cannot be installed.
    """
    locks.require_locked(own)
    file = own.root / "requirements.txt"
    text = file.read_text() if file.is_file() else ""
    if all(line.startswith("#") or not line.strip() for line in text.splitlines()):
        return None
    key = hashlib.sha256(f"{sys.version_info[:2]}\n{text}".encode()).hexdigest()[:16]
    folder = folders.cache() / "projects" / key
    with folders.locked(folder.with_name(f"{key}.lock"), f"installing the packages of {own.name}"):
        if not folder.is_dir():
            draft = Path(tempfile.mkdtemp(prefix=f".{key}-", dir=folder.parent))
            try:
                words = ("--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes")
                command = [sys.executable, "-m", "pip", "install", *words]
                run([*command, "--target", draft, "--requirement", file], timeout=300)
                draft.rename(folder)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
    return folder


def _documents(file: Path) -> list[dict[str, Any]]:
    """The YAML mappings in a file of a project.

    Raises:
        ClusterError: It cannot be read, or holds something else.
    """
    try:
        found = [each for each in yaml.safe_load_all(file.read_text()) if each is not None]
    except OSError as error:
        raise ClusterError(f"{file} cannot be read ({error.strerror})") from None
    except yaml.YAMLError as error:
        raise ClusterError(f"{file} is not valid YAML: {error}") from None
    if not all(isinstance(each, dict) for each in found):
        raise ClusterError(f"{file} must hold YAML mappings")
    return found


def _require_role(found: Project) -> None:
    """Refuses a kind that the operator may not watch: its pods would wait for ever."""
    role = found.config / "rbac" / "role.yaml"
    rules = [rule for each in _documents(role) for rule in each.get("rules") or ()]
    for kind in found.kinds:
        group, plural = kind.resource.group, kind.resource.plural
        granted = any(
            {group, "*"} & set(rule.get("apiGroups", ())) and {plural, "*"} & set(rule.get("resources", ()))
            for rule in rules
        )
        if not granted:
            raise ClusterError(
                f"{role} grants nothing on {plural}.{group}: copy the rules of another kind and change their "
                "apiGroups and resources"
            )


def _require_samples(found: Project) -> None:
    """Refuses a kind without an example: OLM's console shows one for each."""
    folder = found.config / "samples"
    listed = [
        name for each in _documents(folder / "kustomization.yaml") for name in each.get("resources") or ()
    ]
    samples = [each for name in listed for each in _documents(folder / name)]
    present = {(each.get("apiVersion"), each.get("kind")) for each in samples}
    for kind in found.kinds:
        if (kind.resource.api_version, kind.resource.kind) not in present:
            raise ClusterError(
                f"{folder} has no sample of {kind.resource.kind} in {kind.resource.api_version}: write one, "
                "and list it in kustomization.yaml there"
            )


def _put(files: dict[Path, str], *whole: Path, check: bool) -> list[Path]:
    if not check:
        return documents.write(files, whole)
    if wrong := documents.different(files, whole):
        names = ", ".join(map(str, wrong))
        raise ClusterError(
            f"{names} differ from what their sources say: run ./{COMMAND} and commit the result"
        )
    return []
