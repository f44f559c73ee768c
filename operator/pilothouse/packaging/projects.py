"""Reads a project: a folder with pyproject.toml and the Python package NAME_operator of one operator."""

import importlib
import re
import sys
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pilothouse.api import Kind
from pilothouse.packaging.mistakes import (
    ProjectError,
    at_field,
    at_value,
    check_declarations,
    mistakes_in,
    place_of,
)

# OLM requires semantic versions (semver.org).
_VERSION = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?")
# Kubernetes' version names (API concepts, "CRD versions").
_API_VERSION = re.compile(r"v[1-9]\d*((alpha|beta)[1-9]\d*)?")


@dataclass(frozen=True)
class Project:
    """A folder with one operator.

    Attributes:
        root: The folder.
        name: The operator's name in pyproject.toml: "web-sites".
        version: The version in pyproject.toml: "0.1.0".
        dependencies: The dependencies in pyproject.toml, including pilothouse.
    """

    root: Path
    name: str
    version: str
    dependencies: Sequence[str] = ()

    @property
    def start(self) -> str:
        """The name as a Python identifier: "web_sites"."""
        return self.name.replace("-", "_")

    @property
    def module(self) -> str:
        """The Python package that runs the operator: "web_sites_operator"."""
        return f"{self.start}_operator"


def read(folder: Path) -> Project:
    """Reads the pyproject.toml of a folder.

    Raises:
        ProjectError: There is no such file, or it has no valid name and version.
    """
    root = folder.resolve()
    file = root / "pyproject.toml"
    try:
        project = tomllib.loads(file.read_text())["project"]
        name, version = str(project["name"]), str(project["version"])
    except OSError as error:
        raise ProjectError(f"{folder} is not a project: cannot read {file} ({error.strerror})") from None
    except ValueError as error:
        raise ProjectError(f"{file} is not valid TOML: {error}") from None
    except (KeyError, TypeError) as error:
        raise ProjectError(f"{folder} is not a project: {file} has no {error} in [project]") from None
    if not _VERSION.fullmatch(version):
        raise ProjectError(f"{file}: OLM requires a version such as 0.1.0, not {version!r}")
    return Project(root, name, version, tuple(map(str, project.get("dependencies", ()))))


def kinds(project: Project) -> Sequence[Kind[Any]]:
    """Imports the module `types` of a project and returns the kinds that it declares, in order.

    Raises:
        ProjectError: There is no such module, it declares no kind, or it has a mistake.
    """
    if not (project.root / project.module).is_dir():
        raise ProjectError(
            f"{project.root} has no folder {project.module}. The Python package of the project "
            f"{project.name!r} must have that name."
        )
    declared = _declared(project)
    if not declared:
        raise ProjectError(f"{project.module}.types declares no Kind")
    return declared


def crd_of(project: Path, kind: Kind[Any]) -> dict[str, Any]:
    """Returns the CustomResourceDefinition of a kind.

    Args:
        project: The project's folder.
        kind: The kind.

    Raises:
        ProjectError: The kind is not valid. The text names file and line.
    """
    from pilothouse.api.crd import WrongValue, crd

    try:
        return crd(kind)
    except WrongValue as error:
        raise at_value(project, kind.resource.view, error.value, error) from None
    except (TypeError, NameError) as error:
        raise at_field(project, kind.resource.view, error) from None


def require_valid_types(project: Project) -> None:
    """Checks the kinds in the module `types` of a project, if it has such a module.

    Raises:
        ProjectError: A declaration has a mistake. The text names file and line.
    """
    if (project.root / project.module / "types.py").is_file():
        for kind in _declared(project):
            crd_of(project.root, kind)


def _declared(project: Project) -> Sequence[Kind[Any]]:
    """Returns the kinds in the module `types`, whose names are valid."""
    with importing(project), mistakes_in(project.root):
        module = importlib.import_module(f"{project.module}.types")
        file = Path(str(module.__file__))
        check_declarations(project.root, file)
        found = {id(each): (word, each) for word, each in vars(module).items() if isinstance(each, Kind)}
    declared = [each for _, each in found.values()]
    places = {id(each): partial(place_of, project.root, file, word) for word, each in found.values()}
    for each in declared:
        _require_valid(each, places[id(each)])
    for part in ("kind", "plural"):
        seen: dict[tuple[str, str], Kind[Any]] = {}
        for each in declared:
            value = getattr(each.resource, part)
            first = seen.setdefault((value, each.resource.group), each)
            if first is not each:
                raise ProjectError(
                    f"{places[id(each)](value)}two kinds of the group {each.resource.group} have the {part} "
                    f"{value}: this one, and the one at {places[id(first)](value).rstrip(': ')}. Rename one "
                    "of them."
                )
    return declared


def _require_valid(kind: Kind[Any], where: Callable[[object], str]) -> None:
    """Checks the names of a kind.

    Args:
        kind: The kind.
        where: Returns the file and line of a value in its declaration, as the start of a message.

    Raises:
        ProjectError: A name is not valid.
    """
    resource = kind.resource
    if not re.fullmatch("[A-Z][A-Za-z0-9]*", resource.kind):
        raise ProjectError(
            f"{where(resource.kind)}the kind {resource.kind!r} must be in CamelCase, such as WebSite"
        )
    if not re.fullmatch("[a-z][a-z0-9]*", resource.plural):
        raise ProjectError(
            f"{where(resource.plural)}the plural {resource.plural!r} must be in lower case, such as websites"
        )
    if "." not in resource.group or resource.group != resource.group.lower():
        raise ProjectError(
            f"{where(resource.group)}the group {resource.group!r} must be a domain name, such as example.com"
        )
    if f".{resource.group}".endswith((".k8s.io", ".kubernetes.io")):
        raise ProjectError(
            f"{where(resource.group)}the group {resource.group!r} is reserved for Kubernetes. Use a domain "
            "name of yours, such as example.com"
        )
    for version in (resource.version, *(each.name for each in kind.versions)):
        if not _API_VERSION.fullmatch(version):
            raise ProjectError(
                f"{where(version)}the version {version!r} of {resource.kind} must be like v1 or v1beta1"
            )


@contextmanager
def importing(project: Project) -> Iterator[None]:
    """Makes imports find the modules of this project, not those of another one with the same name."""
    for known in [each for each in sys.modules if each.partition(".")[0] == project.module]:
        del sys.modules[known]
    sys.path.insert(0, str(project.root))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(project.root))
