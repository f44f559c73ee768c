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

#: What a disk or a folder's owner refuses, whichever file it strikes.
_REFUSALS = {
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ENOTDIR,
}  # fmt: skip


def speaking_plainly(action: Callable[..., None]) -> Callable[..., None]:
    """Has a task end with the sentence of an error that a person can correct, without its traceback."""

    @functools.wraps(action)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            action(*args, **kwargs)
        except (ClusterError, ProjectError) as error:
            raise Exit(str(error), code=1) from None
        except OSError as error:
            if not is_of_folders(error):
                raise
            remedy = "set XDG_CACHE_HOME and XDG_STATE_HOME to folders that can be written and have space"
            where = error.filename or "a file could not be written"
            raise Exit(f"{where}: {error.strerror}; correct that, or {remedy}", code=1) from None
        except KeyboardInterrupt:
            raise Exit("interrupted: the same command again goes on from here", code=130) from None

    return wrapped


def is_of_folders(error: OSError) -> bool:
    """Whether what failed is the user's to mend: a disk, or the way to the folders for cache and state."""
    roots = (folders.cache(), folders.clusters())
    on_the_way = {path for root in roots for path in (root, *root.parents)}
    return error.errno in _REFUSALS or (
        isinstance(error.filename, (str, Path)) and Path(error.filename) in on_the_way
    )


def whole_number(option: str, text: str, *, least: int = 1) -> int:
    """The value of an option; one that is declared as int would be refused with invoke's own traceback.

    Raises:
        ClusterError: it is no such number.
    """
    # Nine digits: of thousands, Python itself would make a traceback.
    if not (re.fullmatch("[0-9]{1,9}", text) and int(text) >= least):
        raise ClusterError(f"--{option} is a whole number of {least} or more, not '{text}'")
    return int(text)


@task
@speaking_plainly
def up(_: Context) -> None:
    """Brings the local cluster up, building what is missing; does nothing when it is up."""
    local.up()


@task
@speaking_plainly
def down(_: Context) -> None:
    """Stops the local cluster; its data is kept."""
    local.down()


@task
@speaking_plainly
def reset(_: Context) -> None:
    """Deletes the local cluster with its data, and brings up a new one."""
    local.reset()


@task
@speaking_plainly
def status(_: Context) -> None:
    """Shows the local cluster's addresses, components, nodes and pods."""
    print("\n".join(local.describe()))


@task(
    help={
        "component": "such as kubelet; with any other word, the components are listed",
        "lines": "how many of the last",
        "follow": "go on as it grows",
    }
)
@speaking_plainly
def logs(_: Context, component: str, lines: str = "50", follow: bool = False) -> None:
    """Shows the end of a component's log."""
    number = whole_number("lines", lines)
    files = {file.stem: file for file in local.logs()}
    if component not in files:
        raise ClusterError(
            f"there are logs of: {', '.join(files) or 'nothing (no cluster was ever up here)'}"
        )
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
    help={"image": "a docker or OCI archive, or an image that docker or podman holds"},
)
@speaking_plainly
def load_image(_: Context, image: str) -> None:
    """Pushes an image into the local cluster's registry."""
    print(images.load(local.existing(), image))


@task(name="path")
@speaking_plainly
def tools_path(_: Context) -> None:
    """Prints the folder of the built tools: PATH=$(./inv tools.path):$PATH."""
    print(toolchain.link_folder())


@task(name="build", help={"only": "names of tools, with commas between; all without it"})
@speaking_plainly
def tools_build(_: Context, only: str = "") -> None:
    """Builds the pinned tools (kubectl, etcdctl, opm, operator-sdk, ...) that are not built yet."""
    names = only.split(",") if only else list(toolchain.TOOLS)
    unknown = [name for name in names if name not in toolchain.TOOLS]
    if unknown:
        raise ClusterError(f"no such tool: {unknown[0]}; there are {', '.join(toolchain.TOOLS)}")
    run_steps(
        [
            Step(f"building {tool.name} {tool.version}", functools.partial(toolchain.build, tool))
            for tool in toolchain.missing(names)
        ]
    )
    print(toolchain.link_folder())


@task(name="render-olm", help={"check": "change nothing; fail when the committed files differ"})
@speaking_plainly
def render_olm(_: Context, check: bool = False) -> None:
    """Renders OLM's manifests from the pinned release."""
    if check:
        olm.check_rendered()
    else:
        olm.render()


cluster_tasks = Collection("cluster", up, down, reset, status, logs, kubeconfig, load_image)
tools_tasks = Collection("tools", tools_path, tools_build, render_olm)
