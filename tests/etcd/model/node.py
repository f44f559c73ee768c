"""The scheduler and the kubelet for pods of etcd, on the model of the API server.

Unlike `pilothouse.testing.controllers.Pods`, it runs a process per pod, reads the pod's flags and environment
as the kubelet does, restarts what ends, and ends a deleted pod with its grace period.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from etcd_operator.etcd import CLIENT_PORT, AlarmType
from pilothouse.kube import NotFound, ObjectKey, PatchType, Resource
from pilothouse.testing import Json
from pilothouse.testing.controllers import Built, StandIn
from pilothouse.testing.controllers.cluster import Cluster, timestamp
from pilothouse.testing.controllers.pods import CLAIM, POD
from tests.etcd.model.flags import FlagsError, expanded, parse
from tests.etcd.model.members import Members
from tests.etcd.model.process import Process
from tests.etcd.model.state import Volume

SECRET: Resource[Built] = Resource("", "v1", "Secret", "secrets", Built)

#: Keeps a deleted pod on the model of the API server until its containers have ended.
GRACE = "tests/grace"
#: Seconds: from the scheduling to the first container; between an end and the next start.
START = 1.0
#: Seconds between two checks of a pod.
PERIOD = 1.0
#: Seconds that a pod takes to end after its container has ended.
CLEAN_UP = 1.0
#: Seconds before the restarts of a container. It starts from the beginning after `CALM` seconds.
BACK_OFF = (0.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0)
CALM = 600.0
DEFAULT_GRACE = 30.0
#: Fields of a pod that an update may change.
_MUTABLE = ("activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds")


@dataclass
class Placed:
    """What the kubelet knows about a pod.

    Attributes:
        key: The pod's namespace and name.
        group: The name of the cluster in its labels.
        node: The node.
        address: The pod's address.
        process: The process of its container. None: it does not run.
        image: The image of that process.
        restarts: How often it was restarted.
        quick: How often it ended soon after its start.
        started: When it was started, as text and as the time of the loop.
        next_start: When it is started again.
        delay: The seconds from its end to that.
        last: The last state of the container.
        failing: Since when each probe fails.
        ending: When the pod's deletion was first seen.
        ended: When the container of a deleted pod has ended.
        began: Whether the startup probe has succeeded since the start.
    """

    key: ObjectKey
    group: str
    node: str
    address: str
    process: Process | None = None
    image: str = ""
    restarts: int = 0
    quick: int = 0
    started: tuple[str, float] = ("", 0.0)
    next_start: float = 0.0
    delay: float = 0.0
    last: Json = field(default_factory=dict)
    failing: dict[str, float] = field(default_factory=dict)
    ending: float | None = None
    ended: float | None = None
    began: bool = False


@dataclass
class Machines:
    """The nodes, with what they store and what is wrong with them.

    Attributes:
        versions: The version of etcd in each image. Other images cannot be pulled.
        unschedulable: The names of pods that no node has room for.
        rejecting: Whether the kubelet rejects all pods, as it does when their node has too little CPU.
        away: The nodes that are cut off.
        nodes: All nodes.
        volumes: The volumes by the UID of their claim, or of the pod with the emptyDir.
        placed: The pods on the nodes by UID.
    """

    versions: dict[str, str] = field(default_factory=dict)
    unschedulable: set[str] = field(default_factory=set)
    rejecting: bool = False
    away: set[str] = field(default_factory=set)
    nodes: tuple[str, ...] = ("node-1",)
    volumes: dict[str, Volume] = field(default_factory=dict)
    placed: dict[str, Placed] = field(default_factory=dict)


class Kubelet(StandIn):
    """Schedules pods and runs their processes.

    Args:
        members: The model of etcd.
        machines: The nodes.
    """

    kinds = (POD, CLAIM, SECRET)

    def __init__(self, members: Members, machines: Machines) -> None:
        self._members = members
        self._machines = machines
        self._addresses = 0

    def concerned(self, resource: Resource[Built], obj: Built, cluster: Cluster) -> Any:
        """Yields the keys of the pods to check when an object changes."""
        if resource is POD:
            yield obj.key
        else:
            yield from (each.key for each in cluster.all(POD) if obj.metadata.name in _references(each))

    async def sync(self, cluster: Cluster, obj: Built) -> float | None:
        """Does the next step for a pod."""
        self._members.advance()
        placed = self._machines.placed.get(obj.metadata.uid)
        if placed is None:
            return await self._place(cluster, obj)
        if placed.node in self._machines.away:
            return PERIOD
        if obj.metadata.deletion_timestamp is not None:
            return await self._end(cluster, obj, placed)
        if obj.status.get("phase") == "Failed":
            return None
        if self._machines.rejecting and not placed.started[0]:
            message = "Pod was rejected: Node didn't have enough resource: cpu"
            await cluster.set_status(POD, obj, {"phase": "Failed", "reason": "OutOfcpu", "message": message})
            return None
        if waiting := self._waiting(cluster, obj):
            await _report(cluster, obj, placed, {"waiting": {"reason": "ContainerCreating"}}, waiting)
            return PERIOD
        return await self._run(cluster, obj, placed)

    async def gone(self, cluster: Cluster, obj: Built) -> None:
        """Ends the process of a pod that was deleted without its grace period."""
        placed = self._machines.placed.pop(obj.metadata.uid, None)
        if placed is not None:
            if placed.process is not None:
                self._members.kill(placed.process)
            self._members.network.addresses.discard(placed.address)
        if obj.metadata.uid in self._machines.volumes:
            self._members.drop(self._machines.volumes.pop(obj.metadata.uid))

    # Scheduling.

    async def _place(self, cluster: Cluster, obj: Built) -> float | None:
        if obj.metadata.deletion_timestamp is not None:
            return None
        if reason := self._unschedulable(cluster, obj):
            condition = _condition(
                "PodScheduled", False, "Unschedulable", f"0/1 nodes are available: {reason}."
            )
            await cluster.set_status(POD, obj, {"phase": "Pending", "conditions": [condition]})
            return PERIOD
        node = obj.spec.get("nodeName") or self._node(cluster, obj)
        self._machines.placed[obj.metadata.uid] = Placed(
            obj.key,
            obj.metadata.labels.get("etcd_cluster", ""),
            node,
            self._address(),
            next_start=self._members.now + START,
        )
        patch = {"metadata": {"uid": obj.metadata.uid, "finalizers": [GRACE]}}
        await cluster.api.patch(POD, obj.key, patch, type=PatchType.MERGE)
        if not obj.spec.get("nodeName"):
            target = {"apiVersion": "v1", "kind": "Node", "name": node}
            body = {"metadata": {"name": obj.metadata.name}, "target": target}
            await cluster.api.request("POST", POD.path(*obj.key, "binding"), body=body)
        return None

    def _unschedulable(self, cluster: Cluster, obj: Built) -> str:
        if obj.metadata.name in self._machines.unschedulable:
            return "1 Insufficient cpu"
        for name in claims_of(obj):
            claim = cluster.get(CLAIM, ObjectKey(obj.metadata.namespace, name))
            if claim is None:
                return f'persistentvolumeclaim "{name}" not found'
            if claim.metadata.deletion_timestamp is not None:
                return f'persistentvolumeclaim "{name}" is being deleted'
            if claim.status.get("phase") == "Lost":
                return f'persistentvolumeclaim "{name}" bound to non-existent persistentvolume'
            if not claim.spec.get("storageClassName"):
                return "pod has unbound immediate PersistentVolumeClaims"
        return ""

    def _node(self, cluster: Cluster, obj: Built) -> str:
        """Returns the node of the pod's volume, or else the node with the fewest pods of the cluster."""
        for name in claims_of(obj):
            claim = cluster.get(CLAIM, ObjectKey(obj.metadata.namespace, name))
            if claim is not None and (node := claim.metadata.annotations.get(SELECTED_NODE)):
                return node
        group = obj.metadata.labels.get("etcd_cluster", "")
        taken = [each.node for each in self._machines.placed.values() if each.group == group]
        return min(
            (node for node in self._machines.nodes if node not in self._machines.away), key=taken.count
        )

    def _address(self) -> str:
        self._addresses += 1
        address = f"10.1.{self._addresses // 250}.{self._addresses % 250 + 1}"
        self._members.network.addresses.add(address)
        return address

    def _waiting(self, cluster: Cluster, obj: Built) -> str:
        """Returns what a scheduled pod waits for before its container can start."""
        for name in claims_of(obj):
            claim = cluster.get(CLAIM, ObjectKey(obj.metadata.namespace, name))
            if claim is None or claim.status.get("phase") != "Bound":
                return f"persistentvolumeclaim {name} is not bound"
        for name in _secrets(obj):
            if cluster.get(SECRET, ObjectKey(obj.metadata.namespace, name)) is None:
                return f'MountVolume.SetUp failed: secret "{name}" not found'
        return ""

    # Containers.

    async def _run(self, cluster: Cluster, obj: Built, placed: Placed) -> float | None:
        container = obj.spec["containers"][0]
        self._note_end(container, placed)
        process = placed.process
        if process is not None and placed.image != container["image"]:
            self._members.terminate(process)
            self._note_end(container, placed)
            placed.quick, placed.next_start = 0, self._members.now
            process = None
        if process is None:
            return await self._start(cluster, obj, placed, container)
        ready = self._probe(container, placed, process)
        if placed.process is None:
            return PERIOD
        running = {"running": {"startedAt": placed.started[0]}}
        await _report(cluster, obj, placed, running, ready=ready)
        return PERIOD

    async def _start(self, cluster: Cluster, obj: Built, placed: Placed, container: Json) -> float | None:
        image = container["image"]
        if image not in self._machines.versions:
            state = {"reason": "ImagePullBackOff", "message": f'Back-off pulling image "{image}"'}
            await _report(cluster, obj, placed, {"waiting": state})
            return PERIOD
        if (left := placed.next_start - self._members.now) > 1e-6:
            state = {"reason": "ContainerCreating"}
            if placed.last:
                message = f"back-off {placed.delay:.0f}s restarting failed container={container['name']}"
                state = {"reason": "CrashLoopBackOff", "message": message}
            await _report(cluster, obj, placed, {"waiting": state})
            return min(left, PERIOD)
        try:
            environment = _environment(obj, container, placed)
        except KeyError as missing:
            state = {"reason": "CreateContainerConfigError", "message": str(missing.args[0])}
            await _report(cluster, obj, placed, {"waiting": state})
            return PERIOD
        placed.started = timestamp(), self._members.now
        placed.image, placed.began, placed.failing = image, False, {}
        if placed.last:
            placed.restarts += 1
        words = [*container.get("command", ()), *container.get("args", ())]
        words = [expanded(word, environment) for word in words]
        if words and not words[0].startswith("-"):
            words = words[1:]
        try:
            flags = parse(words, environment)
        except FlagsError as error:
            self._ended(container, placed, 1, str(error))
            return PERIOD
        volume = self._volume(cluster, obj)
        placed.process = self._members.start(flags, volume, self._machines.versions[image], placed.address)
        await _report(cluster, obj, placed, {"running": {"startedAt": placed.started[0]}})
        return PERIOD

    def _volume(self, cluster: Cluster, obj: Built) -> Volume:
        """Returns the data of a pod: that of its first claim, or its own emptyDir."""
        claims = (cluster.get(CLAIM, ObjectKey(obj.metadata.namespace, name)) for name in claims_of(obj))
        uid = next((each.metadata.uid for each in claims if each is not None), obj.metadata.uid)
        if uid not in self._machines.volumes:
            self._machines.volumes[uid] = self._members.make_volume()
        return self._machines.volumes[uid]

    def _note_end(self, container: Json, placed: Placed) -> None:
        """Records the end of the process, if it has ended."""
        process = placed.process
        if process is not None and process.exit is not None:
            self._ended(container, placed, process.exit.code, process.exit.message)

    def _ended(self, container: Json, placed: Placed, code: int, message: str) -> None:
        lasted = self._members.now - placed.started[1]
        placed.quick = 0 if lasted >= CALM else placed.quick
        placed.delay = BACK_OFF[min(placed.quick, len(BACK_OFF) - 1)]
        placed.quick += 1
        placed.next_start = self._members.now + placed.delay
        placed.process, placed.began = None, False
        ended: Json = {
            "exitCode": code,
            "reason": "Error" if code else "Completed",
            "startedAt": placed.started[0],
            "finishedAt": timestamp(),
        }
        from_log = container.get("terminationMessagePolicy") == "FallbackToLogsOnError"
        if code and message and from_log:
            ended["message"] = json.dumps({"level": "fatal", "msg": "discovery failed", "error": message})
        placed.last = {"terminated": ended}

    # Probes.

    def _probe(self, container: Json, placed: Placed, process: Process) -> bool:
        """Runs the probes and returns whether the pod is ready. Ends a process that fails them too long."""
        if not placed.began:
            if self._fails(container, placed, process, "startupProbe"):
                return False
            if "startupProbe" in placed.failing:
                return False
            placed.began = True
        if self._fails(container, placed, process, "livenessProbe"):
            return False
        ready = container.get("readinessProbe")
        if ready is not None and "httpGet" in ready and process.address in self._members.network.frozen:
            return False  # The kernel accepts the connection, and nothing answers.
        return ready is None or _answers(ready, container, process)

    def _fails(self, container: Json, placed: Placed, process: Process, name: str) -> bool:
        """Whether a probe has failed for too long. The process is ended then."""
        probe = container.get(name)
        if probe is None or _answers(probe, container, process):
            placed.failing.pop(name, None)
            return False
        since = placed.failing.setdefault(name, self._members.now)
        allowed = probe.get("failureThreshold", 3) * probe.get("periodSeconds", 10)
        if self._members.now - since < allowed + probe.get("initialDelaySeconds", 0):
            return False
        self._members.terminate(process)
        self._note_end(container, placed)
        return True

    # The end of a pod.

    async def _end(self, cluster: Cluster, obj: Built, placed: Placed) -> float | None:
        now, process = self._members.now, placed.process
        if placed.ending is None:
            placed.ending = now
            frozen = process is not None and process.address in self._members.network.frozen
            if process is not None and not frozen:
                self._members.terminate(process)
        if process is not None and process.exit is None:
            grace = obj.spec.get("terminationGracePeriodSeconds", DEFAULT_GRACE)
            if now - placed.ending < grace:
                return PERIOD
            self._members.kill(process)
        if placed.ended is None:
            placed.ended = now
            await self._finish(cluster, obj, placed)
        if (left := placed.ended + CLEAN_UP - now) > 1e-6:
            return left
        patch = {"metadata": {"uid": obj.metadata.uid, "finalizers": None}}
        await cluster.api.patch(POD, obj.key, patch, type=PatchType.MERGE)
        # A real API server keeps the pod until the kubelet deletes it without a grace period. The model has
        # deleted it with the last finalizer.
        with suppress(NotFound):
            await cluster.api.delete(POD, obj.key, uid=obj.metadata.uid, grace_seconds=0)
        return None

    async def _finish(self, cluster: Cluster, obj: Built, placed: Placed) -> None:
        """Removes the network of a pod whose containers have ended, and reports that they have."""
        self._members.network.addresses.discard(placed.address)
        self._note_end(obj.spec["containers"][0], placed)
        if placed.last:
            await _report(cluster, obj, placed, placed.last, phase="Succeeded")


#: The annotation with the node of a bound claim, as the scheduler sets it.
SELECTED_NODE = "volume.kubernetes.io/selected-node"


async def _report(
    cluster: Cluster,
    obj: Built,
    placed: Placed,
    state: Json,
    message: str = "",
    *,
    ready: bool = False,
    phase: str = "",
) -> None:
    """Sets the status of a scheduled pod. Without a phase, its containers run or will run."""
    running = "running" in state
    unready = {} if ready else {"reason": "ContainersNotReady", "message": message or "not ready"}
    container = obj.spec["containers"][0]
    status: Json = {
        "phase": phase or ("Running" if running or placed.last else "Pending"),
        "hostIP": "10.0.0.1",
        "podIP": placed.address,
        "podIPs": [{"ip": placed.address}],
        "conditions": [
            _condition("PodScheduled", True),
            _condition("Initialized", True),
            _condition("ContainersReady", ready, **unready),
            _condition("Ready", ready, **unready),
        ],
        "containerStatuses": [
            {
                "name": container["name"],
                "image": placed.image or container["image"],
                "imageID": placed.image,
                "containerID": f"containerd://{placed.restarts}" if placed.started[0] else "",
                "ready": ready,
                "started": running and placed.began,
                "restartCount": placed.restarts,
                "state": state,
                **({"lastState": placed.last} if placed.last else {}),
            }
        ],
    }
    await cluster.set_status(POD, obj, status)


def _condition(kind: str, status: bool, reason: str = "", message: str = "") -> Json:
    words = {name: value for name, value in (("reason", reason), ("message", message)) if value}
    return {"type": kind, "status": str(status), **words}


def _answers(probe: Json, container: Json, process: Process) -> bool:
    """Whether a process answers a probe with success."""
    if process.data is None:
        return False
    http = probe.get("httpGet")
    if http is None:
        return True  # A connection.
    ports = {each.get("name"): each["containerPort"] for each in container.get("ports", ())}
    # The client port serves nothing before the member has published its name.
    if ports.get(http["port"], http["port"]) == CLIENT_PORT and not process.ready:
        return False
    path, _, query = str(http.get("path", "/")).partition("?")
    first = _FIRST_WITH.get(path + ("?" if "serializable=true" in query else ""), ())
    if process.numbers < first:
        return False
    if path == "/livez" or "serializable=true" in query:
        return True
    full = any(each.type is AlarmType.NOSPACE for each in process.data.state.alarms)
    if path == "/health" and full and "exclude=NOSPACE" not in query:
        return False
    return process.ready and process.leader != 0 and not (path == "/readyz" and process.learner)


#: The first version of 3.5 that has a path, or its parameter `serializable`.
_FIRST_WITH: Mapping[str, tuple[int, ...]] = {
    "/livez": (3, 5, 11),
    "/readyz": (3, 5, 11),
    "/health?": (3, 5, 3),
}


def _environment(obj: Built, container: Json, placed: Placed) -> dict[str, str]:
    """Returns the environment of a container. References are read at each start.

    Raises:
        KeyError: A reference cannot be resolved.
    """
    found: dict[str, str] = {}
    for each in container.get("env", ()):
        source = each.get("valueFrom", {})
        if "fieldRef" in source:
            found[each["name"]] = _field(obj, source["fieldRef"]["fieldPath"], placed)
        elif source:
            raise KeyError(f"the model does not support {sorted(source)}")
        else:
            found[each["name"]] = expanded(each.get("value", ""), found)
    return found


def _field(obj: Built, path: str, placed: Placed) -> str:
    """Returns a field of a pod, for the downward API. An annotation that does not exist is empty."""
    metadata = obj.metadata
    for kind, values in (("annotations", metadata.annotations), ("labels", metadata.labels)):
        if path.startswith(f"metadata.{kind}["):
            return values.get(path.removeprefix(f"metadata.{kind}['").removesuffix("']"), "")
    fields: Mapping[str, str] = {
        "metadata.name": metadata.name,
        "metadata.namespace": metadata.namespace,
        "metadata.uid": metadata.uid,
        "status.podIP": placed.address,
        "spec.nodeName": placed.node,
    }
    return fields[path]


def claims_of(obj: Built) -> list[str]:
    volumes = obj.spec.get("volumes", ())
    return [each["persistentVolumeClaim"]["claimName"] for each in volumes if "persistentVolumeClaim" in each]


def _secrets(obj: Built) -> list[str]:
    volumes = obj.spec.get("volumes", ())
    return [
        each["secret"]["secretName"]
        for each in volumes
        if "secret" in each and not each["secret"].get("optional")
    ]


def _references(obj: Built) -> set[str]:
    return {*claims_of(obj), *_secrets(obj)}


def changed_immutable_fields(new: Json, old: Json) -> bool:
    """Whether an update of a pod changes fields other than the images and those that may change."""
    return _immutable(new) != _immutable(old)


def _immutable(pod: Json) -> Json:
    spec = {name: value for name, value in pod.get("spec", {}).items() if name not in _MUTABLE}
    for kind in ("containers", "initContainers"):
        if kind in spec:
            spec[kind] = [{**each, "image": ""} for each in spec[kind]]
    return spec
