"""The command `pilothouse`: develops and runs an operator on this host.

::

    pilothouse new web-sites --group example.com --kind WebSite    creates a project
    pilothouse run [PROJECT] [-- FLAGS]                            runs its operator on this host
    pilothouse play KIND/NAMESPACE/NAME --check                    reconciles one object manually
    pilothouse explain KIND                                        shows the tasks of a kind
    pilothouse crd [PROJECT]                                       prints the CRDs of its kinds
    pilothouse lock [PROJECT]                                      locks its dependencies

A PROJECT is a folder with a pyproject.toml, or a Python module. The default is the current folder.
"""

import argparse
import importlib
import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

from pilothouse import __version__
from pilothouse.api import Kind
from pilothouse.cli.children import start
from pilothouse.cli.command_line import add_explain_arguments, add_play_arguments
from pilothouse.cli.supervise import environment, interrupted_by, supervise
from pilothouse.packaging import projects
from pilothouse.packaging.mistakes import ProjectError, mistakes_in
from pilothouse.packaging.names import Names

_PROJECT = "folder of the project, or a Python module (default: the current folder)"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        argv: The arguments. Default: those of the process.

    Returns:
        The exit code: 0 done; 1 refused or failed; 2 wrong arguments. `play` and `explain` return the
        operator's exit code.
    """
    words, flags = _parted([*(sys.argv[1:] if argv is None else argv)])
    options = _parser().parse_args(words, argparse.Namespace(flags=flags))
    try:
        return int(options.action(options) or 0)
    except ProjectError as error:
        sys.stderr.write(f"pilothouse: {error}\n")
    except KeyboardInterrupt:
        sys.stderr.write("pilothouse: interrupted\n")
    return 1


def _parted(words: list[str]) -> tuple[list[str], list[str]]:
    """Returns the words before and after the "--" of `run`.

    argparse drops "--" and takes the first word after it for a missing PROJECT.
    """
    if words[:1] != ["run"] or "--" not in words:
        return words, []
    place = words.index("--")
    return words[:place], words[place + 1 :]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="pilothouse", description="Kubernetes operators as playbooks.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    new = commands.add_parser("new", help="create a project")
    new.add_argument("name", help="name of the operator, for example web-sites")
    new.add_argument("--group", required=True, help="API group of its kind, for example example.com")
    new.add_argument("--kind", required=True, help="its kind, for example WebSite")
    new.add_argument("--output", default="", help="folder to create (default: NAME in the current folder)")
    new.set_defaults(action=_new)

    run = commands.add_parser("run", help="run an operator on this host; restart it when its source changes")
    run.add_argument("project", nargs="?", default=".", help=_PROJECT)
    run.usage = "%(prog)s [-h] [project] [-- FLAGS]"
    run.epilog = "FLAGS are the operator's own flags, for example: pilothouse run -- --log-level=debug"
    run.set_defaults(action=_run)

    play = commands.add_parser("play", help="reconcile one object manually")
    add_play_arguments(play)
    play.set_defaults(action=_play)

    explain = commands.add_parser("explain", help="show the tasks of a kind in order")
    add_explain_arguments(explain)
    explain.set_defaults(action=_explain)
    for each in (play, explain):
        each.add_argument("--project", default=".", help=_PROJECT)

    crd = commands.add_parser("crd", help="print the CustomResourceDefinitions of the kinds")
    crd.add_argument("project", nargs="?", default=".", help=f"{_PROJECT}; MODULE:NAME selects one kind")
    crd.add_argument(
        "--write", action="store_true", help="write the project's config/crd instead of printing"
    )
    crd.set_defaults(action=_crd)

    lock = commands.add_parser("lock", help="write requirements.txt from the dependencies in pyproject.toml")
    lock.add_argument("project", nargs="?", default=".", help="folder of the project")
    lock.add_argument(
        "--upgrade", action="store_true", help="use the newest versions that pyproject.toml allows"
    )
    lock.set_defaults(action=_lock)
    return parser


def _new(options: argparse.Namespace) -> None:
    from pilothouse.packaging import scaffold

    folder = Path(options.output or options.name)
    scaffold.create(Names(options.name, options.group, options.kind), folder)
    sys.stdout.write(f"created {folder}; its README.md describes the next steps\n")


def _run(options: argparse.Namespace) -> None:
    module, folder = _runnable(options.project)
    variables = environment(str(folder), {})

    def begin() -> subprocess.Popen[bytes]:
        return start([sys.executable, "-m", module, *options.flags], variables)

    with interrupted_by(signal.SIGTERM, signal.SIGHUP):
        supervise(begin, folder)


def _play(options: argparse.Namespace) -> int:
    words = ["play", options.object, f"--namespace={options.namespace}", f"--output={options.output}"]
    words += [f"--{flag}" for flag in ("check", "diff") if getattr(options, flag)]
    return _call(options.project, words)


def _explain(options: argparse.Namespace) -> int:
    return _call(options.project, ["explain", options.kind, f"--format={options.format}"])


def _call(project: str, words: Sequence[str]) -> int:
    """Runs a command of the operator in a process of its own, and returns the exit code.

    Raises:
        ProjectError: The types of the project have a mistake, or it is not an operator.
    """
    if _is_folder(project):
        projects.require_valid_types(projects.read(Path(project)))
    module, folder = _runnable(project)
    command = [sys.executable, "-m", module, *filter(None, words)]
    variables = environment(str(folder), {})
    done = subprocess.run(command, env=variables, check=False, stdout=subprocess.PIPE, text=True)
    if not done.returncode and not done.stdout:
        raise ProjectError(
            f"{module} is not an operator: it printed nothing. Use the module that calls main(), or the "
            "folder of the project"
        )
    sys.stdout.write(done.stdout)
    return done.returncode


def _crd(options: argparse.Namespace) -> None:
    from pilothouse.packaging import crds, documents, scaffold

    if options.write:
        for path in scaffold.write_crds(Path(options.project)):
            sys.stdout.write(f"{'wrote' if path.exists() else 'removed'} {path}\n")
        return
    project, colon, name = options.project.partition(":")
    if colon and not name:
        raise ProjectError(f"{options.project} has no name after the colon. Use MODULE or MODULE:NAME")
    module, folder = _module(project)
    if _is_folder(project) and not name:
        kinds = projects.kinds(projects.read(folder))
    else:
        kinds = _kinds_in(module, name)
    found = crds.documents(folder, kinds)
    sys.stdout.write(documents.dump_all(found))


def _lock(options: argparse.Namespace) -> None:
    from pilothouse.packaging.lock import lock

    project = projects.read(Path(options.project))
    changed = lock(project, upgrade=options.upgrade)
    file = project.root / "requirements.txt"
    sys.stdout.write(f"wrote {file}\n" if changed else f"{file} is up to date\n")


def _module(project: str) -> tuple[str, Path]:
    """Returns the operator's Python module, and the folder that contains it.

    Raises:
        ProjectError: The argument is neither a project nor a module.
    """
    if _is_folder(project):
        found = projects.read(Path(project))
        return found.module, found.root
    if project.endswith(".py") and Path(project).is_file():
        raise ProjectError(
            f"{project} is a file. In its folder, give the name of the module: {Path(project).stem}"
        )
    if not all(part.isidentifier() for part in project.split(".")):
        raise ProjectError(f"{project} is neither a folder with a pyproject.toml nor a Python module")
    return project, Path.cwd()


def _is_folder(project: str) -> bool:
    folder = Path(project)
    return folder.is_dir() and (
        os.sep in project or project in (".", "..") or (folder / "pyproject.toml").exists()
    )


def _runnable(project: str) -> tuple[str, Path]:
    """Returns what `_module` does, for a module that Python can run.

    Raises:
        ProjectError: There is no such module, or it is a package that cannot be run.
    """
    module, folder = _module(project)
    found = _spec(module, folder)
    if found is None:
        raise ProjectError(f"there is no Python module {module}, neither in {folder} nor installed")
    inner = found.submodule_search_locations
    if inner is not None and PathFinder.find_spec(f"{module}.__main__", inner) is None:
        raise ProjectError(f"{module} is not an operator: it is a package without a module __main__")
    return module, folder


def _spec(module: str, folder: Path) -> ModuleSpec | None:
    """Returns where Python finds a module, without importing it or its packages."""
    importlib.invalidate_caches()
    first, *more = module.split(".")
    found = PathFinder.find_spec(first, [str(folder), *sys.path]) or importlib.util.find_spec(first)
    for each in more:
        if found is None or found.submodule_search_locations is None:
            return None
        found = PathFinder.find_spec(f"{found.name}.{each}", found.submodule_search_locations)
    return found


def _kinds_in(module: str, name: str) -> Sequence[Kind[Any]]:
    """Returns the kinds that a module declares, or only the one with the given name."""
    sys.path.insert(0, str(Path.cwd()))
    with mistakes_in(Path.cwd()):
        names = vars(importlib.import_module(module))
    found = {key: each for key, each in names.items() if isinstance(each, Kind) and name in ("", key)}
    if not found:
        what = f"a Kind {name}" if name else "a Kind. Use the module that does"
        raise ProjectError(f"the module {module} does not declare {what}.")
    return list({id(each): each for each in found.values()}.values())
