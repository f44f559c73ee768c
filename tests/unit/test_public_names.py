"""Our own operators use what any author can use: `pilothouse` and the names that its packages export."""

import ast
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

import pilothouse
from release.docstrings import PACKAGES

ROOT = Path(__file__).parents[2]
OPERATORS = (
    "operator/flights_operator",
    "operator/etcd_operator",
    "examples/greeter",
    "examples/memcached",
    "docs/tutorial",
)
SOURCES = sorted(path for folder in OPERATORS for path in (ROOT / folder).rglob("*.py"))
PUBLIC = {"pilothouse", *(f"pilothouse.{name}" for name in PACKAGES)}


def private(source: str) -> Iterator[str]:
    """The imports of a source that reach beyond the public names."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from (each.name for each in names if each.name.startswith("pilothouse."))
            case ast.ImportFrom(module=str(module), names=names) if _is_ours(module):
                exported = {*import_module(module).__all__, "__version__"} if module in PUBLIC else set()
                yield from (f"{module}.{each.name}" for each in names if each.name not in exported)


def _is_ours(module: str) -> bool:
    return module == "pilothouse" or module.startswith("pilothouse.")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_an_operator_imports_public_names(path: Path) -> None:
    assert list(private(path.read_text())) == []


def test_the_rule_finds_what_it_should() -> None:
    assert len(SOURCES) > 10
    assert list(private("from pilothouse import Play, main\nfrom pilothouse.kube import Client")) == []
    assert list(private("import pilothouse.kube.client")) == ["pilothouse.kube.client"]
    assert list(private("from pilothouse.process.hosts import is_host")) == [
        "pilothouse.process.hosts.is_host"
    ]
    assert list(private("from pilothouse import kube, Nothing")) == ["pilothouse.kube", "pilothouse.Nothing"]


def test_every_public_package_has_a_reference_page() -> None:
    folder = ROOT / "docs" / "reference" / "runtime"
    for package in PUBLIC:
        assert import_module(package).__all__
        assert (folder / f"{package.removeprefix('pilothouse.')}.md").is_file()
    assert set(pilothouse.HOMES) <= set(PACKAGES)
