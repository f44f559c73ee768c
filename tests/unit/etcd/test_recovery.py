"""The procedures of docs/howto/etcd/recover.md on the model of etcd and of the API server."""

import asyncio
import json
import re
import shlex

import pytest

from etcd_operator.pages import OTHER_CLUSTER, RECOVERY
from pilothouse.controller.events import EVENT
from pilothouse.kube import ObjectKey, PatchType
from pilothouse.testing import ModelApi
from pilothouse.testing.controllers.pods import CLAIM, POD
from tests.etcd.model.state import Data, Entry, Put, Remove, SetClusterVersion, founded
from tests.etcd_howto import commands, manifests
from tests.unit.etcd.operated import CLUSTERS, KEY, Operated, operated

pytestmark = pytest.mark.usefixtures("virtual_time")


def force_new_cluster(cluster: Operated, name: str) -> None:
    """Does what `etcd --force-new-cluster` does with the data of a member that does not run."""
    data = cluster.volume(name).data
    assert data is not None
    data.term += 1
    data.log[data.commit :] = [
        Entry(data.term, Remove(each)) for each in data.state.members if each != data.member_id
    ]
    data.commit = len(data.log)
    data.apply()


def lose(cluster: Operated, name: str) -> None:
    """Deletes a claim, and the pod that uses it if there is one."""
    cluster.api.remove(CLAIM, ObjectKey("default", name))
    if name in cluster.pods:
        cluster.api.remove(POD, ObjectKey("default", name))


async def wrote(cluster: Operated, count: int = 20) -> None:
    client = cluster.world.client("example-client")
    for number in range(count):
        await client.put(b"key", b"%d" % number)


async def read(cluster: Operated) -> bytes:
    found = await cluster.world.client("example-client").get(b"key")
    assert found is not None
    return found.value


@pytest.mark.parametrize(("size", "survivors"), [(2, 1), (3, 1), (5, 2)])
async def test_a_cluster_recovers_from_a_survivor(model: ModelApi, size: int, survivors: int) -> None:
    async with operated(model) as cluster:
        cluster.apply(size=size, version="3.6.14")
        await cluster.settled()
        await wrote(cluster)
        left = cluster.pods[:survivors]
        for name in cluster.pods[survivors:]:
            lose(cluster, name)
        await cluster.until(lambda: cluster.condition("Ready").get("reason") == "QuorumLost", 300)
        message = cluster.condition("Ready")["message"]
        assert "--force-new-cluster" in message
        assert RECOVERY in message
        assert all(f"{each} (revision 21)" in message for each in left)
        assert f"delete the pod of {left[0]}, and run etcd once with --force-new-cluster" in message
        cluster.apply(paused=True, storage={"whenScaled": "Retain"})
        await cluster.until(lambda: cluster.condition("Ready").get("reason") == "Paused")
        model.remove(POD, ObjectKey("default", left[0]))
        await cluster.until(lambda: left[0] not in [each["metadata"]["name"] for each in model.all(POD)])
        force_new_cluster(cluster, left[0])
        cluster.apply(paused=False)
        await cluster.until(lambda: not cluster.ready)
        await cluster.settled(300)
        assert len(cluster.pods) == len(cluster.status["members"]["ready"]) == size
        assert left[0] in cluster.pods
        reasons = ("QuorumLost", "AlarmEnded")
        found = [each for each in model.all(EVENT) if each["reason"] in reasons]
        assert [(each["type"], each["reason"]) for each in found] == [
            ("Warning", "QuorumLost"),
            ("Normal", "AlarmEnded"),
        ]
        assert found[1]["note"].startswith("QuorumLost is no longer reported.")
        assert all("series" not in each for each in found)
        assert cluster.status.get("retainedVolumes", []) == left[1:]
        assert await read(cluster) == b"19"
        cluster.apply(storage={"whenScaled": "Delete"})
        await cluster.settled()
        await asyncio.sleep(60)
        assert cluster.status.get("retainedVolumes", []) == left[1:]


async def test_the_data_of_an_ephemeral_survivor_is_in_its_pod(model: ModelApi) -> None:
    async with operated(model) as cluster:
        cluster.apply(size=3, version="3.6.14", storage={"ephemeral": True})
        await cluster.settled()
        for name in cluster.pods[1:]:
            model.remove(POD, ObjectKey("default", name))
        await cluster.until(lambda: cluster.condition("Ready").get("reason") == "QuorumLost", 300)
        message = cluster.condition("Ready")["message"]
        assert "before you delete its pod" in message
        assert "--force-new-cluster" not in message


@pytest.mark.parametrize("ephemeral", [False, True])
async def test_an_edited_cluster_id_is_corrected_without_a_restart(model: ModelApi, ephemeral: bool) -> None:
    [command] = [each for each in commands("recover.md") if "--subresource=status" in each]
    async with operated(model) as cluster:
        cluster.apply(size=3, version="3.6.14", storage={"ephemeral": ephemeral})
        await cluster.settled()
        pods, record = cluster.uids(POD), cluster.status["record"]
        edited = {**cluster.status, "record": {**record, "clusterID": "abc"}}
        model.put(CLUSTERS, KEY.name, status=edited)
        await cluster.until(lambda: cluster.condition("Degraded").get("reason") == "OtherCluster")
        message = cluster.condition("Degraded")["message"]
        assert f"to the cluster abc, which the status records, but to {record['clusterID']}." in message
        assert "All members that answer and all volumes agree on it" in message
        assert OTHER_CLUSTER in message
        await asyncio.sleep(60)
        body = json.loads(shlex.split(command)[-1])
        await model.patch(CLUSTERS, KEY, body, type=PatchType.MERGE, subresource="status")
        await cluster.settled()
        assert cluster.uids(POD) == pods
        assert cluster.status["record"]["clusterID"] == record["clusterID"]


@pytest.mark.parametrize("size", [1, 3])
async def test_nothing_is_founded_in_the_place_of_a_cluster_of_which_nothing_is_left(
    model: ModelApi, size: int
) -> None:
    async with operated(model) as cluster:
        cluster.apply(size=size, version="3.6.14")
        await cluster.settled()
        await wrote(cluster)
        for name in cluster.pods:
            lose(cluster, name)
        await cluster.until(lambda: not model.all(POD) and not cluster.claims)
        model.put(CLUSTERS, KEY.name, status={})
        await cluster.until(lambda: cluster.condition("Ready").get("reason") == "DataLost")
        assert "Restore the PVCs" in cluster.condition("Ready")["message"]
        await asyncio.sleep(60)
        assert (cluster.pods, cluster.claims, cluster.status["phase"]) == ([], [], "Failed")
        assert len(cluster.world.members.led) == 1
        cluster.delete()
        cluster.apply(size=size, version="3.6.14")
        await cluster.settled()


async def test_a_deleted_cluster_recovers_from_a_retained_volume(model: ModelApi) -> None:
    async with operated(model) as cluster:
        cluster.apply(size=5, version="3.6.14")
        await cluster.settled()
        await wrote(cluster)
        cluster.delete()
        await cluster.until(lambda: not model.all(POD))
        first, second, *others = cluster.claims
        for name in others:
            lose(cluster, name)
        cluster.apply(size=3, version="3.6.14", paused=False)
        await cluster.until(lambda: cluster.condition("Ready").get("reason") == "VolumesMissing")
        assert RECOVERY in cluster.condition("Ready")["message"]
        cluster.apply(paused=True)
        await cluster.until(lambda: cluster.condition("Ready").get("reason") == "Paused")
        force_new_cluster(cluster, first)
        annotate(model, first, {"etcd.pilothouse.dev/voters": f"1000:{first}"})
        cluster.apply(paused=False)
        await cluster.settled(300)
        assert len(cluster.pods) == 3
        assert first in cluster.pods
        assert second not in cluster.pods
        assert await read(cluster) == b"19"


async def test_no_ephemeral_cluster_is_founded_beside_retained_volumes(model: ModelApi) -> None:
    async with operated(model) as cluster:
        cluster.apply(size=3, version="3.6.14")
        await cluster.settled()
        claims = cluster.claims
        cluster.delete()
        await cluster.until(lambda: not model.all(POD))
        cluster.apply(size=3, version="3.6.14", storage={"ephemeral": True})
        await asyncio.sleep(60)
        ready = cluster.condition("Ready")
        assert (ready["status"], ready["reason"]) == ("False", "OtherStorage")
        assert all(name in ready["message"] for name in claims)
        assert (cluster.pods, cluster.claims) == ([], claims)
        cluster.apply(storage={})
        await cluster.settled()
        assert cluster.pods == claims


async def test_an_ephemeral_cluster_is_founded_once_the_retained_volumes_are_deleted(model: ModelApi) -> None:
    async with operated(model) as cluster:
        labels = {"app": "etcd", "etcd_cluster": "example"}
        model.put(CLAIM, "example-old", metadata={"labels": labels}, spec={})
        cluster.apply(size=3, version="3.6.14", storage={"ephemeral": True})
        await asyncio.sleep(10)
        assert cluster.condition("Ready")["reason"] == "ForeignObjects"
        assert cluster.pods == []
        model.remove(CLAIM, ObjectKey("default", "example-old"))
        await cluster.settled()
        assert cluster.claims == []


async def test_a_cluster_is_created_from_a_snapshot(model: ModelApi) -> None:
    claim, restore, cluster_manifest = manifests("recover.md")[1:]
    renamed = {key: value.replace("example-etcd-cluster", "example") for key, value in marks().items()}
    name = claim["metadata"]["name"].replace("example-etcd-cluster", "example")
    async with operated(model) as cluster:
        [url] = [each.partition("=")[2] for each in flags(restore) if each.startswith("--initial-adv")]
        url = url.replace("example-etcd-cluster", "example")
        data = founded(name, {name: (url,)}, "restored-1")
        data.log += [Entry(1, SetClusterVersion(6)), Entry(1, Put(b"key", b"19"))]
        data.commit = len(data.log)
        data.apply()
        renamed["etcd.pilothouse.dev/cluster-id"] = f"{data.cluster_id:x}"
        seed(cluster, name, data, claim["spec"])
        annotate(model, name, {each: text for each, text in renamed.items() if "/" in each})
        labels = {each: text for each, text in renamed.items() if "/" not in each}
        model.put(CLAIM, name, metadata={"labels": labels})
        cluster.apply(**cluster_manifest["spec"])
        await cluster.settled(300)
        assert len(cluster.pods) == 3
        assert name in cluster.pods
        assert await read(cluster) == b"19"
        assert cluster.status["record"]["clusterID"] == f"{data.cluster_id:x}"


def seed(cluster: Operated, name: str, data: Data, spec: object) -> None:
    """Creates a claim whose volume has data."""
    cluster.api.put(CLAIM, name, spec=spec)
    uid = cluster.api.read(CLAIM, ObjectKey("default", name))["metadata"]["uid"]
    volume = cluster.world.members.make_volume()
    volume.data = data
    cluster.world.machines.volumes[uid] = volume


def annotate(model: ModelApi, name: str, annotations: dict[str, str]) -> None:
    old = model.read(CLAIM, ObjectKey("default", name))["metadata"].get("annotations", {})
    model.put(CLAIM, name, metadata={"annotations": {**old, **annotations}})


def flags(pod: dict[str, object]) -> list[str]:
    spec = pod["spec"]
    assert isinstance(spec, dict)
    return list(spec["containers"][0]["command"])


def marks() -> dict[str, str]:
    """Returns the annotations and labels of the page."""
    words = [
        word
        for line in commands("recover.md")
        if re.match(r"kubectl (annotate|label) pvc example-etcd-cluster-seed1 ", line)
        for word in line.split()[4:]
    ]
    return dict(word.split("=", 1) for word in words)


async def test_a_member_on_a_node_that_does_not_come_back_is_given_up(model: ModelApi) -> None:
    async with operated(model) as cluster:
        cluster.apply(size=3, version="3.6.14")
        await cluster.settled()
        await wrote(cluster)
        victim = cluster.pods[0]
        node = model.read(POD, ObjectKey("default", victim))["spec"]["nodeName"]
        cluster.world.cut_off(model, node)
        await asyncio.sleep(600)
        assert victim in cluster.pods
        assert victim in cluster.claims
        model.remove(CLAIM, ObjectKey("default", victim))
        await asyncio.sleep(10)
        # With --force, the API server does not wait for the kubelet.
        model.put(POD, victim, metadata={"finalizers": []})
        model.remove(POD, ObjectKey("default", victim))
        await cluster.settled(600)
        assert len(cluster.pods) == len(cluster.status["members"]["ready"]) == 3
        assert victim not in cluster.pods
        assert await read(cluster) == b"19"


async def test_a_claim_that_was_deleted_while_its_pod_does_not_run_is_restored(model: ModelApi) -> None:
    async with operated(model) as cluster:
        cluster.apply(size=1, version="3.6.14", storage={"whenDeleted": "Delete"})
        await cluster.settled()
        await wrote(cluster)
        [name] = cluster.claims
        cluster.apply(repository="nowhere.example/etcd")
        await cluster.until(lambda: cluster.condition("Degraded").get("reason") == "ImageUnavailable")
        model.remove(CLAIM, ObjectKey("default", name))
        cluster.apply(repository="", storage={"whenDeleted": "Retain"})
        await cluster.until(lambda: RECOVERY in cluster.condition("Ready").get("message", ""))
        assert cluster.condition("Ready")["reason"] == "NoQuorum"
        await asyncio.sleep(60)
        assert cluster.pods == [name]
        saved, data = model.read(CLAIM, ObjectKey("default", name)), cluster.volume(name).data
        assert data is not None
        assert not saved["metadata"].get("ownerReferences")
        model.remove(POD, ObjectKey("default", name))
        await cluster.until(lambda: cluster.condition("Ready").get("reason") == "QuorumLost")
        assert cluster.claims == []
        metadata = {key: saved["metadata"][key] for key in ("labels", "annotations")}
        seed(cluster, name, data, saved["spec"])
        model.put(CLAIM, name, metadata=metadata, status={"phase": "Bound"})
        resume = "kubectl delete etcdcluster example, and create the EtcdCluster again"
        await cluster.until(lambda: resume in cluster.condition("Ready").get("message", ""))
        assert cluster.pods == []
        cluster.delete()
        cluster.apply(size=1, version="3.6.14")
        await cluster.settled()
        assert cluster.pods == [name]
        assert await read(cluster) == b"19"
