"""The image's imports match the dependencies in pyproject.toml, and docs/architecture.md explains them."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from devcluster.folders import CHECKOUT

PROJECT: dict[str, Any] = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
PAGE = (CHECKOUT / "docs" / "architecture.md").read_text().partition("## Dependencies")[2]
OURS = {"pilothouse", "flights_operator"}
#: For authors of operators. Not in the image.
AUTHORS = {CHECKOUT / "operator" / "pilothouse" / name for name in ("testing", "packaging")}
#: Needed only on a host, and imported only there: pilothouse.kube.kubeconfig_files.
OPTIONAL = {"yaml"}


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[<>=~]", requirement)[0] for requirement in requirements}


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


def test_imports_of_the_image_match_its_dependencies() -> None:
    sources = [path for path in (CHECKOUT / "operator").rglob("*.py") if not AUTHORS & {*path.parents}]
    found = {name.replace("_", "-") for path in sources for name in set(imported(path)) - OURS}
    assert found - sys.stdlib_module_names - OPTIONAL == names(PROJECT["project"]["dependencies"])


def test_the_page_explains_each_dependency() -> None:
    image, _, extras = PAGE.partition("In the extras of the wheel:")
    rows = set(re.findall(r"^\| ([\w-]+) \|", image, re.MULTILINE)) - {"package"}
    assert rows == names(PROJECT["project"]["dependencies"])
    rows = set(re.findall(r"^\| (\w+ \| [\w, -]+) \|", extras, re.MULTILINE)) - {"extra | package"}
    wanted = PROJECT["project"]["optional-dependencies"]
    assert {(row.split(" | ")[0], name) for row in rows for name in row.split(" | ")[1].split(", ")} == {
        (extra, name) for extra in wanted for name in names(wanted[extra])
    }
    bench = PAGE.partition("For the benchmark alone:")[2].partition("\n\n")[0]
    groups = PROJECT["dependency-groups"]
    named = set(re.findall(r"[\w-]+", bench))
    assert names(groups["bench"]) | names(groups["bench-ansible"]) <= named
