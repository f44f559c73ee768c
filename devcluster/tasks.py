"""The invoke tasks `cluster.*` and `tools.*`."""

from __future__ import annotations

import errno
import functools
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from invoke.collection import Collection
from invoke.context import Context
from invoke.exceptions import Exit
from invoke.tasks import task

from devcluster import cluster as local
from devcluster import folders, images, olm, toolchain
from devcluster.progress import Step, run_steps
from devcluster.shell import ClusterError
from pilothouse.packaging.mistakes import ProjectError

#: Errors of a full, broken or protected disk, whatever file they occur on.
_REFUSALS = {
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ENOTDIR,
}  # fmt: skip


def speaking_plainly(action: Callable[..., None]) -> Callable[..., None]:
    """Wraps a task so that an error that the user can fix ends it with one message and no traceback."""

    @functools.wraps(action)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            action(*args, **kwargs)
        except (ClusterError, ProjectError) as error:
            raise Exit(str(error), code=1) from None
        except OSError as error:
            if not is_of_folders(error):
                raise
            fix = "set XDG_CACHE_HOME and XDG_STATE_HOME to writable folders with enough space"
            where = error.filename or "Could not write a file"
            raise Exit(f"{where}: {error.strerror}. Correct that, or {fix}.", code=1) from None
        except KeyboardInterrupt:
            raise Exit("Interrupted. Run the same command again to continue.", code=130) from None

    return wrapped


def is_of_folders(error: OSError) -> bool:
    """Returns whether the user can fix the error: a disk, or the path to the cache or state folder."""
    roots = (folders.cache(), folders.clusters())
    on_the_way = {path for root in roots for path in (root, *root.parents)}
    return error.errno in _REFUSALS or (
        isinstance(error.filename, (str, Path)) and Path(error.filename) in on_the_way
    )


def whole_number(option: str, text: str, *, least: int = 1) -> int:
    """Returns the value of an option. Not declared as int, for which invoke would show a traceback.

    Raises:
        ClusterError: The text is not a whole number of at least `least`.
    """
    # Nine digits: Python refuses to convert thousands of digits, with a traceback.
    if not (re.fullmatch("[0-9]{1,9}", text) and int(text) >= least):
        raise ClusterError(f"--{option} must be a whole number of {least} or more, not '{text}'.")
    return int(text)


@task
@speaking_plainly
def up(_: Context) -> None:
    """Starts the local cluster, building what is missing. Does nothing if it is up."""
    local.up()


@task
@speaking_plainly
def down(_: Context) -> None:
    """Stops the local cluster and keeps its data."""
    local.down()


@task
@speaking_plainly
def reset(_: Context) -> None:
    """Deletes the local cluster with its data and starts a new one."""
    local.reset()


@task
@speaking_plainly
def status(_: Context) -> None:
    """Shows the addresses, components, nodes and pods of the local cluster."""
    print("\n".join(local.describe()))


@task(
    help={
        "component": "such as kubelet; an unknown name lists the components",
        "lines": "number of lines from the end of the log",
        "follow": "keep printing new lines",
    }
)
@speaking_plainly
def logs(_: Context, component: str, lines: str = "50", follow: bool = False) -> None:
    """Shows the end of a component's log."""
    number = whole_number("lines", lines)
    files = {file.stem: file for file in local.logs()}
    if component not in files:
        if not files:
            raise ClusterError("There are no logs: this checkout has no cluster. Run './inv cluster.up'.")
        raise ClusterError(f"There is no component '{component}'. Logs exist for: {', '.join(files)}.")
    words = ["tail", "-n", str(number), *(["-F"] if follow else [])]
    subprocess.run([*words, str(files[component])], check=False)


@task
@speaking_plainly
def kubeconfig(_: Context) -> None:
    """Prints the path of the local cluster's kubeconfig file."""
    print(local.existing().kubeconfig)


@task(
    name="load-image",
    positional=["image"],
    help={"image": "a Docker or OCI archive, or the name of an image in docker or podman"},
)
@speaking_plainly
def load_image(_: Context, image: str) -> None:
    """Pushes an image to the local cluster's registry."""
    print(images.load(local.existing(), image))


@task(name="path")
@speaking_plainly
def tools_path(_: Context) -> None:
    """Prints the folder of the built tools: PATH=$(./inv tools.path):$PATH."""
    print(toolchain.link_folder())


@task(name="build", help={"only": "comma-separated names of tools; default: all"})
@speaking_plainly
def tools_build(_: Context, only: str = "") -> None:
    """Builds the pinned tools (kubectl, etcdctl, opm, operator-sdk, ...) that are not built yet."""
    names = only.split(",") if only else list(toolchain.TOOLS)
    unknown = [name for name in names if name not in toolchain.TOOLS]
    if unknown:
        raise ClusterError(f"There is no tool '{unknown[0]}'. The tools are: {', '.join(toolchain.TOOLS)}.")
    run_steps(
        [
            Step(f"building {tool.name} {tool.version}", functools.partial(toolchain.build, tool))
            for tool in toolchain.missing(names)
        ]
    )
    print(toolchain.link_folder())


@task(name="render-olm", help={"check": "change nothing; fail if the committed files differ"})
@speaking_plainly
def render_olm(_: Context, check: bool = False) -> None:
    """Renders OLM's manifests from the pinned release."""
    if check:
        olm.check_rendered()
    else:
        olm.render()


cluster_tasks = Collection("cluster", up, down, reset, status, logs, kubeconfig, load_image)
tools_tasks = Collection("tools", tools_path, tools_build, render_olm)
