"""The whole world of an etcd operator: etcd's processes on nodes, clients, and what is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

from etcd_operator import errors
from etcd_operator.etcd import Etcd
from pilothouse.kube import Cause, ObjectKey, Resource
from pilothouse.testing import Fault, Json, ModelApi, Outside, Process
from pilothouse.testing.controllers import Built, StandIn
from pilothouse.testing.controllers.pods import CLAIM, POD
from tests.etcd import history
from tests.etcd.history import End, Entry, History
from tests.etcd.model.client import READS, ModelConnections, ModelMember
from tests.etcd.model.clients import ServiceClient
from tests.etcd.model.endpoints import Endpoints
from tests.etcd.model.members import Members
from tests.etcd.model.node import Kubelet, Machines, changed_immutable_fields
from tests.etcd.model.process import Process as Member
from tests.etcd.model.state import Change
from tests.etcd.model.volumes import DEFAULT_CLASS, STORAGE_CLASS, Volumes
from tests.etcd.writer import CLIENTS, Load, Writer

#: What the clients of etcd raise for the faults of a fault matrix.
ERRORS: dict[Fault, Callable[[], Exception]] = {
    Fault.REPLY_LOST: lambda: errors.DeadlineExceeded("injected", maybe_executed=True),
    Fault.ERROR_BEFORE: lambda: errors.Unreachable("injected", maybe_executed=False),
    Fault.ERROR_AFTER: lambda: errors.Unreachable("injected", maybe_executed=True),
}
NODE: Resource[Any] = Resource("", "v1", "Node", "nodes", Built, namespaced=False)


class EtcdWorld:
    """Etcd, nodes, volumes and clients on a model of the API server, under virtual time.

    Attributes:
        members: The processes of etcd, the network and the acknowledged writes.
        machines: The nodes and their volumes.
        controllers: The stand-ins to run.

    Args:
        images: The version of etcd in each image that can be pulled.
        nodes: The names of the nodes.
    """

    def __init__(self, images: dict[str, str], nodes: Sequence[str] = ("node-1",)) -> None:
        self.members = Members(lambda: asyncio.get_running_loop().time())
        self.machines = Machines(dict(images), nodes=tuple(nodes))
        self._endpoints = Endpoints(self.members)
        self.controllers: tuple[StandIn, ...] = (
            Kubelet(self.members, self.machines),
            Volumes(self.members, self.machines),
            self._endpoints,
        )

    def prepare(self, api: ModelApi, *, default_class: bool = True) -> None:
        """Creates the nodes and the StorageClass, and lets the API server refuse forbidden updates."""
        api.server.validate = validate
        for node in self.machines.nodes:
            self._set_node(api, node, ready="True")
        if default_class:
            api.put(STORAGE_CLASS, "standard", metadata={"annotations": {DEFAULT_CLASS: "true"}})

    # What can go wrong.

    def process(self, name: str) -> Member | None:
        """Returns the process of etcd that runs in a pod."""
        self.members.advance()
        running = [
            each.process for each in self.machines.placed.values() if each.key.name == name and each.process
        ]
        return next((each for each in running if each.exit is None), None)

    def running(self, name: str) -> Member:
        """Returns the process of etcd that runs in a pod; fails if there is none."""
        process = self.process(name)
        assert process is not None, f"no process of etcd runs in the pod {name}"
        return process

    def kill(self, name: str) -> None:
        """Kills the process of etcd in a pod."""
        self.members.kill(self.running(name))

    def evict(self, api: ModelApi, name: str) -> None:
        """Evicts a pod, as the kubelet does: its process ends, and the pod stays in the phase Failed."""
        self.kill(name)
        status = {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory. "}
        api.put(POD, name, status=status)

    def wipe(self, api: ModelApi, name: str) -> None:
        """Deletes the data directory on the claim of a pod, under the running process."""
        uid = api.read(CLAIM, ObjectKey("default", name))["metadata"]["uid"]
        self.members.wipe(self.machines.volumes[uid])

    def lose(self, api: ModelApi, name: str) -> None:
        """Deletes the PersistentVolume of a claim: the claim is Lost, and its data is gone."""
        self.wipe(api, name)
        claim = api.read(CLAIM, ObjectKey("default", name))
        api.put(CLAIM, name, status={**claim["status"], "phase": "Lost"})

    def cut_off(self, api: ModelApi, node: str) -> None:
        """Cuts a node off: its pods run on, but nothing else reaches them, and its kubelet does nothing."""
        self.members.advance()
        self.machines.away.add(node)
        self._zone(node, node)
        self._set_node(api, node, ready="Unknown")
        for pod in api.all(POD):
            if pod["spec"].get("nodeName") == node:
                conditions = [
                    {**each, "status": "False"} if each["type"] == "Ready" else each
                    for each in pod["status"]["conditions"]
                ]
                name = pod["metadata"]["name"]
                namespace = pod["metadata"]["namespace"]
                api.put(POD, name, namespace, status={**pod["status"], "conditions": conditions})

    def reconnect(self, api: ModelApi, node: str) -> None:
        """Ends `cut_off`."""
        self.members.advance()
        self.machines.away.discard(node)
        self._zone(node, "")
        self._set_node(api, node, ready="True")

    # Clients.

    def connections(self, process: Process | None = None) -> ModelConnections:
        """Returns the connections of a process of the operator, with the faults of a fault matrix."""
        if process is None:
            return ModelConnections(self.members)

        def wrap(member: ModelMember) -> Etcd:
            # The calls of a run are named after the class.
            pod = member.endpoint.server_name.partition(".")[0]
            named = type(pod, (ModelMember,), {})(self.members, member.endpoint)
            return cast("Etcd", Outside(named, process, reads=READS, errors=ERRORS))

        return ModelConnections(self.members, wrap)

    def client(self, service: str, namespace: str = "default") -> ServiceClient:
        """Returns a client of a Service, with a connection of its own."""
        key = ObjectKey(namespace, service)
        return ServiceClient(
            self.members, f"{service}.{namespace}.svc", lambda: self._endpoints.ready.get(key, ())
        )

    @asynccontextmanager
    async def writing(self, service: str, *, rate: float = Load("").rate) -> AsyncIterator[WriterLog]:
        """Writes through a Service inside the block, 50 times a second by default."""
        entries: list[Entry] = []
        stop = asyncio.Event()
        load = Load("key", rate, stall=float("inf"))
        writer = Writer(load, [self.client(service) for _ in range(CLIENTS)], entries.append)
        task = asyncio.get_running_loop().create_task(writer.run(stop))
        try:
            yield WriterLog(entries)
        finally:
            stop.set()
            await task

    def lost(self) -> list[Change]:
        """Returns the acknowledged writes that are lost, see `Members.lost`."""
        return self.members.lost()

    def _zone(self, node: str, zone: str) -> None:
        for each in self.machines.placed.values():
            if each.node == node:
                self.members.network.zones[each.address] = zone
        self.members.refresh()

    def _set_node(self, api: ModelApi, node: str, *, ready: str) -> None:
        conditions = [{"type": "Ready", "status": ready}]
        api.put(NODE, node, status={"conditions": conditions})


@dataclass
class WriterLog:
    """What a writer has done so far.

    Attributes:
        entries: The entries of its history.
    """

    entries: list[Entry] = field(default_factory=list)

    @property
    def figures(self) -> history.Figures:
        """What a user saw. The writer has ended."""
        return History.of(self.entries).figures()

    @property
    def acknowledged(self) -> int:
        """The number of acknowledged writes so far."""
        return sum(
            isinstance(each, history.Operation)
            and each.kind is history.Kind.WRITE
            and each.outcome is history.Outcome.OK
            for each in self.entries
        )

    @property
    def ended(self) -> bool:
        """Whether the writer has ended."""
        return any(isinstance(each, End) for each in self.entries)


def validate(resource: Resource[Any], new: Json, old: Json | None) -> Sequence[Cause]:
    """Refuses the updates of pods and claims that the API server refuses."""
    if old is None:
        return []
    if str(resource) == str(POD) and changed_immutable_fields(new, old):
        message = "Forbidden: pod updates may not change fields other than `spec.containers[*].image`"
        return [Cause("spec", message)]
    if str(resource) == str(CLAIM) and old.get("spec", {}).get("volumeName"):
        fixed = [{**each.get("spec", {}), "resources": None} for each in (new, old)]
        if fixed[0] != fixed[1]:
            message = "Forbidden: spec is immutable after creation except resources.requests"
            return [Cause("spec", message)]
    return []
