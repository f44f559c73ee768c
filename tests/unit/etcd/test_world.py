"""The model of the kubelet, the volumes and the endpoints that pods of etcd run on."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from etcd_operator.etcd import Endpoint
from pilothouse.kube import Invalid, ObjectKey, PatchType
from pilothouse.testing import Json, ModelApi
from pilothouse.testing.controllers import running
from pilothouse.testing.controllers.pods import CLAIM, POD
from tests.etcd.model.client import ModelMember
from tests.etcd.model.endpoints import SERVICE, SLICE
from tests.etcd.model.volumes import DEFAULT_CLASS, STORAGE_CLASS
from tests.etcd.model.world import EtcdWorld

pytestmark = pytest.mark.usefixtures("virtual_time")

IMAGES = {"etcd:v3.5.33": "3.5.33", "etcd:v3.6.14": "3.6.14"}
TRIO = ("e-a", "e-b", "e-c")
POISON = "nobody=http://nobody.e.default.svc:2380"
READY = {"httpGet": {"path": "/readyz", "port": 2381}, "periodSeconds": 1}


def url(name: str) -> str:
    return f"http://{name}.e.default.svc:2380"


def initial(names: Sequence[str]) -> str:
    return ",".join(f"{name}={url(name)}" for name in names)


def pod(name: str, cluster: str, state: str = "new", image: str = "etcd:v3.5.33", **more: Any) -> Json:
    """Returns the fields of a member's pod."""

    def annotation(variable: str, key: str) -> Json:
        path = f"metadata.annotations['{key}']"
        return {"name": variable, "valueFrom": {"fieldRef": {"fieldPath": path}}}

    container = {
        "name": "etcd",
        "image": image,
        "command": ["/usr/local/bin/etcd"],
        "args": [
            "--name=$(NAME)",
            f"--initial-advertise-peer-urls={url(name)}",
            f"--advertise-client-urls=http://{name}.e.default.svc:2379",
            "--initial-cluster=$(CLUSTER)",
            "--initial-cluster-state=$(STATE)",
            "--initial-cluster-token=t",
            "--data-dir=/data",
        ],
        "env": [
            {"name": "NAME", "value": name},
            annotation("CLUSTER", "cluster"),
            annotation("STATE", "state"),
        ],
        "readinessProbe": READY,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        **more,
    }
    return {
        "metadata": {
            "labels": {"etcd_cluster": "e", "serving": "true"},
            "annotations": {"cluster": cluster, "state": state},
        },
        "spec": {
            "hostname": name,
            "subdomain": "e",
            "containers": [container],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": name}}],
        },
    }


def put_services(model: ModelApi) -> None:
    headless = {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": {"etcd_cluster": "e"}}
    model.put(SERVICE, "e", spec=headless)
    model.put(SERVICE, "e-client", spec={"selector": {"etcd_cluster": "e", "serving": "true"}})


def put_claim(model: ModelApi, name: str) -> None:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    model.put(CLAIM, name, spec=spec)


def found(model: ModelApi, names: Sequence[str] = TRIO, **options: Any) -> None:
    put_services(model)
    for name in names:
        put_claim(model, name)
        model.put(POD, name, **pod(name, initial(names), **options))


def key(name: str) -> ObjectKey:
    return ObjectKey("default", name)


def container_status(model: ModelApi, name: str) -> Json:
    [status] = model.read(POD, key(name))["status"]["containerStatuses"]
    return dict(status)


def is_ready(model: ModelApi, name: str) -> bool:
    conditions = model.read(POD, key(name))["status"].get("conditions", ())
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


@pytest.fixture
async def world(model: ModelApi) -> AsyncIterator[EtcdWorld]:
    world = EtcdWorld(IMAGES, ["node-1", "node-2", "node-3"])
    world.prepare(model)
    async with running(model.another_client(), *world.controllers):
        yield world


async def test_three_pods_found_a_cluster_that_serves_through_its_service(
    model: ModelApi, world: EtcdWorld
) -> None:
    found(model)
    await asyncio.sleep(1)
    assert model.read(CLAIM, key("e-a"))["status"]["phase"] == "Pending"
    assert container_status(model, "e-a")["state"]["waiting"]["reason"] == "ContainerCreating"
    await asyncio.sleep(11)
    assert all(is_ready(model, name) for name in TRIO)
    assert {each["spec"]["nodeName"] for each in model.all(POD)} == {"node-1", "node-2", "node-3"}
    slices = {each["metadata"]["labels"]["kubernetes.io/service-name"]: each for each in model.all(SLICE)}
    assert len(slices["e"]["endpoints"]) == len(slices["e-client"]["endpoints"]) == 3
    assert {each["hostname"] for each in slices["e"]["endpoints"]} == {*TRIO}
    async with world.writing("e-client") as written:
        await asyncio.sleep(20)
    assert written.figures.failed_writes == 0
    assert written.figures.writes >= 1000
    assert written.acknowledged == world.members.acknowledged
    assert world.lost() == []
    assert [*world.members.led.values()] == ["e.default.svc"]


async def test_deleted_pods_are_ended_gracefully_and_keep_their_data(
    model: ModelApi, world: EtcdWorld
) -> None:
    found(model)
    await asyncio.sleep(12)
    async with world.writing("e-client") as written:
        for name in TRIO:
            address = model.read(POD, key(name))["status"]["podIP"]
            model.remove(POD, key(name))
            assert "deletionTimestamp" in model.read(POD, key(name))["metadata"]
            await asyncio.sleep(2)
            assert not model.exists(POD, key(name))
            model.put(POD, name, **pod(name, POISON, "existing"))
            await asyncio.sleep(8)
            assert is_ready(model, name)
            assert model.read(POD, key(name))["status"]["podIP"] != address
    assert written.figures.failed_writes == 0
    assert world.lost() == []


async def test_a_killed_process_is_restarted_with_back_off(model: ModelApi, world: EtcdWorld) -> None:
    found(model)
    await asyncio.sleep(12)
    world.kill("e-a")
    await asyncio.sleep(3)
    status = container_status(model, "e-a")
    assert (status["restartCount"], status["ready"]) == (1, True)
    assert status["lastState"]["terminated"]["exitCode"] == 137
    world.kill("e-a")
    await asyncio.sleep(5)
    assert container_status(model, "e-a")["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    assert not is_ready(model, "e-a")
    await asyncio.sleep(10)
    assert container_status(model, "e-a")["restartCount"] == 2
    assert is_ready(model, "e-a")


async def test_an_image_is_patched_in_place_and_reads_the_annotations_again(
    model: ModelApi, world: EtcdWorld
) -> None:
    found(model)
    await asyncio.sleep(12)
    async with world.writing("e-client") as written:
        for name in TRIO:
            before = model.read(POD, key(name))["status"]["podIP"]
            body = {
                "metadata": {"annotations": {"cluster": POISON, "state": "existing"}},
                "spec": {"containers": [{**pod(name, "")["spec"]["containers"][0], "image": "etcd:v3.6.14"}]},
            }
            await model.patch(POD, key(name), body, type=PatchType.MERGE)
            await asyncio.sleep(6)
            assert is_ready(model, name)
            assert model.read(POD, key(name))["status"]["podIP"] == before
            process = world.running(name)
            assert (process.version, process.flags.poisoned) == ("3.6.14", True)
    assert written.figures.failed_writes == 0
    await asyncio.sleep(5)
    assert world.running("e-a").opened.state.minor == 6
    assert world.lost() == []


async def test_immutable_fields_are_refused(model: ModelApi, world: EtcdWorld) -> None:
    found(model)
    await asyncio.sleep(12)
    for resource, body in (
        (POD, {"spec": {"hostname": "other"}}),
        (CLAIM, {"spec": {"storageClassName": "other"}}),
    ):
        with pytest.raises(Invalid, match="Forbidden"):
            await model.patch(resource, key("e-a"), body, type=PatchType.MERGE)
    grown = {"spec": {"resources": {"requests": {"storage": "2Gi"}}}}
    await model.patch(CLAIM, key("e-a"), grown, type=PatchType.MERGE)


async def test_a_wiped_volume_is_refused_with_poison_and_the_pod_says_so(
    model: ModelApi, world: EtcdWorld
) -> None:
    found(model)
    await asyncio.sleep(12)
    model.put(POD, "e-c", metadata={"annotations": {"cluster": POISON, "state": "existing"}})
    world.wipe(model, "e-c")
    await asyncio.sleep(2)
    assert is_ready(model, "e-c"), "the process keeps its open files"
    world.kill("e-c")
    await asyncio.sleep(8)
    status = container_status(model, "e-c")
    message = status["lastState"]["terminated"]["message"]
    assert "couldn't find local name" in json.loads(message)["error"]
    assert status["state"]["waiting"]["reason"] == "CrashLoopBackOff"


async def test_a_removed_annotation_is_an_empty_argument(model: ModelApi, world: EtcdWorld) -> None:
    found(model)
    await asyncio.sleep(12)
    model.put(POD, "e-c", metadata={"annotations": {}})
    world.wipe(model, "e-c")
    world.kill("e-c")
    await asyncio.sleep(8)
    assert world.process("e-c") is None
    assert container_status(model, "e-c")["lastState"]["terminated"]["exitCode"] == 1


async def test_a_variable_that_a_flag_shadows_is_fatal(model: ModelApi, world: EtcdWorld) -> None:
    found(model, ("e-a",), command=["etcd", "--name=e-a"], args=[], env=[{"name": "ETCD_NAME", "value": "x"}])
    await asyncio.sleep(8)
    message = container_status(model, "e-a")["lastState"]["terminated"]["message"]
    assert 'conflicting environment variable "ETCD_NAME"' in json.loads(message)["error"]


async def test_an_image_that_cannot_be_pulled(model: ModelApi, world: EtcdWorld) -> None:
    found(model, ("e-a",), image="etcd:v9")
    await asyncio.sleep(8)
    assert container_status(model, "e-a")["state"]["waiting"]["reason"] == "ImagePullBackOff"
    assert container_status(model, "e-a")["restartCount"] == 0
    container = {**pod("e-a", "")["spec"]["containers"][0], "image": "etcd:v3.6.14"}
    await model.patch(POD, key("e-a"), {"spec": {"containers": [container]}}, type=PatchType.MERGE)
    await asyncio.sleep(5)
    assert is_ready(model, "e-a")


async def test_a_pod_waits_for_a_node_and_for_its_claim(model: ModelApi, world: EtcdWorld) -> None:
    world.machines.unschedulable.add("e-a")
    model.put(POD, "e-a", **pod("e-a", initial(("e-a",))))
    put_services(model)
    await asyncio.sleep(3)

    def reason() -> str:
        conditions = model.read(POD, key("e-a"))["status"]["conditions"]
        return str(conditions[0].get("message", ""))

    assert "Insufficient cpu" in reason()
    world.machines.unschedulable.clear()
    await asyncio.sleep(3)
    assert 'persistentvolumeclaim "e-a" not found' in reason()
    put_claim(model, "e-a")
    await asyncio.sleep(8)
    assert is_ready(model, "e-a")
    model.remove(POD, key("e-a"))
    await asyncio.sleep(3)
    assert not model.exists(POD, key("e-a"))


async def test_a_claim_waits_for_a_default_class(model: ModelApi) -> None:
    world = EtcdWorld(IMAGES)
    world.prepare(model, default_class=False)
    async with running(model.another_client(), *world.controllers):
        found(model, ("e-a",))
        await asyncio.sleep(8)
        assert model.read(CLAIM, key("e-a"))["status"] == {"phase": "Pending"}
        model.put(STORAGE_CLASS, "standard", metadata={"annotations": {DEFAULT_CLASS: "true"}})
        await asyncio.sleep(8)
        assert model.read(CLAIM, key("e-a"))["status"]["phase"] == "Bound"
        assert is_ready(model, "e-a")


async def test_a_deleted_claim_is_protected_until_its_pod_is_gone(model: ModelApi, world: EtcdWorld) -> None:
    found(model)
    await asyncio.sleep(12)
    before = model.read(CLAIM, key("e-c"))["metadata"]["uid"]
    model.remove(CLAIM, key("e-c"))
    await asyncio.sleep(5)
    assert "deletionTimestamp" in model.read(CLAIM, key("e-c"))["metadata"]
    assert is_ready(model, "e-c")
    model.remove(POD, key("e-c"))
    await asyncio.sleep(5)
    assert not model.exists(CLAIM, key("e-c"))
    put_claim(model, "e-c")
    model.put(POD, "e-c", **pod("e-c", POISON, "existing"))
    await asyncio.sleep(8)
    assert model.read(CLAIM, key("e-c"))["metadata"]["uid"] != before
    assert world.process("e-c") is None


async def test_a_node_that_is_cut_off(model: ModelApi, world: EtcdWorld) -> None:
    found(model)
    await asyncio.sleep(12)
    node = model.read(POD, key("e-a"))["spec"]["nodeName"]
    async with world.writing("e-client") as written:
        world.cut_off(model, node)
        await asyncio.sleep(5)
        assert not is_ready(model, "e-a")
        model.remove(POD, key("e-a"))
        await asyncio.sleep(60)
        assert model.exists(POD, key("e-a")), "its kubelet cannot confirm the end"
        before = written.acknowledged
        await asyncio.sleep(5)
        assert written.acknowledged > before
        world.reconnect(model, node)
        await asyncio.sleep(5)
        assert not model.exists(POD, key("e-a"))
    assert world.lost() == []


async def test_a_frozen_process_is_killed_after_the_grace_period(model: ModelApi, world: EtcdWorld) -> None:
    found(model)
    await asyncio.sleep(12)
    world.members.freeze(world.running("e-a"))
    model.remove(POD, key("e-a"))
    await asyncio.sleep(20)
    assert model.exists(POD, key("e-a"))
    await asyncio.sleep(15)
    assert not model.exists(POD, key("e-a"))


async def test_lost_writes_are_found_when_all_data_is_gone(model: ModelApi, world: EtcdWorld) -> None:
    found(model)
    await asyncio.sleep(12)
    address = model.read(POD, key("e-a"))["status"]["podIP"]
    await ModelMember(world.members, Endpoint(address, "e-a")).put(b"k", b"v")
    for name in TRIO:
        model.remove(CLAIM, key(name))
        model.remove(POD, key(name))
    assert world.lost() == []
    await asyncio.sleep(5)
    assert len(world.lost()) == 1
