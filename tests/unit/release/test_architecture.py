"""The pages about the architecture and the concepts match the code."""

import re
import subprocess
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


def test_each_folder_of_the_checkout_is_listed_and_exists() -> None:
    tree = PAGE.partition("```\n")[2].partition("```")[0]
    listed = {
        each for line in re.findall(r"^([\w.][\w./ -]*?)  +\S", tree, re.MULTILINE) for each in line.split()
    }
    assert {each for each in listed if not (CHECKOUT / each).exists()} == set()
    folders = {path.name for path in CHECKOUT.iterdir() if path.is_dir() and tracked(path.name)}
    examples = {f"examples/{path.name}" for path in (CHECKOUT / "examples").iterdir() if path.is_dir()}
    assert (folders - {"examples"}) | examples <= {each.rstrip("/") for each in listed}


def test_each_module_of_the_etcd_operator_has_a_room() -> None:
    rooms = PAGE.partition("| room |")[2].partition("\n\n")[0]
    folder = CHECKOUT / "operator" / "etcd_operator"
    modules = {path.stem for path in folder.glob("*.py")} - {"__init__"} | {"rpc"}
    assert set(re.findall(r"`(\w+)`", rooms)) - {"Ready"} == modules


def test_each_tool_of_development_is_explained() -> None:
    rows = re.findall(r"^\| ([\w-]+) \| (.+) \|$", PAGE.partition("| for development |")[2], re.MULTILINE)
    groups = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["dependency-groups"]
    tools = {
        re.split("[=<>]", each)[0] for each in (*groups["dev"], *groups["build"]) if isinstance(each, str)
    }
    named = {name for name, _ in rows} | {word for _, why in rows for word in re.findall(r"types-\w+", why)}
    assert named >= tools


def tracked(folder: str) -> bool:
    command = ["git", "ls-files", "--error-unmatch", folder]
    return not subprocess.run(command, cwd=CHECKOUT, capture_output=True, check=False).returncode


def test_the_counted_lines_are_those_of_the_programs() -> None:
    sizes = [
        sum(bool(line.strip()) for line in (CHECKOUT / name).read_text().splitlines())
        for name in ("docs/tutorial/hello.py", "examples/memcached/memcached.py")
    ]
    assert re.findall(r"\.py\)[^.]*? has (\d+)", CONCEPTS) == [str(size) for size in sizes]
