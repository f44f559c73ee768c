"""A new operator: a copy of the example examples/greeter under other names.

The example is the template: what CI builds, runs and tests there is what a new operator is.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from pilothouse.packaging import crds, projects
from pilothouse.packaging.lock import lock
from pilothouse.packaging.mistakes import ProjectError
from pilothouse.packaging.names import Names, mistakes

_HERE = Path(__file__).resolve().parent
_PACKAGED = _HERE / "template"
# The wheel has a copy of the example (pyproject.toml, force-include); in a checkout it is the example itself.
TEMPLATE = _PACKAGED if _PACKAGED.is_dir() else _HERE.parents[2] / "examples" / "greeter"

# The template's files whose names begin with a dot; all else of that kind is what tools leave behind.
_HIDDEN = {Path(".dockerignore"), Path(".gitignore")}


def _nothing_more(root: Path) -> None:
    """The project is complete."""


def create(names: Names, folder: Path, finish: Callable[[Path], object] = _nothing_more) -> None:
    """Writes a new operator, whole or not at all.

    Args:
        names: What it is called.
        folder: Where it goes; must not exist.
        finish: Adds to the project's folder what is not in the template.

    Raises:
        ProjectError: A name cannot be used, or the folder exists or cannot be written.
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
    """Writes config/crd of a project from its types, and returns the files that changed.

    Raises:
        ProjectError: The folder is not a project, or its types have a mistake.
    """
    project = projects.read(root)
    files = crds.files(project, projects.kinds(project))
    changed = [path for path, text in files.items() if not path.exists() or path.read_text() != text]
    for path in changed:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(files[path])
    return changed


def _draft(folder: Path) -> tempfile.TemporaryDirectory[str]:
    """A folder beside the new one.

    Raises:
        ProjectError: That exists, or nothing can be written there.
    """
    try:
        if folder.exists():
            raise ProjectError(f"{folder} exists: name another folder with --output")
        folder.parent.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryDirectory(prefix=".new-", dir=folder.parent)
    except OSError as error:
        raise ProjectError(
            f"{folder} cannot be written ({error.strerror}): name another folder with --output"
        ) from None


def _template() -> Iterator[Path]:
    """The template's files, without what is generated: under other names that has another order."""
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
