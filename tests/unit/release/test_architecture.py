"""The pages about the architecture and the concepts match the code."""

import re
import tomllib

from devcluster.folders import CHECKOUT

PAGE = (CHECKOUT / "docs" / "architecture.md").read_text()
CONCEPTS = (CHECKOUT / "docs" / "comparison.md").read_text().partition("## Concepts")[2].partition("\n## ")[0]


def test_the_layers_are_those_that_import_linter_enforces() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    [layers] = [each["layers"] for each in project["tool"]["importlinter"]["contracts"] if "layers" in each]
    short = [{part.strip().removeprefix("pilothouse.") for part in layer.split("|")} for layer in layers]
    [line] = [line for line in PAGE.splitlines() if line.startswith("flights_operator | ")]
    assert [{part.strip() for part in layer.split("|")} for layer in line.split("->")] == short


def test_each_package_of_the_framework_is_listed() -> None:
    packages = {path.parent.name for path in (CHECKOUT / "operator" / "pilothouse").glob("*/__init__.py")}
    listed = re.findall(r"^    (\w+)/ ", PAGE, re.MULTILINE)
    assert sorted(listed) == sorted(packages)


def test_the_counted_lines_are_those_of_the_programs() -> None:
    sizes = [
        sum(bool(line.strip()) for line in (CHECKOUT / name).read_text().splitlines())
        for name in ("docs/tutorial/hello.py", "examples/memcached/memcached.py")
    ]
    assert re.findall(r"\.py\)[^.]*? has (\d+)", CONCEPTS) == [str(size) for size in sizes]
