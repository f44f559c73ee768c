import json
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from devcluster import node as nodes
from devcluster.addresses import Addresses
from devcluster.node import Node
from devcluster.supervisor import Spec


@pytest.fixture(autouse=True)
def no_builds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("devcluster.toolchain.binary", lambda name: Path("/built") / name)


def make(state: Path, index: int = 0, identity: str = "0a0b0c") -> Node:
    return Node(Addresses(identity, IPv4Network("10.130.5.0/24")), index, state)


def settings(node: Node, name: str) -> dict[str, object]:
    return dict(json.loads((node.folder / "config" / name).read_text()))


def test_the_first_node_runs_the_control_plane_and_another_only_joins(tmp_path: Path) -> None:
    first = {component.name for component in make(tmp_path).configure().components}
    second = {component.name for component in make(tmp_path, 1).configure().components}
    assert second == {"containerd", "kubelet", "kube-proxy"}
    assert first - second == {
        "registry", "etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler",
    }  # fmt: skip


def test_nodes_share_no_address_name_or_pod_network(tmp_path: Path) -> None:
    first, second = make(tmp_path), make(tmp_path, 1)
    assert first.address != second.address
    assert first.name != second.name
    assert first.addresses.link(0) != second.addresses.link(1)
    assert not first.pods.overlaps(second.pods)


def test_the_same_checkout_gives_the_same_specification(tmp_path: Path) -> None:
    node = make(tmp_path)
    spec = node.configure()
    spec.save(tmp_path / "spec.json")
    assert Spec.load(tmp_path / "spec.json") == node.configure()


def test_a_changed_setting_changes_the_specification(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = make(tmp_path).configure()
    monkeypatch.setattr(nodes, "_CONTAINERD", nodes._CONTAINERD + "# changed\n")
    assert make(tmp_path).configure() != before


def test_unchanged_files_are_not_written_again(tmp_path: Path) -> None:
    # kube-proxy exits when its configuration file is written, even if the content is the same.
    node = make(tmp_path)
    node.configure()
    stamps = {file: file.stat().st_mtime_ns for file in node.folder.rglob("*") if file.is_file()}
    node.configure()
    assert {file: file.stat().st_mtime_ns for file in node.folder.rglob("*") if file.is_file()} == stamps


def test_everything_of_a_node_is_in_its_own_cgroup(tmp_path: Path) -> None:
    node = make(tmp_path)
    spec = node.configure()
    assert settings(node, "kubelet.json")["cgroupRoot"] == "/pilothouse-0a0b0c"
    # With cgroup v1, one hierarchy is enough to find a pod's processes. v2 has only one.
    assert spec.pods == [
        "/sys/fs/cgroup/pids/pilothouse-0a0b0c/kubepods", "/sys/fs/cgroup/pilothouse-0a0b0c/kubepods",
    ]  # fmt: skip


def test_no_secret_is_in_an_argument(tmp_path: Path) -> None:
    node = make(tmp_path)
    words = [word for component in node.configure().components for word in component.argv]
    keys = [file.read_text() for file in (node.folder / "pki").glob("*.key")]
    assert keys
    assert not any(key.splitlines()[1] in word for key in keys for word in words)
