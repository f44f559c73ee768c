"""`inv new`: the names of a new operator, and errors before anything is written."""

import ast
import hashlib
import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from invoke.collection import Collection
from invoke.program import Program

import tasks
from devcluster.folders import CHECKOUT
from pilothouse.packaging.mistakes import ProjectError
from pilothouse.packaging.names import Names, mistakes
from pilothouse.packaging.scaffold import TEMPLATE, create
from release.new import new
from release.packages import IMAGE, version
from release.projects import load

GOOD = Names("web-sites", "sites.example.com", "WebSite")


def test_names_follow_from_three() -> None:
    assert (GOOD.module, GOOD.constant) == ("web_sites_operator", "WEB_SITE")
    assert Names("a", "a.b", "HTTPRoute").constant == "HTTP_ROUTE"


@pytest.mark.parametrize(
    ("kind", "plural"),
    [("WebSite", "websites"), ("Policy", "policies"), ("Box", "boxes"), ("Gateway", "gateways")],
)
def test_the_plural_is_english(kind: str, plural: str) -> None:
    assert Names("a", "a.b", kind).applied("greetings") == plural


def test_every_name_of_the_template_is_replaced() -> None:
    text = "greeter_operator GREETING GreetingPlay demo.pilothouse.dev_greetings.yaml a Greeting `Greetings`"
    assert Names("orders", "shop.dev", "Order").applied(text) == (
        "orders_operator ORDER OrderPlay shop.dev_orders.yaml an Order `Orders`"
    )


def test_good_names_have_no_mistakes() -> None:
    assert [*mistakes(GOOD, TEMPLATE)] == []
    assert [*mistakes(Names("greeter", "demo.pilothouse.dev", "Greeting"), TEMPLATE)] == []
    assert [*mistakes(Names("web", "42.example", "K" * 59), TEMPLATE)] == []


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (Names("WebSites", "a.b", "K"), "the name 'WebSites' must consist of lower-case letters"),
        (Names("web_sites", "a.b", "K"), "the name 'web_sites' must consist of lower-case letters"),
        (Names("-web", "a.b", "K"), "the name '-web' must"),
        (Names("9lives", "a.b", "K"), "the name '9lives' must"),
        (Names("", "a.b", "K"), "the name '' must"),
        (Names("a" * 41, "a.b", "K"), "and have at most 40"),
        (Names("flights", "a.b", "K"), "the name 'flights' is reserved"),
        (Names("web", "sites", "K"), "the group 'sites' must be a domain name"),
        (Names("web", "Sites.com", "K"), "the group 'Sites.com' must be a domain name"),
        (Names("web", "sites..com", "K"), "the group 'sites..com' must be a domain name"),
        (Names("web", "1.2.3.4", "K"), "the group '1.2.3.4' must be a domain name"),
        (Names("web", "a" * 64 + ".com", "K"), "must be a domain name"),
        (Names("web", ".".join(["a" * 50] * 5), "K"), "must be a domain name"),
        (Names("web", "apps.k8s.io", "K"), "the group 'apps.k8s.io' belongs to Kubernetes"),
        (Names("web", "a.b", "webSite"), "the kind 'webSite' must be in CamelCase"),
        (Names("web", "a.b", "Web-Site"), "the kind 'Web-Site' must be in CamelCase"),
        (Names("web", "a.b", ""), "the kind '' must be in CamelCase"),
        (
            Names("web", "a.b", "K" * 60),
            "consist of letters and digits, and have at most 59",
        ),
        (Names("test", "a.b", "K"), "the name 'test' is reserved"),
        (Names("kube", "a.b", "K"), "the name 'kube' is reserved"),
        (Names("operator", "a.b", "K"), "the name 'operator' is a module of Python"),
        (Names("class", "a.b", "K"), "the name 'class' is a Python keyword"),
        (Names("kube-proxy", "a.b", "K"), "begins with a prefix that is reserved for the cluster's own"),
        (Names("web", "a.b", "ConfigMap"), "the kind 'ConfigMap' is a kind of Kubernetes or OLM"),
        (Names("web", "a.b", "Job"), "the kind 'Job' is a kind of Kubernetes or OLM"),
        (Names("web", "a.b", "Status"), "the kind 'Status' is a kind of Kubernetes or OLM"),
        (
            Names("web", "a.b", "WebStatus"),
            "the kind 'WebStatus' must not end in Status",
        ),
        (
            Names("web", "a.b", "WebList"),
            "the kind 'WebList' must not end in List, because that is the name of a list",
        ),
        (Names("web", "a.b", "Warning"), "the kind 'Warning' is a name in Python"),
        (Names("web", "a.b", "Watch"), "the kind 'Watch' is already a name in the operator's code"),
        (Names("web", "a.b", "Key"), "the kind 'Key' is already a name in the operator's code"),
        (Names("web", "a.b", "None"), "the kind 'None' is a name in Python"),
    ],
)
def test_a_bad_name_is_reported_and_nothing_is_written(names: Names, message: str, tmp_path: Path) -> None:
    with pytest.raises(ProjectError) as refused:
        create(names, tmp_path / "new")
    assert message in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_exists_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match=r"already exists\. Use another folder with --output"):
        create(GOOD, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("folder", ["/proc/x", "/dev/null/x"])
def test_a_folder_that_cannot_be_written_is_reported(folder: str) -> None:
    with pytest.raises(ProjectError, match=rf"^{folder} cannot be written \(.+\)\. Use another .* --output$"):
        create(GOOD, Path(folder))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "--group and --kind are missing. Add for example: --group example.com --kind WebSite"),
        (["--kind", "WebSite"], "--group is missing. Add for example: --group example.com"),
        (["--group", "a.b"], "--kind is missing. Add for example: --kind WebSite"),
    ],
)
def test_a_missing_option_is_reported(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    program = Program(namespace=Collection(new))
    with pytest.raises(SystemExit) as ended:
        program.run(["inv", "new", "web", *options])
    assert ended.value.code == 1
    assert capsys.readouterr().err == f"{message}\n"


def test_the_example_is_a_project_with_one_kind() -> None:
    found = load(TEMPLATE)
    assert found.name == "greeter"
    assert [kind.resource.kind for kind in found.kinds] == ["Greeting"]


def test_the_example_uses_the_current_release() -> None:
    assert f"ARG BASE={IMAGE}:v{version()}\n" in (TEMPLATE / "Dockerfile").read_text()
    assert f'dependencies = ["pilothouse=={version()}"]' in (TEMPLATE / "pyproject.toml").read_text()
    assert f"'pilothouse[host,testing]=={version()}'" in (TEMPLATE / "README.md").read_text()


def test_the_readme_installs_from_a_checkout_first() -> None:
    """Pilothouse is not published, so the commands of "Set up" must work without an index that has it."""
    text = (TEMPLATE / "README.md").read_text()
    setup = text.partition("## Set up")[2].partition("## Test")[0]
    commands = [line.strip() for line in setup.splitlines() if line.startswith("    ")]
    assert "pip install 'CHECKOUT[host,testing]' mypy uv" in commands
    assert not [line for line in commands if "pilothouse[" in line]


def test_comments_in_the_readme_are_not_aligned() -> None:
    """The names before them have another length in a new project."""
    text = GOOD.applied((TEMPLATE / "README.md").read_text())
    commands = [line for line in text.splitlines() if line.startswith("    ") and " # " in line]
    assert len(commands) > 5
    assert [line for line in commands if "   # " in line] == []


def test_the_example_is_read_in_five_minutes() -> None:
    code = [path for path in (TEMPLATE / "greeter_operator").glob("*.py") if ast.parse(path.read_text())]
    assert sum(len(path.read_text().splitlines()) for path in code) < 160


@pytest.mark.parametrize(
    ("words", "given"),
    [
        (["project", "--help"], "--help project"),
        (["new", "-h"], "--help new"),
        (["run", "flights", "--take-over", "--help"], "--help run"),
        (["--help", "run"], "--help run"),
        (["--list"], "--list"),
        (["run", "flights"], "run flights"),
        (["run", "--", "--help"], "run -- --help"),
    ],
)
def test_help_works_after_every_command(words: list[str], given: str, tmp_path: Path) -> None:
    """Runs `inv` in a checkout whose interpreter prints its arguments."""
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements" / "dev.txt").write_text("")
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / ".venv" / "bin" / "python").chmod(0o755)
    python = ".".join(map(str, sys.version_info[:2]))
    (tmp_path / ".venv" / "pilothouse.lock").write_text(f"{hashlib.sha256(b'').hexdigest()}-{python}\n")
    shutil.copy(CHECKOUT / "inv", tmp_path / "inv")
    done = subprocess.run(
        [tmp_path / "inv", *words],
        env={**os.environ, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr, done.stdout) == (0, "", f"-m invoke {given}\n")


def test_each_command_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    program = Program(namespace=tasks.namespace)
    for name in tasks.namespace.task_names:
        with suppress(SystemExit):
            program.run(["inv", "--help", name])
        shown = capsys.readouterr().out
        assert f"[--core-opts] {name} " in shown
        assert "Docstring:\n  none" not in shown
