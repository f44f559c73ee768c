"""An etcd operator in this process, on the model of etcd and of the API server under virtual time."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from etcd_operator.clusters import etcd_watch
from etcd_operator.settings import EtcdSettings
from etcd_operator.types import ETCD_CLUSTER
from etcd_operator.views import POD_DISRUPTION_BUDGET
from pilothouse.kube import ObjectKey, Resource
from pilothouse.testing import Json, ModelApi
from pilothouse.testing.controllers import running
from pilothouse.testing.controllers.pods import CLAIM, POD
from tests.etcd.model.state import Volume
from tests.etcd.model.world import EtcdWorld
from tests.unit.operators import operating

VERSIONS = ("3.5.33", "3.6.14", "3.7.3")
IMAGES = {f"quay.io/coreos/etcd:v{version}": version for version in VERSIONS}
KEY = ObjectKey("default", "example")
SETTINGS = EtcdSettings()
CLUSTERS: Resource[Any] = ETCD_CLUSTER.resource


class Operated:
    """One EtcdCluster `example` with its operator.

    Attributes:
        api: The model of the API server, as a user sees it.
        world: The model of etcd and the nodes.
        client: The operator's client of the API server.
    """

    def __init__(self, api: ModelApi, world: EtcdWorld) -> None:
        self.api = api
        self.world = world
        self.client = api.another_client()

    def apply(self, **spec: Any) -> None:
        """Creates the cluster, or changes fields of its spec."""
        old = self.api.read(CLUSTERS, KEY)["spec"] if self.api.exists(CLUSTERS, KEY) else {}
        self.api.put(CLUSTERS, KEY.name, spec=old | spec)

    @property
    def status(self) -> Json:
        """The status of the cluster."""
        return dict(self.api.read(CLUSTERS, KEY).get("status", {}))

    def condition(self, type_: str) -> Json:
        """Returns a condition. It is empty if there is none."""
        found = (each for each in self.status.get("conditions", ()) if each["type"] == type_)
        return dict(next(found, {}))

    @property
    def ready(self) -> bool:
        """Whether the condition Ready is True for the current spec."""
        ready, generation = self.condition("Ready"), self.api.read(CLUSTERS, KEY)["metadata"]["generation"]
        return ready.get("status") == "True" and ready.get("observedGeneration") == generation

    @property
    def pods(self) -> list[str]:
        """The names of the pods that are not Terminating."""
        return sorted(
            each["metadata"]["name"]
            for each in self.api.all(POD)
            if "deletionTimestamp" not in each["metadata"]
        )

    def uids(self, resource: Resource[Any]) -> list[str]:
        """Returns the UIDs of all objects of a kind."""
        return sorted(each["metadata"]["uid"] for each in self.api.all(resource))

    def delete(self) -> None:
        """Deletes the cluster and what it owns."""
        self.api.remove(CLUSTERS, KEY)
        self.api.collect_garbage()

    @property
    def min_available(self) -> int | None:
        """How many members the PodDisruptionBudget keeps. None: there is none."""
        budgets = self.api.all(POD_DISRUPTION_BUDGET)
        return budgets[0]["spec"]["minAvailable"] if budgets else None

    @property
    def claims(self) -> list[str]:
        """The names of the PVCs."""
        return sorted(each["metadata"]["name"] for each in self.api.all(CLAIM))

    def volume(self, name: str) -> Volume:
        """Returns the volume of a PVC, with its data."""
        uid = self.api.read(CLAIM, ObjectKey(KEY.namespace, name))["metadata"]["uid"]
        return self.world.machines.volumes[uid]

    async def until(self, what: Callable[[], bool], seconds: float = 120.0) -> float:
        """Waits until something is true, and returns after how many seconds."""
        clock = asyncio.get_running_loop().time
        began = clock()
        while not what():
            assert clock() - began < seconds, self.describe()
            await asyncio.sleep(0.1)
        return clock() - began

    async def settled(self, seconds: float = 120.0) -> float:
        """Waits until the cluster is ready, and returns after how many seconds."""
        return await self.until(lambda: self.ready, seconds)

    def describe(self) -> str:
        """Returns the conditions and pods, for a failed test."""
        if not self.api.exists(CLUSTERS, KEY):
            return "the cluster is deleted"
        conditions = [
            f"{each['type']}={each['status']} {each['reason']}: {each['message']}"
            for each in self.status.get("conditions", ())
        ]
        pods = [f"{each['metadata']['name']}: {each.get('status')}" for each in self.api.all(POD)]
        return "\n".join((*conditions, *pods, str(self.status.get("record"))))


@asynccontextmanager
async def operated(
    api: ModelApi, *, operator: bool = True, default_class: bool = True, settings: EtcdSettings = SETTINGS
) -> AsyncIterator[Operated]:
    """Runs the nodes, and the operator if asked for, within the block."""
    world = EtcdWorld(IMAGES, ["node-1", "node-2", "node-3"])
    world.prepare(api, default_class=default_class)
    cluster = Operated(api, world)
    async with running(api.another_client(), *world.controllers):
        if not operator:
            yield cluster
            return
        watch = etcd_watch(world.connections(), settings)
        async with operating(cluster.client, watch, name="pilothouse-etcd"):
            yield cluster
