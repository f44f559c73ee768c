"""A second cluster, of a copy of this checkout, next to the running one: up, down, killed, up, removed."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from devcluster import folders, target, toolchain
from devcluster.addresses import Addresses
from devcluster.kubectl import Kubectl, pod_problem, wait_until
from devcluster.oci import Blobs, Entry
from devcluster.shell import CommandError, run

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces, mounts and cgroups need root"),
    pytest.mark.skipif(bool(target.elsewhere()), reason="KUBECONFIG names a cluster that was made elsewhere"),
]
WRITER = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "writer"},
    "spec": {
        "terminationGracePeriodSeconds": 0,
        "containers": [
            {
                "name": "writer",
                "image": "busybox:1.35.0",
                "command": ["sh", "-c", "date +%s >> /data/starts; sync; sleep 100000"],
                "volumeMounts": [{"name": "data", "mountPath": "/data"}],
            }
        ],
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
    },
}
CLAIM = {
    "apiVersion": "v1",
    "kind": "PersistentVolumeClaim",
    "metadata": {"name": "data"},
    "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}},
}


@dataclass
class Copy:
    """A copy of the checkout, and the cluster derived from its path."""

    root: Path

    @property
    def id(self) -> str:
        return folders.cluster_id(self.root)

    @property
    def state(self) -> Path:
        return folders.clusters() / self.id

    @property
    def node(self) -> Path:
        return self.state / "node-0"

    @property
    def kubectl(self) -> Kubectl:
        return Kubectl(toolchain.binary("kubectl"), self.node / "pki" / "admin.conf")

    @property
    def supervisor(self) -> int:
        return int(json.loads((self.node / "pid").read_text())[0])

    @property
    def addresses(self) -> Addresses:
        return Addresses(self.id, IPv4Network((self.state / "subnet").read_text().strip()))

    def python(self, script: str) -> str:
        """Runs a script with the copy's code and returns what it printed."""
        environment = {**os.environ, "PYTHONPATH": str(self.root), "PYTHONDONTWRITEBYTECODE": "1"}
        return run([sys.executable, "-c", script], timeout=400, cwd=self.root, env=environment)

    def inv(self, *words: str) -> str:
        """Runs `inv cluster.WORDS` and returns what it printed."""
        program = "from invoke.program import Program; from devcluster.tasks import cluster_tasks"
        return self.python(f"{program}; Program(namespace=cluster_tasks).run({['inv', *words]!r})")

    def command(self, action: str) -> None:
        """Does what `inv cluster.ACTION` does."""
        self.python(f"from devcluster import cluster; cluster.{action}()")

    def status(self) -> dict[str, Any]:
        """Returns what the supervisor reports about its components."""
        return dict(json.loads((self.node / "status.json").read_text()))

    def starts(self) -> list[str]:
        """Returns the start times in the writer's volume, read with `kubectl exec` through the kubelet."""
        return self.kubectl("exec", "writer", "--", "cat", "/data/starts").split()


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Copy]:
    """A running cluster. It is removed completely at the end."""
    root = tmp_path_factory.mktemp("checkout")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(folders.CHECKOUT / "devcluster", root / "devcluster", ignore=ignored)
    copy = Copy(root)
    try:
        copy.command("up")
        yield copy
    finally:
        copy.command("down")
        remaining = left_behind(copy.id)
        shutil.rmtree(copy.state)
        (folders.clusters() / f"{copy.id}.lock").unlink()
    assert remaining == []


def left_behind(identity: str) -> list[str]:
    """Returns everything on this host that contains a cluster's id. Does not use the cluster's own code."""
    found = []
    mark = identity.encode()
    for process in Path("/proc").glob("[0-9]*"):
        if process.name == str(os.getpid()):
            continue
        try:
            texts = [(process / name).read_bytes() for name in ("cgroup", "environ", "cmdline")]
        except (FileNotFoundError, ProcessLookupError, PermissionError):  # Ended, or hidden even from root.
            continue
        if any(mark in text for text in texts):
            found.append(f"process {process.name}: {texts[2][:100]!r}")
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    found += [f"mount {line}" for line in mounts if identity in line]
    found += [f"interface {path.name}" for path in Path("/sys/class/net").iterdir() if identity in path.name]
    found += [f"cgroup {path}" for path in Path("/sys/fs/cgroup").rglob(f"*{identity}*")]
    found += [f"route {line}" for line in run(["ip", "route"], timeout=10).splitlines() if identity in line]
    return found


def wait_components(copy: Copy) -> None:
    wait_until(
        lambda: all(component["running"] for component in copy.status().values()) and copy.kubectl.ready(),
        60,
        lambda: f"components: {copy.status()}",
    )


def test_left_behind_finds_a_running_cluster(copy: Copy) -> None:
    kinds = {line.split()[0] for line in left_behind(copy.id)}
    assert kinds >= {"process", "interface", "cgroup"}


def test_aggregated_apis_are_served(copy: Copy) -> None:
    # OLM's package server: the API server must reach a pod through a Service.
    words = ("apiservice/v1.packages.operators.coreos.com", "--for=condition=Available", "--timeout=90s")
    copy.kubectl("wait", *words, timeout=100)
    phase = "--for=jsonpath={.status.phase}=Succeeded"
    copy.kubectl("wait", "csv/packageserver", "-n", "olm", phase, "--timeout=90s", timeout=100)


def test_second_up_changes_nothing(copy: Copy) -> None:
    before = (copy.supervisor, copy.status())
    copy.command("up")
    assert (copy.supervisor, copy.status()) == before


def test_status_shows_components_nodes_and_pods(copy: Copy) -> None:
    text = copy.inv("status")
    assert f"{copy.id} (up)" in text
    assert copy.addresses.api in text
    for name in copy.status():
        assert re.search(rf"^node-0 +{name} +running, 0 restarts$", text, re.MULTILINE)
    assert re.search(r"^node/node-0 +Ready ", text, re.MULTILINE)
    assert re.search(r"^kube-system +pod/coredns-\S+ +1/1 +Running ", text, re.MULTILINE)


def test_logs_show_the_end_of_a_component_s_log_or_list_the_components(copy: Copy) -> None:
    lines = copy.inv("logs", "containerd", "--lines", "3").splitlines()
    assert len(lines) == 3
    assert all(line in (copy.node / "log" / "containerd.log").read_text().splitlines() for line in lines)
    with pytest.raises(CommandError, match=r"Logs exist for: containerd, etcd, .*kubelet, .*supervisor"):
        copy.inv("logs", "all")


def test_kubeconfig_names_a_file_that_works(copy: Copy) -> None:
    file = Path(copy.inv("kubeconfig").strip())
    assert file.stat().st_mode & 0o077 == 0
    assert Kubectl(toolchain.binary("kubectl"), file)("get", "nodes", "-o", "name").strip() == "node/node-0"


def test_a_loaded_image_runs_under_its_own_name(copy: Copy, tmp_path: Path) -> None:
    copy.inv("load-image", str(archive(tmp_path, "registry.example.com/team/loaded:v1")))
    words = ("--image=registry.example.com/team/loaded:v1", "--restart=Never", "--command", "--")
    copy.kubectl("run", "loaded", *words, "/bin/busybox", "echo", "it runs")
    copy.kubectl(
        "wait", "pod/loaded", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s", timeout=70
    )
    assert copy.kubectl("logs", "loaded") == "it runs\n"


def archive(folder: Path, name: str) -> Path:
    """Creates an OCI archive of an image with only busybox (image-spec, image-layout.md)."""
    blobs = Blobs(folder / "layout")
    image = blobs.put_image([blobs.put_layer([Entry("bin/busybox", source=Path("/bin/busybox"))])], {})
    manifest = blobs.put(image.manifest(), "application/vnd.oci.image.manifest.v1+json").document()
    named = {**manifest, "annotations": {"org.opencontainers.image.ref.name": name}}
    (blobs.folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [named]}))
    (blobs.folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    with tarfile.open(folder / "image.tar", "w") as tar:
        tar.add(blobs.folder, arcname=".")
    return folder / "image.tar"


def test_a_build_creates_only_the_changed_layers(copy: Copy, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(
        "FROM docker.io/library/busybox:1.35.0\nCOPY seldom /\nCOPY often /\n"
    )
    (tmp_path / "seldom").write_text("wheels")
    folder = f"pathlib.Path({str(tmp_path)!r})"
    build = f"images.build({folder} / 'Dockerfile', {folder}, 'layered')"
    layers = []
    for text in ("one", "two"):
        (tmp_path / "often").write_text(text)
        image = copy.python(f"import pathlib; from devcluster import images; print({build})").strip()
        url = f"http://{copy.addresses.registry}/v2/pilothouse/layered/manifests/{image.partition('@')[2]}"
        request = Request(url, headers={"Accept": "application/vnd.oci.image.manifest.v1+json"})
        with urlopen(request, timeout=10) as answer:
            layers.append([layer["digest"] for layer in json.load(answer)["layers"]])
    first, second = layers
    assert len(first) == 3
    assert second[:2] == first[:2]
    assert second[2] != first[2]


def test_down_leaves_nothing_behind_and_up_restores_the_data(copy: Copy) -> None:
    copy.kubectl("create", "configmap", "kept", "--from-literal=answer=42")
    copy.kubectl(
        "create", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": [CLAIM, WRITER]})
    )
    copy.kubectl("wait", "--for=condition=Ready", "pod/writer", "--timeout=120s", timeout=130)
    assert len(copy.starts()) == 1
    uid = copy.kubectl("get", "namespace", "kube-system", "-o", "jsonpath={.metadata.uid}")

    copy.command("down")
    assert left_behind(copy.id) == []

    copy.command("up")
    assert copy.kubectl("get", "namespace", "kube-system", "-o", "jsonpath={.metadata.uid}") == uid
    assert copy.kubectl("get", "configmap", "kept", "-o", "jsonpath={.data.answer}") == "42"
    restarted = (copy.node / "pid").stat().st_mtime
    wait_until(
        lambda: not pod_problem(copy.kubectl.read("pod", "writer"), restarted),
        90,
        lambda: copy.kubectl("describe", "pod", "writer"),
    )
    assert len(copy.starts()) == 2


@pytest.mark.parametrize("name", ["etcd", "kubelet", "containerd"])
def test_a_killed_component_is_restarted(copy: Copy, name: str) -> None:
    before = copy.status()[name]["restarts"]
    kill_component(copy, name)
    wait_until(lambda: copy.status()[name]["restarts"] > before, 20, lambda: str(copy.status()))
    wait_components(copy)
    copy.kubectl("wait", "--for=condition=Ready", "node/node-0", "--timeout=60s", timeout=70)


def kill_component(copy: Copy, name: str) -> None:
    """Kills the supervisor's child with this name."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
            program = (process / "cmdline").read_bytes().split(b"\0")[0].decode()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if parent == str(copy.supervisor) and Path(program).name == name:
            os.kill(int(process.name), signal.SIGKILL)
            return
    raise AssertionError(f"no {name} among the children of process {copy.supervisor}")


def test_leftovers_of_a_killed_run_are_removed(copy: Copy) -> None:
    os.kill(copy.supervisor, signal.SIGKILL)
    wait_until(
        lambda: not Path(f"/proc/{copy.supervisor}").exists(), 20, lambda: "The supervisor is still running."
    )
    copy.command("up")
    wait_components(copy)
    assert copy.kubectl("get", "configmap", "kept", "-o", "jsonpath={.data.answer}") == "42"


def test_an_interrupted_up_can_be_continued(copy: Copy) -> None:
    copy.command("down")
    environment = {**os.environ, "PYTHONPATH": str(copy.root)}
    script = "from devcluster import cluster; cluster.up()"
    first = subprocess.Popen(
        [sys.executable, "-c", script], cwd=copy.root, env=environment, stderr=subprocess.PIPE
    )
    wait_until((copy.node / "status.json").exists, 60, lambda: "The node did not start.")
    first.send_signal(signal.SIGINT)
    first.communicate(timeout=30)
    copy.command("up")
    wait_components(copy)


def test_pods_reach_the_cluster_and_nothing_else(copy: Copy) -> None:
    inside = copy.kubectl(
        "exec", "writer", "--", "nslookup", "kubernetes.default.svc.cluster.local", timeout=30
    )
    assert "10.96.0.1" in inside
    # An address of the documentation range (RFC 5737): rejected inside the node.
    outside = copy.kubectl(
        "exec", "writer", "--", "sh", "-c", "nc -w 20 198.51.100.1 80 2>&1 < /dev/null || true", timeout=60
    )
    assert "refused" in outside.lower() or "unreachable" in outside.lower()


JOIN = """
from devcluster import namespaces
from devcluster.cluster import Cluster
from devcluster.node import Node
cluster = Cluster.of_checkout()
node = Node(cluster.addresses, 1, cluster.state)
namespaces.start(node, node.configure())
"""


def test_a_second_node_joins(copy: Copy) -> None:
    copy.python(JOIN)
    wait_until(
        lambda: "node-1" in copy.kubectl("get", "nodes", "-o", "name"),
        60,
        lambda: copy.kubectl("get", "nodes"),
    )
    copy.kubectl("wait", "--for=condition=Ready", "node/node-1", "--timeout=60s", timeout=70)
    # Its pods reach the pods of the first node, for example DNS.
    container = {
        "name": "lookup",
        "image": "busybox:1.35.0",
        "command": ["nslookup", "kubernetes.default.svc.cluster.local"],
    }
    spec = {"nodeName": "node-1", "restartPolicy": "Never", "containers": [container]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "far"}, "spec": spec}
    copy.kubectl("create", "-f", "-", stdin=json.dumps(pod))
    wait_until(
        lambda: copy.kubectl.read("pod", "far")["status"]["phase"] == "Succeeded",
        60,
        lambda: copy.kubectl("describe", "pod", "far"),
    )


def test_reset_starts_a_new_cluster_and_avoids_a_network_in_use_elsewhere(copy: Copy) -> None:
    uid = ("get", "namespace", "kube-system", "-o", "jsonpath={.metadata.uid}")
    before, subnet = copy.kubectl(*uid), copy.addresses.subnet
    link = f"taken{os.getpid()}"
    run(["ip", "link", "add", link, "type", "bridge"], timeout=10)
    try:
        run(["ip", "address", "add", f"{subnet[200]}/24", "dev", link], timeout=10)
        copy.inv("reset")
        assert copy.kubectl(*uid) != before
        assert not copy.addresses.subnet.overlaps(subnet)
        assert "configmap/kept" not in copy.kubectl("get", "configmaps", "-o", "name")
    finally:
        run(["ip", "link", "delete", link], timeout=10)
