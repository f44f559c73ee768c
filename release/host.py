"""`inv run`: runs an operator on this host against the current cluster."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import ExitStack

from devcluster import target as targets
from devcluster.folders import given
from devcluster.kubectl import Kubectl
from devcluster.progress import say
from devcluster.shell import ClusterError
from pilothouse.cli.children import start
from pilothouse.cli.supervise import environment, interrupted_by, supervise
from release import projects
from release.packages import PACKAGES, Companion, Package
from release.take_over import StandIn, standing_in


def run(name: str, *, namespaces: str = "", take_over: bool = False) -> None:
    """Runs an operator until interrupted.

    Args:
        name: The package, its folder ("flights"), or the folder of a project.
        namespaces: The namespaces to watch, separated by commas; empty for all.
        take_over: Keep the Deployment in the cluster at 0 replicas while the operator runs here.

    Raises:
        ClusterError: There is no such operator, or the cluster cannot be used or lacks its kinds.
        ProjectError: The folder is not a project, or the operator's settings are wrong.
    """
    package = _package(name)
    kubectl = targets.current().kubectl
    _require_kinds(kubectl, package)
    with interrupted_by(signal.SIGTERM, signal.SIGHUP), ExitStack() as stack:
        stand_in = stack.enter_context(standing_in(kubectl, package, take_over=take_over))
        if not take_over and stand_in.runs:
            say(_also_installed(stand_in.namespace, package))
        companion = stack.enter_context(package.beside(kubectl))
        variables = environment(
            package.python_path,
            {
                "KUBECONFIG": str(kubectl.kubeconfig),
                "WATCH_NAMESPACE": namespaces,
                **(companion.environment if companion else {}),
            },
        )

        def begin() -> subprocess.Popen[bytes]:
            return start(
                [sys.executable, "-m", package.module], {"POD_NAMESPACE": stand_in.namespace, **variables}
            )

        supervise(begin, package.source, lambda: _check(stand_in, companion))


def _check(stand_in: StandIn, companion: Companion | None) -> str:
    """Keeps the take-over and the companion running. Returns why the operator must restart, or ""."""
    if companion:
        companion.keep()
    before = stand_in.namespace
    try:
        now = stand_in.check()
    except ClusterError:
        return ""  # The operator itself logs that the API server cannot be reached.
    return "" if now == before else f"the operator's Lease is now in namespace {now}"


def _package(name: str) -> Package:
    for package in PACKAGES.values():
        if name in (package.name, package.folder):
            return package
    if (given(name) / "pyproject.toml").is_file():
        return projects.load(given(name))
    folder_names = ", ".join(package.folder for package in PACKAGES.values())
    raise ClusterError(
        f"there is no operator '{name}'. Use {folder_names}, or the folder of a project that `inv new` made."
    )


def _require_kinds(kubectl: Kubectl, package: Package) -> None:
    for kind in package.kinds:
        if not kubectl("get", "crd", str(kind.resource), "--ignore-not-found", "-o", "name").strip():
            raise ClusterError(
                f"the cluster has no kind {kind.resource}. Install its CRD: "
                f"kubectl apply --server-side -k {package.config / 'crd'}. "
                f"Or install the operator: {package.installation}"
            )


def _also_installed(namespace: str, package: Package) -> str:
    return (
        f"{package.name} is also installed in the cluster, in namespace {namespace}. Only the process that "
        "holds the Lease reconciles. This one waits until the Lease is free.\n"
        f"To pause the other one: ./inv run {package.argument} --take-over"
    )
