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
OURS = {"pilothouse", "flights_operator", "etcd_operator"}
#: Packages that are imported under another name.
IMPORTED_AS = {"google": "protobuf"}
#: For authors of operators. Not in the image.
AUTHORS = {CHECKOUT / "operator" / "pilothouse" / name for name in ("testing", "packaging")}
#: Needed only on a host, and imported only there: pilothouse.kube.kubeconfig_files.
OPTIONAL = {"yaml"}


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[<>=~]", requirement)[0] for requirement in requirements}


def in_the_image() -> set[str]:
    """Returns the packages that the framework and our operators need."""
    return names([*PROJECT["project"]["dependencies"], *PROJECT["dependency-groups"]["operators"]])


def locked(name: str) -> set[str]:
    """Returns the pins of a lock file, such as `yarl==1.25.1`."""
    text = (CHECKOUT / "requirements" / name).read_text()
    return set(re.findall(r"^[\w-]+==[\w.]+", text, re.MULTILINE))


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


def test_imports_of_the_image_match_its_dependencies() -> None:
    sources = [path for path in (CHECKOUT / "operator").rglob("*.py") if not AUTHORS & {*path.parents}]
    found = {name.replace("_", "-") for path in sources for name in set(imported(path)) - OURS}
    found = {IMPORTED_AS.get(name, name) for name in found - sys.stdlib_module_names - OPTIONAL}
    assert found == in_the_image()


def test_the_locked_packages_of_the_image_are_those_of_the_framework_and_the_operators() -> None:
    framework, image = (locked(f"{name}.txt") for name in ("runtime", "image"))
    assert framework < image
    assert names(PROJECT["dependency-groups"]["operators"]) <= {line.split("==")[0] for line in image}
    assert not names(PROJECT["dependency-groups"]["operators"]) & {line.split("==")[0] for line in framework}


def test_the_page_explains_each_dependency() -> None:
    image, _, extras = PAGE.partition("For development only:")[0].partition("In the extras of the wheel:")
    rows = set(re.findall(r"^\| ([\w-]+) \|", image, re.MULTILINE)) - {"package"}
    assert rows == in_the_image()
    rows = set(re.findall(r"^\| (\w+ \| [\w, -]+) \|", extras, re.MULTILINE)) - {"extra | package"}
    wanted = PROJECT["project"]["optional-dependencies"]
    assert {(row.split(" | ")[0], name) for row in rows for name in row.split(" | ")[1].split(", ")} == {
        (extra, name) for extra in wanted for name in names(wanted[extra])
    }
    bench = PAGE.partition("For the benchmark alone:")[2].partition("\n\n")[0]
    groups = PROJECT["dependency-groups"]
    named = set(re.findall(r"[\w-]+", bench))
    assert names(groups["bench"]) | names(groups["bench-ansible"]) <= named
