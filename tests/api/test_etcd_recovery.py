"""The commands of docs/howto/etcd/recover.md with real etcd of all minor releases."""

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from shutil import rmtree
from typing import Any

import pytest

from devcluster import toolchain
from etcd_operator.blueprint import Blueprint
from etcd_operator.model import Configuration, PodPlan
from etcd_operator.pod_states import names_damage
from etcd_operator.pods import member_pod
from etcd_operator.types import EtcdClusterSpec
from pilothouse.testing import eventually
from tests.api.etcd_members import free_ports
from tests.api.etcd_pods import BINARIES, PodNetwork, PodProcess
from tests.etcd_howto import commands, manifests

NAME = "example-etcd-cluster"
CLUSTER = Blueprint(NAME, "default", "6f2c9a9e", 1, EtcdClusterSpec(size=3))
MEMBERS = tuple(f"{NAME}-{suffix}" for suffix in ("aaaaa", "bbbbb", "ccccc"))
SEED = f"{NAME}-seed1"
RECOVER, CLAIM, RESTORE, _ = manifests("recover.md")
# Seconds. No test waits for it where all is well.
PATIENT = 60.0


class Pods:
    """Runs pods of the operator, and pods and commands of the page."""

    def __init__(self, folder: Path, version: str) -> None:
        self.folder = folder
        self.version = version
        self.network = PodNetwork(CLUSTER, (*MEMBERS, SEED))
        self.running: list[PodProcess] = []

    def start(self, name: str, configuration: Configuration, peers: tuple[str, ...] = MEMBERS) -> PodProcess:
        """Starts a pod of the operator."""
        plan = PodPlan(name, self.version, configuration, peers=peers)
        manifest = member_pod(CLUSTER, plan, image=f"etcd:v{self.version}")
        pod = PodProcess(self.folder, self.network, manifest, self.version)
        self.running.append(pod)
        pod.start()
        return pod

    def words(self, manifest: dict[str, Any], ports: dict[str, int]) -> list[str | Path]:
        """Returns the command of a pod of the page, for this host."""
        spec = manifest["spec"]
        [claim] = [
            each["persistentVolumeClaim"]["claimName"]
            for each in spec["volumes"]
            if each.get("persistentVolumeClaim")
        ]
        program, *flags = spec["containers"][0]["command"]
        found: list[str | Path] = [toolchain.binary(f"{Path(program).name}{BINARIES[self.version]}")]
        for flag in flags:
            text = self.network.translated(flag, claim)
            text = text.replace("/var/etcd", str(self.folder / claim)).replace(
                "/snapshot/", f"{self.folder}/"
            )
            for port, local in ports.items():
                text = text.replace(f"127.0.0.1:{port}", f"127.0.0.1:{local}")
            found.append(text)
        return found

    def run(self, program: str, *words: str) -> str:
        """Runs etcdctl of this version, and returns its output."""
        command: list[str | Path] = [toolchain.binary(f"{program}{BINARIES[self.version]}"), *words]
        done = subprocess.run(command, capture_output=True, timeout=60, check=False, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def restore(self) -> str:
        """Runs the pod that restores the snapshot, and returns its log."""
        done = subprocess.run(
            self.words(RESTORE, {}), capture_output=True, timeout=60, check=False, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    @contextmanager
    def recovering(self) -> Iterator[str]:
        """Runs the pod that makes a survivor the only member, and yields its URL for clients."""
        ports = dict(zip(("2379", "2380"), free_ports(2), strict=True))
        with (self.folder / "recover.log").open("wb") as log:
            process = subprocess.Popen(self.words(RECOVER, ports), stdout=log, stderr=log)
        yield f"http://127.0.0.1:{ports['2379']}"
        process.terminate()
        process.wait()


@pytest.fixture(params=[*BINARIES][1:])
def pods(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Pods]:
    """Runs pods on this host."""
    found = Pods(tmp_path, request.param)
    yield found
    for each in found.running:
        each.stop()


async def served(pod: PodProcess) -> None:
    await eventually(pod.serves, within=PATIENT, describe=partial(lambda each: str(each.log[-3000:]), pod))


async def survivor(pods: Pods) -> PodProcess:
    """Founds three members, writes a key, and loses two of them with their volumes."""
    found = [pods.start(each, Configuration.FOUNDING) for each in MEMBERS]
    for each in found:
        await served(each)
    found[0].etcdctl("put", "key", "value")
    # The other members have the entry, and the survivor has applied it.
    await eventually(lambda: "value" in found[0].etcdctl("get", "key"), within=PATIENT)
    for each in found[1:]:
        each.stop()
        rmtree(each.volume)
    return found[0]


def save(pods: Pods, pod: PodProcess) -> None:
    """Saves a snapshot as the page does."""
    [words] = [
        each.split() for each in commands("recover.md") if each.startswith("etcdctl") and "save" in each
    ]
    assert words[1] == "--endpoints=http://127.0.0.1:2379"
    pods.run("etcdctl", f"--endpoints={pod.client_url}", *words[2:-1], str(pods.folder / words[-1]))


async def test_a_survivor_becomes_the_only_member_and_keeps_its_data(pods: Pods) -> None:
    pod = await survivor(pods)
    save(pods, pod)
    pod.stop()
    with pods.recovering() as url:
        await eventually(lambda: "value" in _get(pods, url), within=PATIENT)
        [member] = json.loads(pods.run("etcdctl", f"--endpoints={url}", "member", "list", "-w=json"))[
            "members"
        ]
    again = pods.start(MEMBERS[0], Configuration.POISONED)
    await served(again)
    assert "value" in again.etcdctl("get", "key")
    [listed] = json.loads(again.etcdctl("member", "list", "-w=json"))["members"]
    assert (listed["ID"], listed["peerURLs"]) == (member["ID"], member["peerURLs"])
    assert listed["peerURLs"] == [pods.network.translated(CLUSTER.peer_url(MEMBERS[0]), MEMBERS[0])]
    assert listed["clientURLs"] == [pods.network.translated(CLUSTER.client_url(MEMBERS[0]), MEMBERS[0])]


async def test_a_snapshot_is_restored_to_a_volume_that_the_operator_can_start(pods: Pods) -> None:
    pod = await survivor(pods)
    save(pods, pod)
    pod.stop()
    (pods.folder / SEED).mkdir()
    log = pods.restore()
    [line] = [each for each in log.splitlines() if "cluster-id" in each]
    seed = pods.start(SEED, Configuration.POISONED)
    await served(seed)
    assert "value" in seed.etcdctl("get", "key")
    [status] = json.loads(seed.etcdctl("endpoint", "status", "-w=json"))
    assert f'"cluster-id": "{status["Status"]["header"]["cluster_id"]:x}"' in line
    assert CLAIM["metadata"]["name"] == SEED


def overwrite_the_log(data: Path) -> None:
    for each in (data / "member" / "wal").glob("*.wal"):
        with each.open("r+b") as file:
            file.write(b"\xff" * 4096)


def overwrite_the_database(data: Path) -> None:
    """Keeps the first two pages, which have the metadata: bbolt notices at the first page that it reads."""
    path = data / "member" / "snap" / "db"
    meta = path.read_bytes()[:8192]
    path.write_bytes(meta + b"\xff" * (path.stat().st_size - len(meta)))


@pytest.mark.parametrize("damage", [overwrite_the_log, overwrite_the_database])
async def test_the_last_words_of_etcd_name_damaged_data(pods: Pods, damage: Callable[[Path], None]) -> None:
    pod = pods.start(MEMBERS[0], Configuration.FOUNDING, MEMBERS[:1])
    await served(pod)
    pod.etcdctl("put", "key", "value")
    pod.stop()
    assert not names_damage(last_words(pod))
    damage(pod.volume / "data")
    pod.start()
    assert pod.exit_code() != 0
    assert names_damage(last_words(pod)), pod.log


async def test_the_last_words_of_etcd_about_a_mistake_do_not_name_damaged_data(pods: Pods) -> None:
    pod = pods.start(MEMBERS[0], Configuration.FOUNDING, MEMBERS[:1])
    await served(pod)
    pod.stop()
    [container] = pod.manifest["spec"]["containers"]
    container["env"].append({"name": "ETCD_ELECTION_TIMEOUT", "value": "10"})
    pod.start()
    assert pod.exit_code() != 0
    assert not names_damage(last_words(pod)), pod.log


def last_words(pod: PodProcess) -> str:
    """Returns what the kubelet takes from the log of a container that has failed."""
    return "\n".join(pod.log.splitlines()[-80:])[-2048:]


def _get(pods: Pods, url: str) -> str:
    try:
        return pods.run("etcdctl", f"--endpoints={url}", "--command-timeout=2s", "get", "key")
    except AssertionError:
        return ""
