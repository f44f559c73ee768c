"""Documented commands install CustomResourceDefinitions with server-side apply, which has no size limit."""

import re
import subprocess

import pytest

from devcluster.folders import CHECKOUT

# Folders without a CustomResourceDefinition.
OTHERS = ("samples", "booking_api", "config/olm")
FILES = subprocess.run(
    ["git", "ls-files", "README.md", "docs", "examples", "config"],
    cwd=CHECKOUT,
    check=True,
    capture_output=True,
    text=True,
).stdout.split()
COMMANDS = [
    (name, line)
    for name in FILES
    if name.endswith((".md", ".yaml"))
    for line in (CHECKOUT / name).read_text().splitlines()
    if re.search(r"kubectl apply\b.*( -k | crd )|crd .*kubectl apply", line)
    and not any(each in line for each in OTHERS)
]


@pytest.mark.parametrize(("file", "line"), COMMANDS)
def test_it_is_a_server_side_apply(file: str, line: str) -> None:
    assert "kubectl apply --server-side" in line


def test_there_are_such_commands() -> None:
    assert {"README.md", "docs/tutorial/README.md", "examples/greeter/README.md"} <= {
        name for name, _ in COMMANDS
    }


def test_the_tutorial_and_the_comparison_state_the_size_of_its_operator() -> None:
    text = (CHECKOUT / "docs/tutorial/hello.py").read_text()
    count = sum(bool(line.strip()) for line in text.splitlines())
    assert text.startswith(f'"""An operator in {count} lines')
    assert (
        (CHECKOUT / "docs/tutorial/README.md")
        .read_text()
        .startswith(f"# Tutorial: an operator in {count} lines\n")
    )
    assert f"a complete operator, has {count} lines" in (CHECKOUT / "docs/comparison.md").read_text()
