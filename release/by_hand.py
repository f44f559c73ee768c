"""The invoke tasks `play`, `explain` and `run`."""

from __future__ import annotations

from invoke.context import Context
from invoke.exceptions import Exit
from invoke.tasks import task

from devcluster.tasks import speaking_plainly
from release import host
from release import play as plays

_PROJECT = {
    "project": "folder of an operator that `inv new` created; default: the operators of this checkout"
}


@task(
    positional=["target"],
    help={
        "target": "KIND/NAME or KIND/NAMESPACE/NAME, for example flightticket/my-flight-ticket",
        "check": "change nothing, show what would be changed",
        "diff": "show what each task changes, and the status",
        "namespace": "namespace of the object; default: the one of the kubeconfig's context",
        "operator-namespace": "namespace of the operator, if it is installed more than once",
        "output": "text or json",
        **_PROJECT,
    },
)
@speaking_plainly
def play(
    _: Context,
    target: str,
    check: bool = False,
    diff: bool = False,
    namespace: str = "",
    operator_namespace: str = "",
    output: str = "text",
    project: str = "",
) -> None:
    """Reconciles one object in its operator's pod. Exit code 1: failed or refused; 2: would change."""
    options = [f"--output={output}", *(["--check"] if check else []), *(["--diff"] if diff else [])]
    code = plays.play(
        target, options, namespace=namespace, operator_namespace=operator_namespace, project=project
    )
    if code:
        raise Exit(code=code)


@task(
    positional=["kind"],
    help={"kind": "for example flightticket", "format": "text or mermaid", **_PROJECT},
)
@speaking_plainly
def explain(
    _: Context,
    kind: str,
    format: str = "text",  # noqa: A002 - the option's name
    project: str = "",
) -> None:
    """Shows the tasks of a kind as a list or, with --format mermaid, as a diagram."""
    if code := plays.explain(kind, format, project):
        raise Exit(code=code)


@task(
    positional=["name"],
    help={
        "name": "an operator of this checkout, for example flights, or the folder of a project",
        "namespaces": "the namespaces to watch, separated by commas; default: all",
        "take-over": "scale the operator in the cluster to 0 while this one runs",
    },
)
@speaking_plainly
def run(_: Context, name: str, namespaces: str = "", take_over: bool = False) -> None:
    """Runs an operator on this host against the current cluster. Restarts it when its source changes."""
    host.run(name, namespaces=namespaces, take_over=take_over)
