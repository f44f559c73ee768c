"""`inv new NAME --group G --kind K`: like `pilothouse new`, and also writes the bundle."""

from __future__ import annotations

from invoke.context import Context
from invoke.tasks import task

from devcluster.folders import given
from devcluster.shell import ClusterError
from devcluster.tasks import speaking_plainly
from pilothouse.packaging.names import Names
from pilothouse.packaging.scaffold import create
from release import projects


@task(
    positional=["name"],
    help={
        "name": "name of the operator, for example web-sites",
        "group": "API group of its kind, for example example.com",
        "kind": "its kind, for example WebSite",
        "output": "folder to create; default: NAME in the current folder",
    },
)
@speaking_plainly
def new(_: Context, name: str, group: str = "", kind: str = "", output: str = "") -> None:
    """Creates a new operator in a folder of its own: types, playbook, tests, manifests and bundle."""
    examples = {"--group example.com": group, "--kind WebSite": kind}
    if missing := [example for example, given in examples.items() if not given]:
        options = " and ".join(example.split()[0] for example in missing)
        verb = "is" if len(missing) == 1 else "are"
        raise ClusterError(f"{options} {verb} missing. Add for example: {' '.join(missing)}")
    folder = given(output or name)
    create(Names(name, group, kind), folder, projects.update)
    print(f"created {folder}; its README.md describes the next steps")
