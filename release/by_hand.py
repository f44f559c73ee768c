"""The invoke tasks `play`, `explain` and `run`: what people do with an operator by hand."""

from __future__ import annotations

from invoke.context import Context
from invoke.exceptions import Exit
from invoke.tasks import task

from devcluster.tasks import speaking_plainly
from release import host
from release import play as plays

_PROJECT = {"project": "the operator's folder, as `inv new` made it, where it is none of this checkout"}


@task(
    positional=["target"],
    help={
        "target": "KIND/NAME or KIND/NAMESPACE/NAME, such as flightticket/my-flight-ticket",
        "check": "change nothing, tell what would be changed",
        "diff": "show what each task changes, and the status",
        "namespace": "the object's namespace; the kubeconfig's unless given",
        "operator-namespace": "the operator's, where more than one is installed",
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
    """Plays one object by hand in its operator's pod. Exit code 1: failed or refused; 2: would change."""
    options = [f"--output={output}", *(["--check"] if check else []), *(["--diff"] if diff else [])]
    code = plays.play(
        target, options, namespace=namespace, operator_namespace=operator_namespace, project=project
    )
    if code:
        raise Exit(code=code)


@task(
    positional=["kind"],
    help={"kind": "such as flightticket", "format": "text or mermaid", **_PROJECT},
)
@speaking_plainly
def explain(
    _: Context,
    kind: str,
    format: str = "text",  # noqa: A002 - the option's name
    project: str = "",
) -> None:
    """Tells what is played over a kind: its tasks as a list or, --format mermaid, as a diagram."""
    if code := plays.explain(kind, format, project):
        raise Exit(code=code)


@task(
    positional=["name"],
    help={
        "name": "an operator of this checkout, such as flights, or the folder of a project",
        "namespaces": "the namespaces to watch, with commas between; all without it",
        "take-over": "pause the operator in the cluster, and bring it back at the end",
    },
)
@speaking_plainly
def run(_: Context, name: str, namespaces: str = "", take_over: bool = False) -> None:
    """Runs an operator on this host against the current cluster, anew when its source changes."""
    host.run(name, namespaces=namespaces, take_over=take_over)
