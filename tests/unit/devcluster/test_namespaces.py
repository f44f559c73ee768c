"""Cgroups of both versions, in folders that look like them."""

from ipaddress import IPv4Network
from pathlib import Path

import pytest

from devcluster import namespaces
from devcluster.addresses import Addresses

V1 = (
    "30 25 0:26 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n"
    "31 25 0:27 / /sys/fs/cgroup/cpuset rw,relatime shared:9 - cgroup cgroup rw,cpuset\n"
)
V2 = "29 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
OTHER = "25 23 0:25 / /sys/fs/cgroup ro - tmpfs tmpfs ro\n26 23 0:3 / /proc rw shared:5 - proc proc rw\n"


@pytest.mark.parametrize(
    ("mounted", "roots"),
    [
        (OTHER + V1, ["/sys/fs/cgroup/cpuset", "/sys/fs/cgroup/pids"]),
        (V2, ["/sys/fs/cgroup"]),
        (
            V1 + V2.replace("cgroup rw", "cgroup/unified rw"),
            [f"/sys/fs/cgroup/{name}" for name in ("cpuset", "pids", "unified")],
        ),
        (OTHER, []),
    ],
)
def test_the_roots_of_all_hierarchies_are_found(tmp_path: Path, mounted: str, roots: list[str]) -> None:
    (tmp_path / "mountinfo").write_text(mounted)
    found = namespaces._hierarchies(tmp_path / "mountinfo")
    assert [str(root) for root in found] == roots


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The root of the only hierarchy, with the cluster's cgroup, whose files the kernel would create."""
    monkeypatch.setattr(namespaces, "_hierarchies", lambda: [tmp_path])
    (tmp_path / "top" / "node").mkdir(parents=True)
    return tmp_path


def test_with_v2_the_cluster_s_cgroup_passes_controllers_on_and_holds_no_process(root: Path) -> None:
    for folder in (root, root / "top", root / "top" / "node"):
        (folder / "cgroup.controllers").write_text("memory\n")
        (folder / "cgroup.subtree_control").write_text("")
    namespaces._enter_cgroups("top", [42])
    # A v2 cgroup has either processes or controllers for its children ("no internal process constraint").
    assert (root / "cgroup.subtree_control").read_text() == "+memory"
    assert (root / "top" / "cgroup.subtree_control").read_text() == "+memory"
    assert (root / "top" / "node" / "cgroup.subtree_control").read_text() == ""
    assert (root / "top" / "node" / "cgroup.procs").read_text() == "42"
    assert not (root / "top" / "cgroup.procs").exists()


def test_with_v1_a_new_cpuset_gets_its_parent_s_values(root: Path) -> None:
    for folder, value in ((root, "0-3\n"), (root / "top", "\n"), (root / "top" / "node", "\n")):
        (folder / "cpuset.cpus").write_text(value)
    namespaces._enter_cgroups("top", [42])
    assert (root / "top" / "node" / "cpuset.cpus").read_text() == "0-3\n"
    assert not (root / "cgroup.subtree_control").exists()


def test_the_cluster_s_cgroup_is_removed_with_all_below_it(root: Path) -> None:
    addresses = Addresses("0a0b0c", IPv4Network("10.130.5.0/24"))
    (root / addresses.cgroup / "kubepods" / "burstable" / "pod1").mkdir(parents=True)
    (root / addresses.cgroup / "node").mkdir()
    assert namespaces.cgroups(addresses) == [root / addresses.cgroup]
    namespaces._remove_cgroups(addresses)
    assert namespaces.cgroups(addresses) == []
    assert (root / "top" / "node").is_dir()
