"""The memcached operator on a model of the API server, also with a fault at each of its calls."""

from collections.abc import Iterator, Sequence
from typing import Any

from memcached.memcached import MEMCACHED, watch
from pilothouse import DEPLOYMENT, POD, ObjectKey, Resource, Watch
from pilothouse.api.crd import crd
from pilothouse.kube import PartialObjectMetadata
from pilothouse.testing import ModelApi, Process, Scenario, explore, play

KEY = ObjectKey("default", "sample")
CACHE = MEMCACHED.resource
BROKEN = ObjectKey("default", "sample-9-x")
REPLICA_SET = Resource("apps", "v1", "ReplicaSet", "replicasets", PartialObjectMetadata)


class Life(Scenario):
    """A user creates a Memcached, scales it, sets a version that does not exist, and deletes it."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, int, str]] = []

    def watches(self, process: Process) -> Sequence[Watch]:
        """Returns what a new process of the operator watches."""
        return [watch()]

    def play(self, user: ModelApi) -> Iterator[str | float]:
        """Makes the changes of the user and of the Deployment's controller."""
        user.put(CACHE, KEY.name, spec={"size": 2})
        yield "created"
        self.note(user)
        roll_out(user)
        yield "rolled out"
        self.note(user)
        user.put(CACHE, KEY.name, spec={"size": 3, "version": "9.9.9"})
        yield "changed"
        roll_out(user, available=2)
        put_pod_without_image(user)
        yield "no such image"
        self.note(user)
        user.put(CACHE, KEY.name, spec={"size": 3})
        yield "changed back"
        user.remove(POD, BROKEN)
        roll_out(user)
        yield "rolled out again"
        self.note(user)
        user.remove(CACHE, KEY)
        yield "deleted"
        assert not user.exists(DEPLOYMENT, KEY)

    def note(self, user: ModelApi) -> None:
        """Records what the user sees."""
        status = user.read(CACHE, KEY)["status"]
        [ready] = status["conditions"]
        self.seen.append((ready["reason"], status.get("ready", 0), status.get("version", "")))


def roll_out(user: ModelApi, *, available: int | None = None) -> None:
    """Acts as the Deployment's controller: reports the progress of the rollout."""
    deployment = user.read(DEPLOYMENT, KEY)
    size = deployment["spec"]["replicas"]
    available = size if available is None else available
    user.put(
        DEPLOYMENT,
        KEY.name,
        status={
            "observedGeneration": deployment["metadata"]["generation"],
            "replicas": size,
            "updatedReplicas": size,
            "readyReplicas": available,
            "availableReplicas": available,
        },
    )


def put_pod_without_image(user: ModelApi) -> None:
    """Acts as the ReplicaSet's controller and the kubelet: creates a Pod whose image cannot be pulled."""
    replica_set = user.put(REPLICA_SET, "sample-9", metadata=owned_by(user, DEPLOYMENT, KEY))
    labels = user.read(DEPLOYMENT, KEY)["spec"]["selector"]["matchLabels"]
    waiting = {"reason": "ImagePullBackOff", "message": "manifest unknown"}
    user.put(
        POD,
        BROKEN.name,
        metadata={"labels": labels, **owned_by(user, REPLICA_SET, replica_set)},
        status={"containerStatuses": [{"name": "memcached", "image": "i", "state": {"waiting": waiting}}]},
    )


def owned_by(user: ModelApi, resource: Resource[Any], key: ObjectKey) -> dict[str, Any]:
    """Returns metadata with a controller reference to another object."""
    owner = {"apiVersion": resource.api_version, "kind": resource.kind, "name": key.name, "controller": True}
    return {"ownerReferences": [{**owner, "uid": user.read(resource, key)["metadata"]["uid"]}]}


def test_the_user_sees_reason_ready_servers_and_version() -> None:
    life = Life()
    run = play(life)
    assert run.failure == ""
    assert life.seen == [
        ("RollingOut", 0, ""),
        ("Reconciled", 2, "1.6.39"),
        ("ImagePullBackOff", 2, "1.6.39"),
        ("Reconciled", 3, "1.6.39"),
    ]


def test_every_fault_at_every_call_ends_in_the_same_state() -> None:
    explore(Life).require_converged()


def test_the_crd_has_the_scale_of_a_deployment() -> None:
    [version] = crd(MEMCACHED)["spec"]["versions"]
    assert version["subresources"]["scale"]["specReplicasPath"] == ".spec.size"
