"""Creates a new operator: a copy of examples/greeter with other names.

The example is the template, so CI builds, runs and tests what a new operator contains.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from pilothouse.packaging import crds, projects, roles
from pilothouse.packaging.lock import lock
from pilothouse.packaging.mistakes import ProjectError
from pilothouse.packaging.names import Names, mistakes

_HERE = Path(__file__).resolve().parent
_PACKAGED = _HERE / "template"
# The wheel has a copy of the example (pyproject.toml, force-include). A checkout uses the example itself.
TEMPLATE = _PACKAGED if _PACKAGED.is_dir() else _HERE.parents[2] / "examples" / "greeter"

# The hidden files of the template. All other hidden files are left behind by tools.
_HIDDEN = {Path(".dockerignore"), Path(".gitignore")}


def _nothing_more(root: Path) -> None:
    """The project is complete."""


def create(names: Names, folder: Path, finish: Callable[[Path], object] = _nothing_more) -> None:
    """Writes a new operator. If that fails, nothing is written.

    Args:
        names: The names of the operator.
        folder: The folder to create. It must not exist.
        finish: Adds files to the project that are not in the template.

    Raises:
        ProjectError: A name is not valid, or the folder exists or cannot be written.
    """
    if wrong := [*mistakes(names, TEMPLATE)]:
        raise ProjectError("; ".join(wrong))
    with _draft(folder) as draft:
        root = Path(draft) / folder.name
        for path in _template():
            target = root / names.applied(str(path.relative_to(TEMPLATE)))
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(names.applied(path.read_text()))
        write_crds(root)
        lock(projects.read(root))
        finish(root)
        for cache in root.rglob("__pycache__"):
            shutil.rmtree(cache)
        root.rename(folder)


def write_crds(root: Path) -> list[Path]:
    """Writes config/crd of a project from its types, and returns the files that changed or were removed.

    Removes the generated CRDs of kinds that no longer exist, for example under their earlier group. The rules
    of the project's role for the earlier group get the new one.

    Raises:
        ProjectError: The folder is not a project, or its types have a mistake.
    """
    project = projects.read(root)
    kinds = projects.kinds(project)
    written = crds.files(project, kinds)
    old = crds.earlier(project, written)
    files = {**written, **roles.files(project, kinds, old)}
    changed = [path for path, text in files.items() if not path.exists() or path.read_text() != text]
    for path in changed:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(files[path])
    for path in old:
        path.unlink()
    return [*changed, *old]


def _draft(folder: Path) -> tempfile.TemporaryDirectory[str]:
    """Creates a temporary folder beside the new one.

    Raises:
        ProjectError: The new folder exists, or its parent cannot be written.
    """
    try:
        if folder.exists():
            raise ProjectError(f"{folder} already exists. Use another folder with --output")
        folder.parent.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryDirectory(prefix=".new-", dir=folder.parent)
    except OSError as error:
        raise ProjectError(
            f"{folder} cannot be written ({error.strerror}). Use another folder with --output"
        ) from None


def _template() -> Iterator[Path]:
    """Yields the template's files without the generated ones, whose order depends on the names."""
    for path in sorted(TEMPLATE.rglob("*")):
        inner = path.relative_to(TEMPLATE)
        hidden = any(part.startswith((".", "__pycache__")) for part in inner.parts) and inner not in _HIDDEN
        generated = (
            inner.parts[0] == "bundle"
            or inner.parts[:2] == ("config", "crd")
            or inner.name in ("generated.yaml", "requirements.txt")
        )
        if path.is_file() and not hidden and not generated:
            yield path
