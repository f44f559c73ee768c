"""Law 13: only the playbook of EtcdClusters touches members. The exploration has the law's other half."""

import ast
from collections.abc import Iterator, Mapping

import pytest

from devcluster.folders import CHECKOUT
from etcd_operator.clusters import etcd_watch

FOLDER = CHECKOUT / "operator" / "etcd_operator"
SOURCES = {file.stem: file.read_text() for file in FOLDER.glob("*.py")}
CHANGES = {"member_add", "member_promote", "member_remove", "member_update", "move_leader"}
#: The modules that declare the calls.
CLIENTS = {"client", "etcd"}


def writers(sources: Mapping[str, str]) -> Iterator[str]:
    """Yields what breaks the law: calls that change members outside of `members`, and other users of that."""
    for module, source in sources.items():
        for node in ast.walk(ast.parse(source)):
            called = node.attr if isinstance(node, ast.Attribute) else ""
            if called in CHANGES and module not in {*CLIENTS, "members"}:
                yield f"law 13: {module} calls {called}"
            imported = node.module if isinstance(node, ast.ImportFrom) else ""
            if imported == "etcd_operator.members" and module != "clusters":
                yield f"law 13: {module} uses members"


def test_only_the_playbook_of_clusters_changes_members() -> None:
    assert len(SOURCES) > 30
    assert [*writers(SOURCES)] == []


def test_the_operator_has_one_playbook() -> None:
    entry = ast.parse(SOURCES["__main__"])
    names = {each.id for each in ast.walk(entry) if isinstance(each, ast.Name)}
    watches = {name for name in names if name.endswith("_watch")}
    assert watches == {etcd_watch.__name__}


@pytest.mark.parametrize(
    ("module", "source", "broken"),
    [
        ("upkeep", "async def keep_up(etcd):\n    await etcd.member_remove(1)", "upkeep calls member_remove"),
        ("backups", "from etcd_operator.members import Members", "backups uses members"),
    ],
)
def test_a_second_writer_is_found(module: str, source: str, broken: str) -> None:
    assert [*writers({**SOURCES, module: source})] == [f"law 13: {broken}"]
