"""`from pilothouse import ...`: the names, where they live, and what importing them costs."""

import ast
import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import pilothouse

SOURCE = Path(pilothouse.__file__)


def loaded_by(statement: str) -> set[str]:
    """The modules of pilothouse that a new interpreter has after a statement."""
    code = (
        f"import json, sys; sys.path[:0] = {[each for each in sys.path if each]!r}\n"
        f"{statement}\n"
        "print(json.dumps([name for name in sys.modules if name.startswith('pilothouse')]))"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def test_each_name_is_that_of_its_package() -> None:
    for home, names in pilothouse.HOMES.items():
        package = import_module(f"pilothouse.{home}")
        for name in names:
            assert name in package.__all__, f"{name} is not public in pilothouse.{home}"
            assert getattr(pilothouse, name) is getattr(package, name)


def test_the_lists_of_names_agree() -> None:
    """Type checkers read the imports under TYPE_CHECKING, `import *` reads __all__, Python reads HOMES."""
    checked = {
        alias.name: (node.module or "").removeprefix("pilothouse.")
        for node in ast.walk(ast.parse(SOURCE.read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pilothouse.")
        for alias in node.names
    }
    lazy = {name: home for home, names in pilothouse.HOMES.items() for name in names}
    assert checked == lazy
    assert sorted(pilothouse.__all__) == sorted(lazy)
    assert set(pilothouse.__all__) <= set(dir(pilothouse))


def test_importing_it_loads_nothing_else() -> None:
    assert loaded_by("import pilothouse") == {"pilothouse"}


def test_importing_the_client_does_not_load_the_playbooks() -> None:
    loaded = loaded_by("import pilothouse.kube")
    packages = {name.split(".")[1] for name in loaded if "." in name}
    assert packages == {"kube", "telemetry"}


def test_a_name_loads_no_more_than_its_package() -> None:
    packages = {name.split(".")[1] for name in loaded_by("from pilothouse import CONFIG_MAP") if "." in name}
    assert packages == {"kube", "telemetry", "views"}


def test_a_wrong_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'pilothouse' has no attribute 'Plya'"):
        pilothouse.Plya  # type: ignore[attr-defined]  # noqa: B018 - the name is the mistake
