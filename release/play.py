"""`inv play` and `inv explain`: an operator's own command line, in its pod by exec, or here.

A host reaches neither pods nor Services, so what plays must run in the cluster: in the operator's pod it has
the operator's rights, settings and key.
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

#: What a person waits for at most: a sync's own deadline, and the time for which an abandoned Lease is kept.
_PATIENCE = 180.0


def play(
    name: str, options: Sequence[str], *, namespace: str = "", operator_namespace: str = "", project: str = ""
) -> int:
    """Plays one object by hand in its operator's pod.

    Args:
        name: KIND/NAME or KIND/NAMESPACE/NAME.
        options: For the operator's own `play`: --check, --diff, --output=json.
        namespace: Of the object, where its name does not say it; the kubeconfig's unless given.
        operator_namespace: Of the operator, where more than one is installed.
        project: The folder of the operator, where it is none of this checkout.

    Returns:
        The exit code of the operator's own `play`.

    Raises:
        ClusterError: there is no such kind, or no pod to play in.
    """
    word, _, rest = name.partition("/")
    package, kind = of_kind(word, project)
    kubectl = targets.current().kubectl
    if kind.resource.namespaced and not namespace and "/" not in rest:
        namespace = _default_namespace(kubectl)
    place = [f"--namespace={namespace}"] if namespace else []
    pod = pod_of(kubectl, package, operator_namespace)
    where = ("-n", pod["metadata"]["namespace"], pod["metadata"]["name"], "-c", "manager")
    words = ["play", kind.resource.kind + name.removeprefix(word), *place, *options]
    command = [str(kubectl.program), "exec", *where, "--", "python3", "-m", package.module, *words]
    environment = {**os.environ, "KUBECONFIG": str(kubectl.kubeconfig)}
    try:
        done = subprocess.run(
            command, env=environment, timeout=_PATIENCE, check=False, stderr=subprocess.PIPE
        )
    except subprocess.TimeoutExpired:
        raise ClusterError(
            f"the play of {name} gave no answer within {_PATIENCE:.0f} s: see the operator's log, "
            f"kubectl logs {shlex.join(where)}"
        ) from None
    _tell(done.stderr.decode())
    return done.returncode


def explain(word: str, form: str, project: str = "") -> int:
    """Tells what is played over a kind: by the sources on this host, without any cluster.

    Args:
        word: The kind.
        form: text or mermaid.
        project: As for `play`.

    Returns:
        The exit code.

    Raises:
        ClusterError: no operator here has the kind.
    """
    package, kind = of_kind(word, project)
    command = [sys.executable, "-m", package.module, "explain", kind.resource.kind, f"--format={form}"]
    environment = {**os.environ, "PYTHONPATH": package.python_path}
    return subprocess.run(command, env=environment, check=False).returncode


def of_kind(word: str, project: str = "") -> tuple[Package, Kind[Any]]:
    """The package and the kind that a person means: by kind, plural or short name, in any case.

    Args:
        word: What the person says.
        project: The folder whose operator is meant; one of this checkout without it.

    Raises:
        ClusterError: no operator here has it; the known ones are named.
    """
    known = []
    for package in projects.operators(project):
        for kind in package.kinds:
            resource = kind.resource
            if word.lower() in (resource.kind.lower(), resource.plural, str(resource), *kind.short_names):
                return package, kind
            known.append(resource.kind)
    where = f"in {project}" if project else "here"
    more = "" if project else "; --project names the folder of another operator"
    raise ClusterError(f"no operator {where} has the kind '{word}'; there are: {', '.join(known)}{more}")


def pod_of(kubectl: Kubectl, package: Package, namespace: str) -> dict[str, Any]:
    """A pod to play in: one whose process runs and stays, a Ready one if there is one."""
    where = ("-n", namespace) if namespace else ("-A",)
    try:
        items = kubectl.read("pods", *where, "-l", package.selector)["items"]
    except CommandError as error:
        if namespace or "forbidden" not in str(error):
            raise
        raise ClusterError(
            f"you may not list the pods of all namespaces to find {package.name}: name its own with "
            "--operator-namespace"
        ) from error
    found: list[dict[str, Any]] = [pod for pod in items if not pod["metadata"].get("deletionTimestamp")]
    namespaces = sorted({pod["metadata"]["namespace"] for pod in found})
    if len(namespaces) > 1:
        raise ClusterError(
            f"{package.name} runs in more than one namespace: choose with --operator-namespace, "
            f"one of {', '.join(namespaces)}"
        )
    running = [pod for pod in found if _runs(pod)]
    if not running:
        problems = "; ".join(f"{pod['metadata']['name']}: {pod_problem(pod)}" for pod in found)
        raise ClusterError(
            f"{package.name} has no running pod to play in ({problems or 'there is none'}): start it, "
            f"{package.installation} installs it, kubectl scale --replicas=1 brings it back, or run it here: "
            f"./inv run {package.argument}"
        )
    ready = next((pod for pod in running if not pod_problem(pod)), None)
    if ready is None:
        _tell(f"note: no pod of {package.name} is Ready; playing in one that runs: {pod_problem(running[0])}")
    return ready or running[0]


def _runs(pod: dict[str, Any]) -> bool:
    containers = pod["status"].get("containerStatuses", [])
    return bool(containers) and all("running" in container["state"] for container in containers)


def _default_namespace(kubectl: Kubectl) -> str:
    """The namespace of the kubeconfig's context, which kubectl would take."""
    words = ("config", "view", "--minify", "-o", "jsonpath={.contexts[0].context.namespace}")
    try:
        return kubectl(*words).strip() or "default"
    except CommandError:
        return "default"


def _tell(text: str) -> None:
    """Prints what was said on standard error, without kubectl's remark on the exit code."""
    for line in text.splitlines():
        if not line.startswith("command terminated with exit code"):
            print(line, file=sys.stderr)
