"""`inv run`: an operator on this host, against the current cluster, anew when its source changes."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType

from devcluster import target as targets
from devcluster.folders import given
from devcluster.kubectl import Kubectl
from devcluster.progress import say
from devcluster.shell import ClusterError
from flights_operator.settings import FlightsSettings
from pilothouse.cli.operator import WRONG_SETTINGS
from release import projects
from release.children import start, stop
from release.host_airline import HostAirline, host_airline
from release.packages import PACKAGES, Package
from release.take_over import StandIn, standing_in

#: Seconds between two looks at the sources, and at the cluster: each of those starts a kubectl.
_LOOK, _LOOK_AT_CLUSTER = 0.5, 2.0
#: Seconds before an operator that has ended is started again: doubled each time that it ends before so many
#: seconds have passed, as the kubelet does with a container.
_PAUSE, _LONGEST_PAUSE, _SOON = 1.0, 60.0, 30.0


def run(name: str, *, namespaces: str = "", take_over: bool = False) -> None:
    """Runs an operator until interrupted.

    Args:
        name: The package, or its folder: "flights"; or the folder of a project.
        namespaces: The namespaces to watch, with commas between; empty for all.
        take_over: Keep the Deployment in the cluster at 0 replicas meanwhile.

    Raises:
        ClusterError: there is no such operator, it refuses its settings, or the cluster cannot be used or
            lacks its kinds.
    """
    package = _package(name)
    kubectl = targets.current().kubectl
    _require_kinds(kubectl, package)
    with _interrupted_by(signal.SIGTERM, signal.SIGHUP), ExitStack() as stack:
        stand_in = stack.enter_context(standing_in(kubectl, package, take_over=take_over))
        if not take_over and stand_in.runs:
            say(_stands_by(stand_in.namespace, package))
        books = FlightsSettings in package.settings and "AIRLINE_URL" not in os.environ
        airline = stack.enter_context(host_airline(kubectl)) if books else None
        # The caller's own variables go before these.
        environment = {
            "KUBECONFIG": str(kubectl.kubeconfig),
            # With the Deployment's own Lease: of the two, one works.
            "LEADER_ELECT": "true",
            "WATCH_NAMESPACE": namespaces,
            "HEALTH_ADDRESS": "127.0.0.1:0",
            "LOG_FORMAT": "console",
            **(airline.environment if airline else {}),
            **os.environ,
            "PYTHONPATH": package.python_path,
        }

        def begin() -> subprocess.Popen[bytes]:
            variables = {"POD_NAMESPACE": stand_in.namespace, **environment}
            return start([sys.executable, "-m", package.module], variables)

        supervise(begin, package.source, lambda: _look(stand_in, airline))


def _look(stand_in: StandIn, airline: HostAirline | None) -> str:
    """Puts the cluster and the airline in order; why the operator must start anew, if it must."""
    if airline:
        airline.keep()
    before = stand_in.namespace
    try:
        now = stand_in.look()
    except ClusterError:
        return ""  # The operator itself tells of an API server that is away.
    return "" if now == before else f"its Lease belongs into namespace {now} now"


def _package(name: str) -> Package:
    for package in PACKAGES.values():
        if name in (package.name, package.folder):
            return package
    if (given(name) / "pyproject.toml").is_file():
        return projects.load(given(name))
    folder_names = ", ".join(package.folder for package in PACKAGES.values())
    raise ClusterError(
        f"there is no operator '{name}'; there are: {folder_names}, and every folder that `inv new` made"
    )


def _require_kinds(kubectl: Kubectl, package: Package) -> None:
    for kind in package.kinds:
        if not kubectl("get", "crd", str(kind.resource), "--ignore-not-found", "-o", "name").strip():
            raise ClusterError(
                f"the cluster does not know {kind.resource}: kubectl apply -k {package.config / 'crd'}, "
                f"or {package.installation} for all of it"
            )


def _stands_by(namespace: str, package: Package) -> str:
    return (
        f"{package.name} is also installed in the cluster, in namespace {namespace}. The one that holds the "
        "Lease works; this one stands by until it is free.\n"
        f"To work here now: ./inv run {package.argument} --take-over, which pauses the other meanwhile"
    )


def supervise(begin: Callable[[], subprocess.Popen[bytes]], sources: Path, look: Callable[[], str]) -> None:
    """Keeps a process running until interrupted: anew when a source has changed, and when it has ended.

    Args:
        begin: Starts it.
        sources: Where its sources are.
        look: Called now and then; why it must start anew, if it must.

    Raises:
        ClusterError: It refuses its settings.
    """
    pause = _PAUSE
    while True:
        due, began = _due(sources, look), time.monotonic()
        process = begin()
        try:
            why = _wait(due, process)
            if not why:
                lasted = time.monotonic() - began
                pause = _PAUSE if lasted > _SOON else min(2 * pause, _LONGEST_PAUSE)
                why = _ended(process, pause)
                why = _wait(due, seconds=pause) or why
        except KeyboardInterrupt:
            say("stopping")
            return
        finally:
            stop(process)
        say(f"{why}: starting anew")


def _due(sources: Path, look: Callable[[], str]) -> Callable[[], str]:
    """Tells why a process that begins now must start anew; "" while it need not."""
    seen, looked = _stamps(sources), time.monotonic()

    def due() -> str:
        nonlocal looked
        if _stamps(sources) != seen:
            return "the sources have changed"
        if time.monotonic() - looked < _LOOK_AT_CLUSTER:
            return ""
        why = look()
        looked = time.monotonic()
        return why

    return due


def _wait(
    due: Callable[[], str], process: subprocess.Popen[bytes] | None = None, seconds: float = math.inf
) -> str:
    """Waits until there is a reason to start anew, the process has ended, or time is up (returns "")."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends and (process is None or process.poll() is None):
        if why := due():
            return why
        time.sleep(_LOOK)
    return ""


def _ended(process: subprocess.Popen[bytes], pause: float) -> str:
    """Says how a process has ended, and when it is started again; returns why."""
    if process.returncode == WRONG_SETTINGS:
        raise ClusterError(
            "the operator refuses its settings, as it says above: correct them, and start again"
        )
    why = f"the operator has ended with status {process.returncode}"
    say(f"{why}; it starts again in {pause:.0f} s, or when its sources change")
    return why


def _stamps(sources: Path) -> dict[Path, int]:
    """When each source was last changed; one that vanishes meanwhile is seen next time."""
    stamps = {}
    for path in sources.rglob("*.py"):
        try:
            stamps[path] = path.stat().st_mtime_ns
        except FileNotFoundError:
            continue
    return stamps


@contextmanager
def _interrupted_by(*signals: signal.Signals) -> Iterator[None]:
    """The first of these does what Ctrl-C does, and others nothing: what was begun is put in order."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        for each in signals:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {each: signal.signal(each, interrupt) for each in signals}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
