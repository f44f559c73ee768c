"""pilothouse-etcd on the real cluster, installed by OLM, and one EtcdCluster: helpers for tests."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from devcluster import etcd_images
from devcluster import target as targets
from devcluster.cluster import Cluster
from devcluster.folders import CHECKOUT
from devcluster.kubectl import Kubectl, wait_until
from devcluster.node import HOME
from devcluster.shell import ClusterError, CommandError
from etcd_operator.etcd import Endpoint
from release import install, packages, publish
from release.packages import Package, find
from tests.etcd.proof import STALL, Access, WriterProcess, prove, writing

NAMESPACE = "pilothouse-etcd-test"
#: The manifest that every user of etcd operators knows.
SEED = CHECKOUT / "examples" / "etcd" / "etcdcluster.yaml"
NAME = "example-etcd-cluster"
SIZE = 3
#: Seconds for a change. On a quiet machine each takes a tenth of it.
PATIENCE = 240.0
_SERVING = "etcd.pilothouse.dev/serving"
#: The lines of each log that a failed test shows.
_TAIL = "--tail=40"


@dataclass(frozen=True)
class Etcd:
    """The installed operator.

    Attributes:
        kubectl: Runs kubectl against the cluster.
        package: The package.
        published: The images that OLM installed.
        csv: The ClusterServiceVersion as OLM reported it.
        node: The local cluster.
    """

    kubectl: Kubectl
    package: Package
    published: publish.Published
    csv: dict[str, Any]
    node: Cluster

    def pods(self) -> list[dict[str, Any]]:
        """Returns the operator's pods."""
        words = ("pods", "-n", packages.NAMESPACE, "-l", self.package.selector)
        items: list[dict[str, Any]] = self.kubectl.read(*words)["items"]
        return items

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Kills the operator at this instant. It is away while the block runs, and is back after it."""
        for process in self._processes():
            os.kill(process, signal.SIGSTOP)
        deployment = ("deployment", self.package.name, "-n", packages.NAMESPACE)
        replicas = self.kubectl.read(*deployment)["spec"]["replicas"]
        self.kubectl("scale", *deployment, "--replicas=0")
        try:
            # kubectl waits until the kubelet has killed the processes.
            selector = ("-l", self.package.selector, "-n", packages.NAMESPACE)
            self.kubectl("delete", "pods", *selector, "--grace-period=1", timeout=60)
            wait_until(lambda: not self.pods(), 30, lambda: "The operator still has pods.")
            yield
            assert not self.pods(), "the operator was not away all the time"
        finally:
            self.kubectl("scale", *deployment, f"--replicas={replicas}")
            self.kubectl("rollout", "status", *deployment, "--timeout=90s", timeout=100)

    def _processes(self) -> list[int]:
        """Returns the IDs of the operator's processes. The host sees the processes of the node."""
        pods = [f"pod{each['metadata']['uid']}" for each in self.pods()]
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                group = (process / "cgroup").read_text()
            except OSError:  # It has ended.
                continue
            if any(pod in group for pod in pods):
                found.append(int(process.name))
        assert found, "the operator runs"
        return found


@contextmanager
def installed() -> Iterator[Etcd]:
    """Installs the operator through OLM, and creates the namespace of the tests. Deletes it afterwards.

    Raises:
        ClusterError: The operator is also installed without OLM, so that two would act on every cluster.
    """
    target = targets.ensure()
    assert target.cluster
    kubectl, package = target.kubectl, find("pilothouse-etcd")
    plain = ("deployment", package.name, "-n", package.name, "--ignore-not-found")
    if kubectl("get", *plain):
        raise ClusterError(
            f"{package.name} is also installed without OLM. Delete the namespace {package.name}."
        )
    etcd_images.ensure(target)
    published = publish.publish()
    kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", timeout=120)
    install.subscribe(kubectl, package, published.catalog, published.operator)
    csv = install.wait_succeeded(kubectl, package)
    kubectl("create", "namespace", NAMESPACE)
    kubectl("label", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce=restricted")
    try:
        yield Etcd(kubectl, package, published, csv, target.cluster)
    finally:
        kubectl("delete", "namespace", NAMESPACE, "--wait=false")


@dataclass(frozen=True)
class EtcdClusterOnNode:
    """An EtcdCluster, by default that of the seed's manifest.

    Attributes:
        etcd: The installed operator.
        name: The name of the EtcdCluster.
        tls: A folder with the files of `tests.etcd.__main__.TLS_FILES`. None: clients use plain text.
    """

    etcd: Etcd
    name: str = NAME
    tls: Path | None = None

    # Objects.

    def kubectl(self, *words: str, stdin: str = "", timeout: float = 60.0) -> str:
        """Runs kubectl in the namespace of the cluster."""
        return self.etcd.kubectl(*words, "-n", NAMESPACE, stdin=stdin, timeout=timeout)

    def read(self, kind: str, name: str) -> dict[str, Any]:
        """Returns an object of the namespace."""
        return self.etcd.kubectl.read(kind, name, "-n", NAMESPACE)

    def listed(self, kind: str) -> dict[str, dict[str, Any]]:
        """Returns the objects of a kind that belong to the cluster, by name."""
        found = self.etcd.kubectl.read(kind, "-n", NAMESPACE, "-l", f"etcd_cluster={self.name}")["items"]
        return {each["metadata"]["name"]: each for each in found}

    def pods(self) -> dict[str, dict[str, Any]]:
        """Returns the pods of the members by name."""
        return self.listed("pods")

    def uids(self) -> set[str]:
        """Returns the UIDs of the pods of the members."""
        return {each["metadata"]["uid"] for each in self.pods().values()}

    @property
    def resource(self) -> dict[str, Any]:
        """The EtcdCluster, or an empty object if it does not exist."""
        text = self.kubectl("get", "etcdcluster", self.name, "--ignore-not-found", "-o", "json")
        found: dict[str, Any] = json.loads(text) if text.strip() else {}
        return found

    @property
    def status(self) -> dict[str, Any]:
        """The status of the EtcdCluster."""
        found: dict[str, Any] = self.resource.get("status", {})
        return found

    def condition(self, type_: str) -> dict[str, Any]:
        """Returns a condition, or an empty object if there is none of this type."""
        conditions = self.status.get("conditions", ())
        return next((each for each in conditions if each["type"] == type_), {})

    def endpoints(self) -> Mapping[str, Endpoint]:
        """Returns where each member serves clients."""
        return {
            name: Endpoint(pod["status"]["podIP"], f"{name}.{self.name}.{NAMESPACE}.svc")
            for name, pod in self.pods().items()
        }

    def reason(self, type_: str) -> str:
        """Returns the reason of a condition. Empty: there is no condition of this type."""
        return str(self.condition(type_).get("reason", ""))

    def etcdctl(self, pod: str, *words: str) -> str:
        """Runs etcdctl in the pod of a member of a cluster without TLS for clients, as a user does."""
        return self.etcd.kubectl("exec", pod, "-n", NAMESPACE, "--", "etcdctl", *words)

    def attempt(self, pod: str, *words: str) -> bool:
        """Runs etcdctl like `etcdctl`, and returns whether it succeeded."""
        try:
            self.etcdctl(pod, *words)
        except CommandError:
            return False
        return True

    def members(self, pod: str, *words: str) -> dict[str, dict[str, Any]]:
        """Returns etcd's members by their IDs in hexadecimal, as a member lists them.

        Args:
            pod: The pod of the member that is asked.
            words: More options of etcdctl.
        """
        found = json.loads(self.etcdctl(pod, "member", "list", "--write-out=json", *words))["members"]
        return {f"{each['ID']:x}": each for each in found}

    # Changes.

    def create(self) -> None:
        """Creates the EtcdCluster from the seed's manifest."""
        self.kubectl("create", "-f", str(SEED))

    def create_with(self, **spec: object) -> None:
        """Creates the EtcdCluster with a spec. The default size is that of the seed's manifest."""
        manifest = {
            "apiVersion": "etcd.database.coreos.com/v1beta2",
            "kind": "EtcdCluster",
            "metadata": {"name": self.name},
            "spec": {"size": SIZE, **spec},
        }
        self.kubectl("create", "-f", "-", stdin=json.dumps(manifest))

    def change(self, **spec: object) -> None:
        """Changes fields of the spec."""
        patch = json.dumps({"spec": spec})
        self.kubectl("patch", "etcdcluster", self.name, "--type=merge", "-p", patch)

    def delete(self, kind: str, *names: str) -> None:
        """Deletes objects at the same time, without waiting until they no longer exist."""
        self.kubectl("delete", kind, *names, "--wait=false")

    def delete_cluster(self) -> None:
        """Deletes the EtcdCluster, and waits until its pods no longer exist. The volumes stay."""
        self.kubectl("delete", "etcdcluster", self.name, "--ignore-not-found", timeout=90)
        self.until(lambda: not self.pods(), "the pods are deleted with the EtcdCluster")

    def restore(self) -> None:
        """Founds the cluster unless it is healthy: an earlier test may have failed."""
        if self.resource:
            try:
                self.settle(seconds=60.0)
            except ClusterError:
                self.wipe()
            else:
                return
        self.create()
        self.settle()

    def wipe(self) -> None:
        """Deletes the EtcdCluster with all its volumes."""
        self.delete_cluster()
        self.kubectl("delete", "pvc", "-l", f"etcd_cluster={self.name}", timeout=90)

    def evict(self, pod: str) -> None:
        """Evicts a pod, as `kubectl drain` does: it retries while the PodDisruptionBudget forbids that."""
        eviction = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": pod, "namespace": NAMESPACE},
        }
        path = f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}/eviction"

        def evicted() -> bool:
            try:
                self.etcd.kubectl("create", f"--raw={path}", "-f", "-", stdin=json.dumps(eviction))
            except CommandError as error:
                if "disruption budget" in str(error):
                    return False
                raise
            return True

        self.until(evicted, f"{pod} is evicted")

    def processes(self, pod: str) -> set[int]:
        """Returns the IDs of the etcd processes of a pod. The host sees the processes of the node."""
        argument = f"--name={pod}".encode()
        found = set()
        for process in Path("/proc").glob("[0-9]*"):
            try:
                words = (process / "cmdline").read_bytes().split(b"\0")
            except OSError:  # It has ended.
                continue
            if words[0].endswith(b"/etcd") and argument in words:
                found.add(int(process.name))
        return found

    def kill(self, pod: str) -> None:
        """Kills the etcd process of a pod."""
        [pid] = self.processes(pod)
        os.kill(pid, signal.SIGKILL)

    def hang_next(self, before: Mapping[str, set[int]]) -> str:
        """Stops the first etcd process that starts, and returns its pod.

        The process never continues. When its pod is deleted, the kubelet kills it after the grace period.

        Args:
            before: The `processes` of each pod before the change that restarts a member.
        """

        def hung() -> str:
            for name, known in before.items():
                for pid in self.processes(name) - known:
                    os.kill(pid, signal.SIGSTOP)
                    return name
            return ""

        return wait_until(hung, PATIENCE, lambda: f"No etcd has started.\n{self.explain()}")

    def wipe_data(self, pod: str) -> None:
        """Deletes all files in the volume of a member. etcd keeps those that are open."""
        shutil.rmtree(self._data(pod))

    def corrupt_data(self, pod: str) -> None:
        """Overwrites the write-ahead log in the volume of a member. etcd notices that when it next starts."""
        for file in (self._data(pod) / "member" / "wal").glob("*.wal"):
            with file.open("r+b") as log:
                log.write(b"\xff" * 4096)

    def _data(self, pod: str) -> Path:
        volume = self.read("pvc", pod)["spec"]["volumeName"]
        source = self.etcd.kubectl.read("pv", volume)["spec"]
        path = PurePosixPath((source.get("hostPath") or source["local"])["path"])
        folder = self.etcd.node.nodes[0].folder / path.relative_to(HOME)
        assert volume in folder.name, folder  # The name of one volume, and not a folder above it.
        assert (folder / "data" / "member").is_dir(), folder
        return folder / "data"

    # Waits.

    def until(self, condition: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
        """Waits for a condition. A failure shows the state of the cluster."""
        wait_until(condition, seconds, lambda: f"Not reached: {what}.\n{self.explain()}")

    def until_replaced(self, before: Mapping[str, dict[str, Any]], *names: str) -> None:
        """Waits until there are other pods with the names of deleted ones.

        Args:
            before: The earlier pods by name.
            names: The names of the pods that were deleted.
        """
        old = {before[name]["metadata"]["uid"] for name in names}

        def replaced() -> bool:
            pods = self.pods()
            return pods.keys() >= {*names} and not old & {each["metadata"]["uid"] for each in pods.values()}

        self.until(replaced, f"{', '.join(names)} are created again")

    def serves(self, name: str) -> bool:
        """Returns whether the pod of a member is ready and behind the client Service."""
        pod = self.pods().get(name)
        return pod is not None and _serves(pod)

    def until_reported(self, type_: str, reason: str, *words: str, seconds: float = PATIENCE) -> None:
        """Waits until a condition has a reason, and a message that contains the given words."""

        def reported() -> bool:
            condition = self.condition(type_)
            message = condition.get("message", "")
            return condition.get("reason") == reason and all(each in message for each in words)

        self.until(reported, f"{type_} has the reason {reason} and names {', '.join(words)}", seconds)

    def settle(
        self, size: int = SIZE, version: str = "", without: str = "", seconds: float = PATIENCE
    ) -> None:
        """Waits until the operator has nothing more to do, and all members serve.

        Args:
            size: The number of members.
            version: The version of all members. Empty: any.
            without: A member that must have been replaced. Empty: none.
            seconds: How long to wait.
        """

        def settled() -> bool:
            cluster, pods = self.resource, self.pods()
            status = cluster.get("status", {})
            conditions = {each["type"]: each["status"] for each in status.get("conditions", ())}
            return (
                conditions.get("Ready") == "True"
                and status.get("observedGeneration") == cluster["metadata"]["generation"]
                and sorted(status["members"].get("ready", ())) == sorted(pods)
                and len(pods) == size
                and without not in pods
                and version in ("", status.get("currentVersion"))
                and all(_serves(pod) for pod in pods.values())
            )

        self.until(settled, f"{size} members serve {version}".rstrip(), seconds)

    # The proof.

    @contextmanager
    def under_load(
        self, folder: Path, *, planned: bool = False, stall: float = STALL
    ) -> Iterator[WriterProcess]:
        """Runs the writer while the block runs, and then proves that no acknowledged write is lost.

        Args:
            folder: For the files of the writer.
            planned: Whether no write may fail, because a quorum serves all the time. A write that fails while
                the machine does not even run the writer in time is no fault of the cluster.
            stall: Seconds without an acknowledged write after which the writer gives up.
        """
        try:
            service = f"{self.name}-client"
            address = self.read("service", service)["spec"]["clusterIP"]
            endpoint = Endpoint(address, f"{service}.{NAMESPACE}.svc")
            with writing(Access.of(self.etcd.node, self.tls), endpoint, folder, stall=stall) as writer:
                writer.wait_acknowledged()
                yield writer
                writer.wait_acknowledged()
            figures = prove(writer, self.endpoints())
            assert not planned or not figures.failed_on_time, figures
        except BaseException as error:
            error.add_note(self.explain())
            raise

    def explain(self) -> str:
        """Returns the objects, the Events, and the logs of the operator and the members."""
        selector = f"etcd_cluster={self.name}"
        views = [
            ("get", "etcdcluster", self.name, "-n", NAMESPACE, "-o", "yaml"),
            ("get", "pods,pvc,pdb,endpointslices", "-n", NAMESPACE, "-l", selector, "-o", "wide"),
            ("get", "events", "-n", NAMESPACE, "--sort-by=.lastTimestamp"),
            ("logs", f"deployment/{self.etcd.package.name}", "-n", packages.NAMESPACE, _TAIL),
        ]
        for pod in self.pods():
            views += [("logs", pod, "-n", NAMESPACE, *more, _TAIL) for more in ((), ("--previous",))]
        parts = [time.strftime("%X")]
        for words in views:
            try:
                text = self.etcd.kubectl(*words).rstrip()
            except CommandError as error:
                text = str(error)
            parts.append(f"$ kubectl {' '.join(words)}\n{text}")
        return "\n".join(parts)


def _serves(pod: dict[str, Any]) -> bool:
    metadata, conditions = pod["metadata"], pod["status"].get("conditions", ())
    ready = any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
    return ready and metadata["labels"].get(_SERVING) == "true" and "deletionTimestamp" not in metadata
