"""Projects: operators in folders of their own, which `inv new` creates."""

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
from pilothouse.packaging import crds, roles
from pilothouse.packaging import lock as locks
from pilothouse.packaging import projects as framework
from release import bundle as bundles
from release import documents, generate, publish
from release.packages import PACKAGES, Package

COMMAND = "inv project DIR"
_NONE = framework.Project(CHECKOUT, "", "")


@dataclass(frozen=True)
class Project(Package):
    """A folder with one operator: its Python package, config/ and bundle/.

    Attributes:
        own: The content of its pyproject.toml.
        packages: The folder with the packages that it adds to the framework's; None if it adds none.
    """

    own: framework.Project = _NONE
    packages: Path | None = None

    @property
    def root(self) -> Path:
        """The folder of the project."""
        return self.own.root

    @property
    def version(self) -> str:
        """The version in its pyproject.toml."""
        return self.own.version

    @property
    def source(self) -> Path:
        """The folder of the project, which contains the Python package."""
        return self.root

    @property
    def python_path(self) -> str:
        """PYTHONPATH for the operator on this host: the framework, the project and its packages."""
        more = [str(self.packages)] if self.packages else []
        return os.pathsep.join([super().python_path, *more])

    @property
    def argument(self) -> str:
        """The folder of the project."""
        return str(self.root)

    @property
    def installation(self) -> str:
        """The command that installs the operator. The project's README describes how to push the image."""
        return f"kubectl apply --server-side -k {self.config}"

    @property
    def config(self) -> Path:
        """The folder with the project's kustomizations."""
        return self.root / "config"

    @property
    def bundle(self) -> Path:
        """The folder of the project's bundle."""
        return self.root / "bundle"


@task(
    positional=["folder"],
    help={
        "folder": "folder of the project that `inv new` created",
        "check": "write nothing; fail if a file is not up to date with its sources",
    },
)
@speaking_plainly
def project(_: Context, folder: str, check: bool = False) -> None:
    """Writes the generated files of a project: CRDs, ClusterServiceVersion, bundle."""
    for path in update(given(folder), check=check):
        print(f"{'wrote' if path.exists() else 'removed'} {path}")


@task(positional=["folder"], help={"folder": "folder of the project that `inv new` created"})
@speaking_plainly
def build(_: Context, folder: str) -> None:
    """Builds and pushes a project's image for the current cluster, and prints its reference."""
    print(image(given(folder)))


def image(folder: Path) -> str:
    """Builds and pushes the image of a project, on top of the framework's image of this checkout.

    Returns:
        The reference that the current cluster pulls, with its digest.

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
    """Writes the generated files of a project, validates the bundle, and returns the changed files.

    Raises:
        ClusterError: A permission or a sample is missing, or the bundle is not valid. With `check`: a file is
            not up to date.
        ProjectError: The folder is not a project, or its types have a mistake.
    """
    found = load(folder)
    written = crds.files(found.own, found.kinds)
    earlier = crds.earlier(found.own, written)
    role = roles.files(found.own, found.kinds, earlier)
    changed = _put({**written, **role, **generate.csv_patch(found, COMMAND)}, removed=earlier, check=check)
    _require_role(found)
    _require_samples(found)
    changed += _put(bundles.files(found), found.bundle, check=check)
    bundles.validate(found.bundle)
    return changed


def operators(folder: str) -> Sequence[Package]:
    """Returns the operator in the folder of a project. Without a folder: the operators of this checkout.

    Raises:
        ProjectError: The folder is not a project.
    """
    return [load(given(folder))] if folder else [*PACKAGES.values()]


def load(folder: Path) -> Project:
    """Returns the project in a folder. Imports its types.

    Raises:
        ProjectError: The folder is not a project, or its types have a mistake.
    """
    own = framework.read(folder)
    packages = installed(own)
    if packages and str(packages) not in sys.path:
        sys.path.append(str(packages))
    return Project(own.name, own.start, framework.kinds(own), own=own, packages=packages)


def installed(own: framework.Project) -> Path | None:
    """Installs the locked packages of a project, once per content of its requirements.txt.

    Returns:
        The folder of the packages in the cache; None if the project adds none.

    Raises:
        ProjectError: The project's requirements.txt is out of date.
        ClusterError: The packages cannot be installed.
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
    """Returns the YAML mappings in a file of a project.

    Raises:
        ClusterError: The file cannot be read, or does not consist of YAML mappings.
    """
    try:
        found = [each for each in yaml.safe_load_all(file.read_text()) if each is not None]
    except OSError as error:
        raise ClusterError(f"{file} cannot be read ({error.strerror})") from None
    except yaml.YAMLError as error:
        raise ClusterError(f"{file} is not valid YAML: {error}") from None
    if not all(isinstance(each, dict) for each in found):
        raise ClusterError(f"{file} must contain only YAML mappings")
    return found


def _require_role(found: Project) -> None:
    """Refuses a kind that the operator has no permission to watch. Its pods would never become ready."""
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
                f"{role} grants no permissions on {plural}.{group}. Copy the rules of another kind and "
                "change their apiGroups and resources."
            )


def _require_samples(found: Project) -> None:
    """Refuses a kind without a sample. OLM's console shows one for each kind."""
    folder = found.config / "samples"
    listed = [
        name for each in _documents(folder / "kustomization.yaml") for name in each.get("resources") or ()
    ]
    samples = [each for name in listed for each in _documents(folder / name)]
    present = {(each.get("apiVersion"), each.get("kind")) for each in samples}
    for kind in found.kinds:
        if (kind.resource.api_version, kind.resource.kind) not in present:
            raise ClusterError(
                f"{folder} has no sample of {kind.resource.kind} in {kind.resource.api_version}. Write one, "
                "and list it in kustomization.yaml in that folder."
            )


def _put(files: dict[Path, str], *whole: Path, removed: Sequence[Path] = (), check: bool) -> list[Path]:
    """Writes files, and removes others. With `check`: fails if one would change."""
    if check:
        if wrong := [*documents.different(files, whole), *removed]:
            names = ", ".join(map(str, wrong))
            raise ClusterError(
                f"not up to date with the sources: {names}. Run ./{COMMAND} and commit the result."
            )
        return []
    for path in removed:
        path.unlink()
    return [*documents.write(files, whole), *removed]
