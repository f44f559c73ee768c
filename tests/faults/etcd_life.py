"""Scenarios of an EtcdCluster on the model of etcd and of its node, with what must hold in all of them."""

from collections.abc import Sequence
from typing import Any

from etcd_operator.clusters import etcd_watch
from etcd_operator.settings import EtcdSettings
from etcd_operator.types import DEFAULT_REPOSITORY, ETCD_CLUSTER
from pilothouse.kube import ObjectKey
from pilothouse.playbook import Watch
from pilothouse.testing import Json, ModelApi, Process, Scenario
from pilothouse.testing.controllers.pods import CLAIM, POD
from tests.etcd.model.clients import SteadyWriter
from tests.etcd.model.world import EtcdWorld

CLUSTERS = ETCD_CLUSTER.resource
KEY = ObjectKey("default", "e")
#: The images that can be pulled.
IMAGES = {f"{DEFAULT_REPOSITORY}:v{version}": version for version in ("3.5.33", "3.6.14", "3.7.3")}


def key(name: str) -> ObjectKey:
    """Returns the key of a pod or a claim."""
    return ObjectKey(KEY.namespace, name)


class EtcdLife(Scenario):
    """One EtcdCluster with the name `e`, and a client that writes all the time.

    The state at the end of a step has the acknowledged writes that are lost, the number of clusters that were
    founded, and the writes that failed if everything is planned.
    """

    retained = ("persistentvolumeclaims *",)
    #: Whether all that happens is planned, so that no write may fail.
    planned = False

    def __init__(self) -> None:
        self.world = EtcdWorld(IMAGES, ("node-1", "node-2", "node-3"))
        self.writer = SteadyWriter(self.world, "e-client")
        self.controllers = (*self.world.controllers, self.writer)

    def watches(self, process: Process) -> Sequence[Watch]:
        return [etcd_watch(self.world.connections(process), EtcdSettings())]

    def begin(self, user: ModelApi, **spec: Any) -> None:
        """Prepares the nodes, and creates the EtcdCluster."""
        self.world.prepare(user)
        user.put(CLUSTERS, KEY.name, spec=spec)

    def edit(self, user: ModelApi, **spec: Any) -> None:
        """Changes fields of the spec."""
        user.put(CLUSTERS, KEY.name, spec={**user.read(CLUSTERS, KEY)["spec"], **spec})

    def pods(self, user: ModelApi) -> list[str]:
        """Returns the names of the pods, sorted."""
        return sorted(each["metadata"]["name"] for each in user.all(POD))

    def followers(self, user: ModelApi) -> list[str]:
        """Returns the names of the pods of followers, sorted."""
        return [name for name in self.pods(user) if not self.world.running(name).leads]

    def effects(self) -> Sequence[str]:
        # Which member is removed depends on which one leads, so only the kinds of changes are compared.
        return [change.partition(" http")[0] for change in self.world.members.changes]

    def state(self, api: ModelApi) -> object:
        return {
            "cluster": _cluster(api),
            "pods": sorted(map(_pod, api.all(POD)), key=str),
            "claims": sorted(map(_claim, api.all(CLAIM)), key=str),
            "members": self._members(api),
            "lost": [str(each) for each in self.world.lost()],
            "foundings": len(self.world.members.led),
            "failed writes": self.writer.failed if self.planned else None,
        }

    def held_outside(self) -> object:
        return None

    def _members(self, api: ModelApi) -> object:
        processes = [self.world.process(name) for name in self.pods(api)]
        # One that has just started has not opened its data, and knows no members.
        running = [each for each in processes if each is not None and each.data is not None]
        return sorted((each.version, len(each.known), each.learner, each.ready) for each in running)


def _cluster(api: ModelApi) -> object:
    if not api.exists(CLUSTERS, KEY):
        return None
    obj = api.read(CLUSTERS, KEY)
    status = obj.get("status", {})
    shown = {name: status.get(name) for name in ("phase", "size", "currentVersion", "targetVersion")}
    shown["ready"] = len(status.get("members", {}).get("ready", ()))
    # Whether a condition that is not true exists depends on what happened before.
    conditions = {
        each["type"]: (each["status"], each["reason"])
        for each in status.get("conditions", ())
        if each["status"] == "True" or each["type"] in ("Ready", "Available")
    }
    return obj["spec"], shown, conditions


def _pod(obj: Json) -> object:
    conditions = obj.get("status", {}).get("conditions", ())
    ready = [each["status"] for each in conditions if each["type"] == "Ready"]
    # The poison: the initial cluster does not contain the member itself.
    initial = obj["metadata"]["annotations"].get("etcd.pilothouse.dev/initial-cluster", "")
    poisoned = obj["metadata"]["name"] not in initial
    return obj["spec"]["containers"][0]["image"], ready, poisoned, "deletionTimestamp" in obj["metadata"]


def _claim(obj: Json) -> object:
    annotations = obj["metadata"].get("annotations", {})
    return obj.get("status", {}).get("phase"), annotations.get("etcd.pilothouse.dev/removed", "")
