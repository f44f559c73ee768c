"""The etcd cluster of `inv demo`: it is created, gets a key, loses a member with its volume, and heals."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from devcluster.folders import CHECKOUT
from devcluster.kubectl import Kubectl, wait_until
from devcluster.shell import ClusterError

_MANIFEST = CHECKOUT / "examples" / "etcd" / "etcdcluster.yaml"
_KEY, _VALUE = "captain", "Ada Lovelace"
#: Seconds for each step. On a quiet machine, neither takes more than 15.
_PATIENCE = 240.0
#: With fewer members, a member that is lost with its volume loses data.
_LEAST = 3


class EtcdDemo:
    """The steps of the demo with one etcd cluster, and their results.

    Attributes:
        name: The EtcdCluster in the namespace default.
        created: What happened until the first write, in words.
        lost: The member that was deleted with its volume.
        replacement: The member that replaced it.
        heal_seconds: Seconds from the deletion until the cluster was healed.
    """

    name = "example-etcd-cluster"

    def __init__(self, kubectl: Kubectl, explain: Callable[[], str]) -> None:
        """Takes what the steps need.

        Args:
            kubectl: Runs kubectl against the cluster.
            explain: Returns the state of the operator, for an error.
        """
        self._kubectl = kubectl
        self._explain = explain
        self.created = self.lost = self.replacement = ""
        self.heal_seconds = 0.0

    def create(self) -> None:
        """Creates the cluster if it does not exist, and writes a key as soon as a member serves."""
        began = time.monotonic()
        if not self._kubectl("get", "etcdcluster", self.name, "-n", "default", "--ignore-not-found"):
            self._kubectl("create", "-n", "default", "-f", str(_MANIFEST))
            self.created = "a cluster of {} members served its first write after {:.0f} s"
        elif self._read()["spec"]["size"] < _LEAST:
            raise ClusterError(
                f"The etcd cluster default/{self.name} has fewer than {_LEAST} members, so the demo could "
                f"lose its data. Run: kubectl scale -n default etcdcluster/{self.name} --replicas={_LEAST}"
            )
        wait_until(self._leader, _PATIENCE, lambda: f"etcd was not created:\n{self._scene()}\n")
        self._etcdctl(self._leader(), "put", _KEY, _VALUE)
        size = self._read()["spec"]["size"]
        self.created = (self.created or "the cluster of {} members from an earlier run has the key").format(
            size, time.monotonic() - began
        )
        self._wait_settled()

    def heal(self) -> None:
        """Deletes a member with its volume, waits until another has replaced it, and reads the key.

        Raises:
            ClusterError: The cluster did not heal, or a member does not have the key.
        """
        before = set(self._members())
        self.lost = min(before - {self._leader()})
        began = time.monotonic()
        self._kubectl("delete", "pod,pvc", self.lost, "-n", "default", "--wait=false")
        self._wait_settled()
        self.heal_seconds = time.monotonic() - began
        [self.replacement] = set(self._members()) - before
        for member in self._members():
            found = self._etcdctl(member, "get", _KEY, "--print-value-only", "--consistency=s").strip()
            if found != _VALUE:
                raise ClusterError(f"The key {_KEY} of member {member} has the value '{found}'.")

    def table(self) -> str:
        """Returns what kubectl prints for the cluster."""
        return self._kubectl("get", "etcd", self.name, "-n", "default").rstrip()

    def _read(self) -> dict[str, Any]:
        return self._kubectl.read("etcdcluster", self.name, "-n", "default")

    def _leader(self) -> str:
        return str(self._read().get("status", {}).get("leader", ""))

    def _members(self) -> list[str]:
        found: list[str] = self._read()["status"]["members"].get("ready", [])
        return found

    def _wait_settled(self) -> None:
        """Waits until the operator has nothing more to do, and all members are ready but the lost one."""

        def settled() -> bool:
            cluster = self._read()
            status = cluster.get("status", {})
            conditions = {each["type"]: each["status"] for each in status.get("conditions", ())}
            members = status.get("members", {}).get("ready", ())
            return (
                conditions.get("Ready") == "True"
                and status.get("observedGeneration") == cluster["metadata"]["generation"]
                and len(members) == cluster["spec"]["size"]
                and self.lost not in members
            )

        wait_until(settled, _PATIENCE, lambda: f"etcd is not healthy:\n{self._scene()}\n")

    def _etcdctl(self, member: str, *words: str) -> str:
        return self._kubectl("exec", member, "-n", "default", "--", "etcdctl", *words)

    def _scene(self) -> str:
        state = self._kubectl("describe", "etcdcluster", self.name, "-n", "default")
        pods = self._kubectl(
            "get", "pods,pvc", "-n", "default", "-l", f"etcd_cluster={self.name}", "-o", "wide"
        )
        return f"{state}\n{pods}\n{self._explain()}"
