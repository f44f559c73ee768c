"""`inv play` and `inv explain`: run the operator's own command line, in its pod or on this host.

A host can reach neither pods nor Services, so a manual play must run in the cluster. In the operator's pod it
has the operator's permissions, settings and API key.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from devcluster import target as targets
from devcluster.kubectl import Kubectl, pod_problem
from devcluster.shell import ClusterError, CommandError
from pilothouse.api import Kind
from release import projects
from release.packages import Package

#: The longest wait, in seconds: the timeout of a reconcile plus the time until an abandoned Lease expires.
_PATIENCE = 180.0


def play(
    name: str, options: Sequence[str], *, namespace: str = "", operator_namespace: str = "", project: str = ""
) -> int:
    """Reconciles one object manually in its operator's pod.

    Args:
        name: KIND/NAME or KIND/NAMESPACE/NAME.
        options: The options of the operator's own `play`: --check, --diff, --output=json.
        namespace: The namespace of the object, if `name` has none. Default: that of the kubeconfig's context.
        operator_namespace: The namespace of the operator, if it is installed more than once.
        project: The folder of a project. Default: the operators of this checkout.

    Returns:
        The exit code of the operator's own `play`.

    Raises:
        ClusterError: There is no such kind, or no suitable pod.
    """
    word, _, rest = name.partition("/")
    package, kind = of_kind(word, project)
    kubectl = targets.current().kubectl
    if kind.resource.namespaced and not namespace and "/" not in rest:
        namespace = _default_namespace(kubectl)
    place = [f"--namespace={namespace}"] if namespace else []
    pod = pod_of(kubectl, package, operator_namespace)
    where = ("-n", pod["metadata"]["namespace"], pod["metadata"]["name"], "-c", "manager")
    words = ["play", str(kind.resource) + name.removeprefix(word), *place, *options]
    command = [str(kubectl.program), "exec", *where, "--", "python3", "-m", package.module, *words]
    environment = {**os.environ, "KUBECONFIG": str(kubectl.kubeconfig)}
    try:
        done = subprocess.run(
            command, env=environment, timeout=_PATIENCE, check=False, stderr=subprocess.PIPE
        )
    except subprocess.TimeoutExpired:
        raise ClusterError(
            f"the manual play of {name} timed out after {_PATIENCE:.0f} s. See the operator's log: "
            f"kubectl logs {shlex.join(where)}"
        ) from None
    _print_errors(done.stderr.decode())
    return done.returncode


def explain(word: str, form: str, project: str = "") -> int:
    """Shows the tasks of a kind from the sources on this host. Needs no cluster.

    Args:
        word: The kind.
        form: text or mermaid.
        project: The folder of a project, as for `play`.

    Returns:
        The exit code.

    Raises:
        ClusterError: No operator has the kind.
    """
    package, kind = of_kind(word, project)
    command = [sys.executable, "-m", package.module, "explain", str(kind.resource), f"--format={form}"]
    environment = {**os.environ, "PYTHONPATH": package.python_path}
    return subprocess.run(command, env=environment, check=False).returncode


def of_kind(word: str, project: str = "") -> tuple[Package, Kind[Any]]:
    """Returns the package and the kind with a name.

    Args:
        word: The kind, its plural or a short name, in upper or lower case.
        project: The folder of a project. Default: the operators of this checkout.

    Raises:
        ClusterError: No operator has the kind, or several kinds have the name. The text lists them.
    """
    known = []
    found: list[tuple[Package, Kind[Any]]] = []
    for package in projects.operators(project):
        for kind in package.kinds:
            resource = kind.resource
            if word.lower() in (resource.kind.lower(), resource.plural, str(resource), *kind.short_names):
                found.append((package, kind))
            known.append(resource.kind)
    if len(found) > 1:
        names = ", ".join(str(kind.resource) for _, kind in found)
        raise ClusterError(f"several kinds are named '{word}': {names}. Use one of these names")
    if found:
        return found[0]
    where = f"in {project}" if project else "of this checkout"
    more = "" if project else ". For an operator that `inv new` created, use --project FOLDER"
    raise ClusterError(f"no operator {where} has the kind '{word}'. The kinds are: {', '.join(known)}{more}")


def pod_of(kubectl: Kubectl, package: Package, namespace: str) -> dict[str, Any]:
    """Returns a running pod of an operator that is not being deleted, a Ready one if possible.

    Raises:
        ClusterError: There is no such pod, or the operator runs in several namespaces.
    """
    where = ("-n", namespace) if namespace else ("-A",)
    try:
        items = kubectl.read("pods", *where, "-l", package.selector)["items"]
    except CommandError as error:
        if namespace or "forbidden" not in str(error):
            raise
        raise ClusterError(
            f"you have no permission to list the pods of all namespaces to find {package.name}. Use "
            "--operator-namespace"
        ) from error
    found: list[dict[str, Any]] = [pod for pod in items if not pod["metadata"].get("deletionTimestamp")]
    namespaces = sorted({pod["metadata"]["namespace"] for pod in found})
    if len(namespaces) > 1:
        raise ClusterError(
            f"{package.name} runs in more than one namespace. Choose one of {', '.join(namespaces)} with "
            "--operator-namespace"
        )
    running = [pod for pod in found if _runs(pod)]
    if not running:
        problems = "; ".join(f"{pod['metadata']['name']}: {pod_problem(pod)}" for pod in found)
        raise ClusterError(
            f"{package.name} has no running pod ({problems or 'there are no pods'}). Install it "
            f"({package.installation}), scale it up (kubectl scale --replicas=1), or run it on this host "
            f"(./inv run {package.argument})"
        )
    ready = next((pod for pod in running if not pod_problem(pod)), None)
    if ready is None:
        _print_errors(
            f"note: no pod of {package.name} is Ready, using a running one: {pod_problem(running[0])}"
        )
    return ready or running[0]


def _runs(pod: dict[str, Any]) -> bool:
    containers = pod["status"].get("containerStatuses", [])
    return bool(containers) and all("running" in container["state"] for container in containers)


def _default_namespace(kubectl: Kubectl) -> str:
    """Returns the namespace of the kubeconfig's context, which is kubectl's default."""
    words = ("config", "view", "--minify", "-o", "jsonpath={.contexts[0].context.namespace}")
    try:
        return kubectl(*words).strip() or "default"
    except CommandError:
        return "default"


def _print_errors(text: str) -> None:
    """Prints lines to standard error, without kubectl's line about the exit code."""
    for line in text.splitlines():
        if not line.startswith("command terminated with exit code"):
            print(line, file=sys.stderr)
