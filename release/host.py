"""`inv run`: an operator on this host, against the current cluster, anew when its source changes."""

from __future__ import annotations

import os
import re
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from devcluster import folders
from devcluster import target as targets
from devcluster.folders import CHECKOUT
from devcluster.kubectl import Kubectl, wait_until
from devcluster.shell import ClusterError
from flights_operator.settings import FlightsSettings
from release import airline, projects
from release.packages import PACKAGES, Package

#: The Deployment's replicas before it was paused: found there again if this process could not bring it back.
_REPLICAS = "pilothouse.dev/replicas-before-take-over"
#: Seconds between two looks at the sources.
_LOOK = 0.5
#: Seconds between two looks at the paused Deployment: each starts a kubectl.
_LOOK_AT_DEPLOYMENT = 2.0
#: Seconds for a process to end after SIGTERM: the operator's own patience and a little.
_STOP_PATIENCE = 40.0
_START_PATIENCE = 15.0


def run(name: str, *, namespaces: str = "", take_over: bool = False) -> None:
    """Runs an operator until interrupted.

    Args:
        name: The package, or its folder: "flights"; or the folder of a project.
        namespaces: The namespaces to watch, with commas between; empty for all.
        take_over: Scale the Deployment in the cluster to 0 meanwhile.

    Raises:
        ClusterError: there is no such operator, or the cluster cannot be used or lacks the operator's kinds.
    """
    package = _package(name)
    kubectl = targets.current().kubectl
    _require_kinds(kubectl, package)
    deployment = _deployment(kubectl, package)
    with _interrupted_by_sigterm(), ExitStack() as stack:
        if deployment and take_over:
            stack.enter_context(_paused(kubectl, deployment))
        elif deployment:
            _say(_stands_by(deployment, package))
        books = FlightsSettings in package.settings and "AIRLINE_URL" not in os.environ
        own = stack.enter_context(_airline(kubectl)) if books else {}
        where = deployment["metadata"]["namespace"] if deployment else "default"
        # The caller's own variables go before these.
        environment = {
            "KUBECONFIG": str(kubectl.kubeconfig),
            # With the Deployment's own Lease: of the two, one works.
            "LEADER_ELECT": "true",
            "POD_NAMESPACE": where,
            "WATCH_NAMESPACE": namespaces,
            "HEALTH_ADDRESS": "127.0.0.1:0",
            "LOG_FORMAT": "console",
            **own,
            **os.environ,
            "PYTHONPATH": package.python_path,
        }
        _reloading([sys.executable, "-m", package.module], environment, package.source)


def _package(name: str) -> Package:
    for package in PACKAGES.values():
        if name in (package.name, package.folder):
            return package
    if (Path(name) / "pyproject.toml").is_file():
        return projects.load(Path(name))
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


def _deployment(kubectl: Kubectl, package: Package) -> dict[str, Any] | None:
    """The operator's Deployment in the cluster, if it is there and runs, or ran until somebody took over."""
    found = kubectl.read("deployments", "-A", "-l", package.selector)["items"]
    runs = [each for each in found if _replicas(each)]
    if len(runs) > 1:
        places = ", ".join(each["metadata"]["namespace"] for each in runs)
        raise ClusterError(f"{package.name} is installed more than once, in {places}: uninstall one of them")
    return runs[0] if runs else None


def _replicas(deployment: Mapping[str, Any]) -> int:
    """How many replicas a Deployment has when nobody has taken over."""
    remembered = deployment["metadata"].get("annotations", {}).get(_REPLICAS)
    return int(remembered or 0) or int(deployment["spec"]["replicas"])


def _stands_by(deployment: Mapping[str, Any], package: Package) -> str:
    namespace, name = deployment["metadata"]["namespace"], deployment["metadata"]["name"]
    return (
        f"{package.name} also runs in the cluster, in namespace {namespace}. The one that holds the Lease "
        "works; this one stands by until it is free.\n"
        f"To work here now: ./inv run {package.argument} --take-over, which pauses the other meanwhile,\n"
        f"or by hand: kubectl -n {namespace} scale deployment/{name} --replicas=0"
    )


@contextmanager
def _paused(kubectl: Kubectl, deployment: Mapping[str, Any]) -> Iterator[None]:
    """Keeps a Deployment at 0 replicas, and scales it back at the end."""
    namespace, name = deployment["metadata"]["namespace"], deployment["metadata"]["name"]
    replicas = _replicas(deployment)
    there = (f"deployment/{name}", "-n", namespace)
    kubectl("annotate", *there, "--overwrite", f"{_REPLICAS}={replicas}")
    kubectl("scale", *there, "--replicas=0")
    _say(f"paused {namespace}/{name}, which had {replicas} replica(s)")
    over = threading.Event()
    keeper = threading.Thread(target=_keep_paused, args=(kubectl, there, over), name="keep-paused")
    keeper.start()
    try:
        yield
    finally:
        over.set()
        keeper.join()
        kubectl("scale", *there, f"--replicas={replicas}")
        kubectl("annotate", *there, f"{_REPLICAS}-")
        _say(f"brought {namespace}/{name} back to {replicas} replica(s)")


def _keep_paused(kubectl: Kubectl, there: Sequence[str], over: threading.Event) -> None:
    """Scales a Deployment to 0 again whenever somebody has brought it back.

    OLM does so at an upgrade, and when it happens to look after a change of the Deployment that the
    Deployment's controller has not observed yet: it takes that for a broken installation and installs anew
    (`DeploymentStatus` in its pkg/controller/install/status_viewer.go).
    """
    while not over.wait(_LOOK_AT_DEPLOYMENT):
        try:
            if kubectl("get", *there, "-o", "jsonpath={.spec.replicas}") != "0":
                kubectl("scale", *there, "--replicas=0")
                _say(f"{there[0]} was brought back meanwhile, and is paused again")
        except ClusterError:
            continue  # The operator on this host tells of an API server that is away.


@contextmanager
def _airline(kubectl: Kubectl) -> Iterator[Mapping[str, str]]:
    """An airline that this host reaches: the cluster's, where the tickets are booked; else one here.

    Yields:
        What the operator's environment says of it.
    """
    state = folders.clusters() / folders.cluster_id()
    state.mkdir(parents=True, exist_ok=True)
    key = airline.api_key(kubectl)
    key_file = state / "airline-api-key"
    key_file.touch(mode=0o600)
    key_file.write_text(key or secrets.token_urlsafe(24))
    if key:
        service = (f"--namespace={airline.NAMESPACE}", "service/booking-api", ":80")
        command = [str(kubectl.program), "port-forward", *service]
        told, what = r"127\.0\.0\.1:(\d+)", "the cluster's airline, through a port-forward"
    else:
        database = state / "bookings.db"
        command = [sys.executable, "-m", "booking_api", "--address=127.0.0.1:0", f"--database={database}"]
        command.append(f"--api-key-file={key_file}")
        told, what = r"listening on \S+:(\d+)", f"an airline on this host, its bookings in {database}"
    environment = {
        **os.environ,
        "KUBECONFIG": str(kubectl.kubeconfig),
        "PYTHONPATH": str(CHECKOUT / "examples"),
    }
    log = state / "run-airline.log"
    with log.open("w") as sink:
        process = subprocess.Popen(command, env=environment, stdout=sink, stderr=sink, start_new_session=True)
    try:

        def port() -> str:
            if process.poll() is not None:
                raise ClusterError(f"{what} ended at once:\n{log.read_text().strip()}")
            found = re.search(told, log.read_text())
            return found[1] if found else ""

        url = f"http://127.0.0.1:{wait_until(port, _START_PATIENCE, lambda: f'{what} did not start')}"
        _say(f"using {what}: {url}")
        yield {"AIRLINE_URL": url, "AIRLINE_API_KEY_FILE": str(key_file)}
    finally:
        _stop(process)


def _reloading(command: list[str], environment: Mapping[str, str], sources: Path) -> None:
    """Runs a command until interrupted, anew whenever a source has changed."""
    while True:
        seen = _stamps(sources)
        # In a session of its own: Ctrl-C comes here alone, and the operator is told once, to end in order.
        process = subprocess.Popen(command, env=environment, start_new_session=True)
        try:
            _until_changed(process, sources, seen)
        except KeyboardInterrupt:
            _say("stopping")
            return
        finally:
            _stop(process)
        _say("the sources have changed: starting anew")


def _until_changed(process: subprocess.Popen[bytes], sources: Path, seen: Mapping[Path, int]) -> None:
    told = False
    while _stamps(sources) == seen:
        if process.poll() is not None and not told:
            told = True
            _say(
                f"the operator has ended with status {process.returncode}; waiting for its sources to change"
            )
        time.sleep(_LOOK)


def _stamps(sources: Path) -> dict[Path, int]:
    """When each source was last changed; one that vanishes meanwhile is seen next time."""
    stamps = {}
    for path in sources.rglob("*.py"):
        try:
            stamps[path] = path.stat().st_mtime_ns
        except FileNotFoundError:
            continue
    return stamps


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ends a process gracefully, or after its patience not so."""
    process.terminate()
    try:
        process.wait(_STOP_PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    """SIGTERM does what Ctrl-C does: what was paused or started is put in order."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
