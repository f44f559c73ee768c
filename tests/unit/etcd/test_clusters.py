"""The life of an EtcdCluster on the model of etcd and of the API server."""

import asyncio
import base64
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from etcd_operator import members, metrics, pages
from etcd_operator.clusters import etcd_watch
from etcd_operator.etcd import Etcd, Member
from etcd_operator.old_logs import renew_logs
from etcd_operator.settings import EtcdSettings
from etcd_operator.views import POD_DISRUPTION_BUDGET
from pilothouse import SECRET, SERVICE
from pilothouse.controller.events import EVENT
from pilothouse.kube import Forbidden, ObjectKey, PatchType, Resource
from pilothouse.telemetry import REGISTRY
from pilothouse.testing import Json, ModelApi
from pilothouse.testing.controllers.pods import CLAIM, POD
from pilothouse.testing.model import Call
from tests.etcd.model import node
from tests.etcd.model.client import ModelMember
from tests.etcd.model.process import Process
from tests.etcd.model.startup import Startup
from tests.etcd.model.state import Remove, SetMember
from tests.etcd.model.volumes import STORAGE_CLASS
from tests.unit.etcd.operated import CLUSTERS, KEY, Operated, operated
from tests.unit.kube.authority import Authority
from tests.unit.operators import operating

pytestmark = pytest.mark.usefixtures("virtual_time")


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7])
async def test_a_cluster_of_every_size_is_created(model: ModelApi, size: int) -> None:
    async with operated(model) as cluster:
        cluster.apply(size=size, version="3.6.14")
        await cluster.settled()
        status = cluster.status
        assert len(cluster.pods) == len(cluster.claims) == len(status["members"]["ready"]) == size
        assert (status["phase"], status["size"], status["currentVersion"]) == ("Running", size, "3.6.14")
        assert status["leader"] in cluster.pods
        assert cluster.condition("Available")["status"] == "True"
        assert cluster.condition("Degraded")["status"] == "False"
        async with cluster.world.writing("example-client") as log:
            await asyncio.sleep(2)
        assert log.figures.failed_writes == 0


@pytest.mark.parametrize("what", ["pod", "leader", "pod and volume", "all pods"])
async def test_a_cluster_heals(model: ModelApi, what: str) -> None:
    async with operated(model) as cluster:
        cluster.apply(size=3, version="3.5.33")
        await cluster.settled()
        async with cluster.world.writing("example-client") as log:
            await asyncio.sleep(1)
            victim = cluster.status["leader"] if what == "leader" else cluster.pods[0]
            for pod in cluster.pods if what == "all pods" else [victim]:
                model.remove(POD, ObjectKey("default", pod))
            if what == "pod and volume":
                model.remove(CLAIM, ObjectKey("default", victim))
            await cluster.until(lambda: not cluster.ready)
            await cluster.settled()
            await asyncio.sleep(1)
        assert len(cluster.pods) == 3
        assert (victim in cluster.pods) == (what != "pod and volume")
        assert cluster.world.lost() == []
        assert log.figures.failed_writes == 0 or what == "all pods"


@pytest.mark.parametrize("size", [1, 3])
async def test_evicted_pods_are_created_again_on_their_volumes(model: ModelApi, size: int) -> None:
    async with operated(model) as cluster:
        cluster.apply(size=size, version="3.6.14")
        await cluster.settled()
        await asyncio.sleep(60)
        names, claims = cluster.pods, cluster.uids(CLAIM)
        members = cluster.status["members"]
        async with cluster.world.writing("example-client"):
            await asyncio.sleep(1)
            for name in names:
                cluster.world.evict(model, name)
            await cluster.until(lambda: not cluster.ready)
            await cluster.settled(30)
            await asyncio.sleep(1)
        assert (cluster.pods, cluster.uids(CLAIM), cluster.status["members"]) == (names, claims, members)
        assert cluster.world.lost() == []
        notes = [each["note"] for each in model.all(EVENT) if each["reason"] == "RecreatingPods"]
        assert any("Evicted: The node was low on resource: memory" in each for each in notes)


async def test_rejected_pods_are_created_again_with_pauses_and_never_removed(model: ModelApi) -> None:
    async with operated(model) as cluster:
        cluster.apply(size=3, version="3.6.14")
        await cluster.settled()
        names, claims = cluster.pods, cluster.uids(CLAIM)
        cluster.world.machines.rejecting = True
        for name in names:
            model.remove(POD, ObjectKey("default", name))
        await asyncio.sleep(15)
        begun = len(cluster.client.calls)
        await asyncio.sleep(600)
        calls = cluster.client.calls[begun:]
        ended = [each.key.name for each in calls if each.verb == "delete" and each.resource == str(POD)]
        assert sorted({*ended}) == names
        assert 10 * len(names) <= len(ended) <= 20 * len(names)
        assert "OutOfcpu: Pod was rejected: Node didn't have" in cluster.condition("Degraded")["message"]
        cluster.world.machines.rejecting = False
        await cluster.settled()
        assert (cluster.pods, cluster.uids(CLAIM)) == (names, claims)


async def test_the_members_of_a_founding_do_not_start_in_the_same_moment(model: ModelApi) -> None:
    async with operated(model) as cluster:
        cluster.apply(size=3, version="3.5.33")
        counts = [partial(_has_pods, cluster, count) for count in (1, 2, 3)]
        _, *pauses = [await cluster.until(each) for each in counts]
        assert min(pauses) > members.FOUNDING_PAUSE - 0.1  # The step of `until`.
        await cluster.settled()


def _has_pods(cluster: Operated, count: int) -> bool:
    return len(cluster.pods) >= count


async def test_a_pod_is_created_again_as_soon_as_its_name_is_free(model: ModelApi) -> None:
    """No call to the removed address of the old pod delays that by its deadline of 2 s."""
    async with operated(model) as cluster:
        cluster.apply(size=3, version="3.5.33")
        await cluster.settled()
        for victim in cluster.pods:
            old = cluster.uids(POD)
            model.remove(POD, ObjectKey("default", victim))
            replaced = partial(_replaced, cluster, old)
            assert await cluster.until(replaced) <= node.CLEAN_UP + 0.4
            await cluster.settled()


async def test_a_pod_whose_containers_have_ended_is_not_asked(
    model: ModelApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    phases: set[str] = set()
    call = ModelMember._call

    async def note(self: ModelMember, *arguments: Any) -> Any:
        pods = {each["status"].get("podIP"): each["status"]["phase"] for each in model.all(POD)}
        phases.add(pods.get(self.endpoint.host, "no pod"))
        return await call(self, *arguments)

    monkeypatch.setattr(ModelMember, "_call", note)
    async with operated(model) as cluster:
        cluster.apply(size=3, version="3.5.33")
        await cluster.settled()
        model.remove(POD, ObjectKey("default", cluster.pods[0]))
        await cluster.until(lambda: not cluster.ready)
        await cluster.settled()
    assert "Running" in phases
    assert "Succeeded" not in phases


def _replaced(cluster: Operated, old: list[str]) -> bool:
    """Returns whether there are as many pods as before, and others."""
    return len(cluster.pods) == len(old) and cluster.uids(POD) != old


@pytest.mark.parametrize("seconds", [0.2, 2.0, 4.0, 6.0])
async def test_a_volume_that_is_deleted_before_its_pod_is_replaced_once(
    model: ModelApi, seconds: float
) -> None:
    async with operated(model) as cluster:
        cluster.apply(size=3, version="3.6.14")
        await cluster.settled()
        begun = len(cluster.client.calls)
        victim = ObjectKey("default", cluster.pods[0])
        model.remove(CLAIM, victim)
        await asyncio.sleep(seconds)
        model.remove(POD, victim)
        await cluster.until(lambda: not cluster.ready)
        await cluster.settled()
        claims = {
            call.key.name
            for call in cluster.client.calls[begun:]
            if call.resource == str(CLAIM) and call.key.name not in cluster.claims
        }
        assert claims <= {victim.name}
        assert cluster.world.lost() == []


async def test_a_member_joins_although_the_others_refuse_a_new_address_for_some_seconds(
    model: ModelApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With TLS, a member looks up the name of a peer by its address, which DNS does not know at first."""
    first_seen: dict[str, float] = {}
    join = Startup._join

    def resolve_first(self: Startup, process: Process, peer: Process) -> None:
        now = asyncio.get_running_loop().time()
        if now - first_seen.setdefault(process.address, now) < 8:
            message = "could not retrieve cluster information from the given URLs"
            self._others.fail(process, 1, f"cannot fetch cluster info from peer urls: {message}")
        else:
            join(self, process, peer)

    async with operated(model) as cluster:
        cluster.apply(size=3, version="3.6.14")
        await cluster.settled()
        monkeypatch.setattr(Startup, "_join", resolve_first)
        cluster.apply(size=4)
        await cluster.until(lambda: not cluster.ready)
        await cluster.settled(60)
        assert len(cluster.pods) == 4


async def test_a_cluster_is_resized_and_keeps_the_volumes_of_removed_members(model: ModelApi) -> None:
    async with operated(model) as cluster:
        cluster.apply(size=3, version="3.5.33")
        await cluster.settled()
        async with cluster.world.writing("example-client") as log:
            for size in (5, 3, 1, 3):
                await asyncio.sleep(1)
                cluster.apply(size=size)
                await cluster.settled()
                assert len(cluster.status["members"]["ready"]) == size
            await asyncio.sleep(5)
        assert len(cluster.pods) == 3
        assert {*cluster.status["retainedVolumes"]} == {*cluster.claims} - {*cluster.pods}
        assert len(cluster.claims) == 7
        assert cluster.world.lost() == []
        assert log.figures.failed_writes == 0


async def test_the_volumes_of_removed_members_are_deleted_on_request(model: ModelApi) -> None:
    async with operated(model) as cluster:
        cluster.apply(size=3, version="3.5.33", storage={"whenScaled": "Delete"})
        await cluster.settled()
        cluster.apply(size=1)
        await cluster.settled()
        await asyncio.sleep(10)
        assert cluster.claims == cluster.pods


async def test_a_cluster_is_upgraded_without_a_failed_write(model: ModelApi) -> None:
    async with operated(model) as cluster:
        cluster.apply(size=3, version="3.5.33", upgradePolicy="Automatic")
        await cluster.settled()
        pods = cluster.pods
        async with cluster.world.writing("example-client") as log:
            await asyncio.sleep(1)
            cluster.apply(version="3.7.3")
            await cluster.settled()
            await asyncio.sleep(1)
        assert cluster.status["currentVersion"] == "3.7.3"
        assert cluster.pods == pods
        assert cluster.world.lost() == []
        assert log.figures.failed_writes == 0


async def test_the_log_of_3_5_is_left_behind_before_the_first_member_of_3_7(
    model: ModelApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with operated(model) as cluster:
        cluster.apply(size=3, version="3.5.33", upgradePolicy="Automatic")
        await cluster.settled()
        versions: list[str] = []

        async def renew(etcd: Etcd) -> None:
            versions.append(cluster.status["currentVersion"])
            await renew_logs(etcd)

        monkeypatch.setattr(members, "renew_logs", renew)
        cluster.apply(version="3.6.14")
        await cluster.settled()
        assert versions == []
        cluster.apply(version="3.7.3")
        await cluster.settled()
        assert versions
        assert {*versions} == {"3.6.14"}


async def test_a_mistyped_version_stops_the_upgrade_with_its_reason_until_it_is_corrected(
    model: ModelApi,
) -> None:
    async with operated(model) as cluster:
        cluster.apply(size=3, version="3.5.33")
        await cluster.settled()
        async with cluster.world.writing("example-client") as log:
            cluster.apply(version="3.6.99")
            await asyncio.sleep(30)
            ready = cluster.condition("Ready")
            assert ready["reason"] == "WaitingForMembers"
            assert "cannot start its container: ImagePullBackOff" in ready["message"]
            assert cluster.condition("Available")["status"] == "True"
            cluster.apply(version="3.6.14")
            await cluster.settled()
        assert cluster.status["currentVersion"] == "3.6.14"
        assert cluster.world.lost() == []
        assert log.figures.failed_writes == 0


SUFFIXED = ("3.5.33-0", "3.6.14-0", "3.6.14-1")


async def test_a_registry_that_has_only_tags_with_a_suffix_suffices(model: ModelApi) -> None:
    async with operated(model) as cluster:
        versions = cluster.world.machines.versions
        versions.clear()
        versions |= {f"quay.io/coreos/etcd:v{each}": each.partition("-")[0] for each in SUFFIXED}
        cluster.apply(size=3, version="3.5.33-0")
        await cluster.settled()
        async with cluster.world.writing("example-client") as log:
            for size, version in ((4, "3.5.33-0"), (5, "3.6.14-0"), (3, "3.6.14-1")):
                cluster.apply(size=size, version=version)
                await cluster.settled()
                assert cluster.status["currentVersion"] == version
                assert not cluster.status.get("targetVersion")
                assert cluster.condition("Upgrading").get("status") != "True"
                victim = ObjectKey("default", cluster.pods[0])
                model.remove(CLAIM, victim)
                model.remove(POD, victim)
                await cluster.until(lambda: not cluster.ready)
                await cluster.settled()
                images = {each["spec"]["containers"][0]["image"] for each in model.all(POD)}
                assert images == {f"quay.io/coreos/etcd:v{version}"}
        assert cluster.world.lost() == []
        assert log.figures.failed_writes == 0
        for pod in cluster.pods:
            model.remove(POD, ObjectKey("default", pod))
        await cluster.until(lambda: not cluster.ready)
        await cluster.settled()
        assert {each["status"]["containerStatuses"][0]["restartCount"] for each in model.all(POD)} == {0}


@pytest.mark.parametrize(("before", "after"), [("3.6.14", "3.6.14-1"), ("3.6.14-1", "3.6.14")])
async def test_a_change_of_the_suffix_changes_the_image_of_one_member_after_the_other(
    model: ModelApi, before: str, after: str
) -> None:
    async with operated(model) as cluster:
        cluster.world.machines.versions["quay.io/coreos/etcd:v3.6.14-1"] = "3.6.14"
        cluster.apply(size=3, version=before)
        await cluster.settled()
        pods = cluster.uids(POD)
        async with cluster.world.writing("example-client") as log:
            cluster.apply(version="3.6.14-typo")
            await cluster.until(lambda: cluster.condition("Degraded")["reason"] == "ImageUnavailable")
            assert cluster.status["currentVersion"] == before
            cluster.apply(version=after)
            await cluster.settled()
        assert cluster.uids(POD) == pods
        images = {each["spec"]["containers"][0]["image"] for each in model.all(POD)}
        assert images == {f"quay.io/coreos/etcd:v{after}"}
        assert cluster.status["currentVersion"] == after
        assert (cluster.world.lost(), log.figures.failed_writes) == ([], 0)


async def test_an_image_of_the_settings_may_have_any_tag(model: ModelApi) -> None:
    images = {"3.6.14": "registry.example.com/etcd:3.6.14-0"}
    async with operated(model, settings=EtcdSettings(images=images)) as cluster:
        cluster.world.machines.versions[images["3.6.14"]] = "3.6.14"
        cluster.apply(size=3, version="3.6.14")
        await cluster.settled()
        pods, version = cluster.uids(POD), model.version
        await asyncio.sleep(60)
        assert (cluster.uids(POD), model.version) == (pods, version)


@pytest.mark.parametrize("corrected", ["3.6.14", "3.5.33", "3.7.3"])
async def test_an_image_with_another_version_than_its_tag_stops_the_upgrade_until_it_is_corrected(
    model: ModelApi, corrected: str
) -> None:
    async with operated(model) as cluster:
        cluster.world.machines.versions["quay.io/coreos/etcd:v3.6.15"] = "3.6.14"
        cluster.apply(size=3, version="3.5.33", upgradePolicy="Automatic")
        await cluster.settled()
        async with cluster.world.writing("example-client") as log:
            cluster.apply(version="3.6.15")
            await cluster.until(lambda: cluster.condition("Degraded")["reason"] == "UnexpectedVersion")
            await asyncio.sleep(60)
            images = [each["spec"]["containers"][0]["image"] for each in model.all(POD)]
            assert images.count("quay.io/coreos/etcd:v3.6.15") == 1
            [pod] = [
                each["metadata"]["name"]
                for each in model.all(POD)
                if each["spec"]["containers"][0]["image"].endswith("v3.6.15")
            ]
            message = f"The pod {pod} should run etcd 3.6.15, but etcd reports 3.6.14"
            assert cluster.condition("Degraded")["message"].startswith(message)
            assert message in cluster.condition("Ready")["message"]
            assert cluster.condition("Upgrading")["reason"] == "UnexpectedVersion"
            cluster.apply(version=corrected)
            await cluster.settled()
        assert cluster.status["currentVersion"] == corrected
        assert cluster.world.lost() == []
        assert log.figures.failed_writes == 0


@pytest.mark.parametrize("size", [1, 3])
async def test_a_cluster_on_an_image_with_another_version_serves_and_gets_the_corrected_image(
    model: ModelApi, size: int
) -> None:
    images = {"3.6.14": "registry.example.com/etcd@sha256:wrong"}
    async with operated(model, settings=EtcdSettings(images=images)) as cluster:
        versions = cluster.world.machines.versions
        versions |= {images["3.6.14"]: "3.6.13", "registry.example.com/etcd@sha256:right": "3.6.14"}
        cluster.apply(size=size, version="3.6.14")
        await cluster.until(lambda: cluster.condition("Ready").get("reason") == "UnexpectedVersion")
        assert cluster.condition("Available")["status"] == "True"
        assert cluster.status["currentVersion"] == "3.6.13"
        async with cluster.world.writing("example-client") as log:
            await asyncio.sleep(60)
            assert log.acknowledged > 100
            victim = ObjectKey("default", cluster.pods[0])
            model.remove(POD, victim)
            if size == 3:
                model.remove(CLAIM, victim)
            await asyncio.sleep(60)
            assert len(cluster.status["members"]["ready"]) == size
            # Another release of the operator has the right image.
            images["3.6.14"] = "registry.example.com/etcd@sha256:right"
            await cluster.settled()
        assert cluster.status["currentVersion"] == "3.6.14"
        assert cluster.world.lost() == []


async def test_another_shape_recreates_the_pods_on_their_volumes(model: ModelApi) -> None:
    async with operated(model) as cluster:
        cluster.apply(size=3, version="3.5.33")
        await cluster.settled()
        pods, uids = cluster.pods, cluster.uids(POD)
        async with cluster.world.writing("example-client") as log:
            await asyncio.sleep(1)
            cluster.apply(pod={"resources": {"limits": {"memory": "1Gi"}}})
            await cluster.settled()
            await asyncio.sleep(1)
        assert cluster.pods == pods
        assert not {*uids} & {*cluster.uids(POD)}
        assert cluster.world.lost() == []
        assert log.figures.failed_writes == 0


async def test_a_cluster_of_the_same_name_resumes_the_retained_volumes(model: ModelApi) -> None:
    async with operated(model) as cluster:
        cluster.apply(size=3, version="3.6.14")
        await cluster.settled()
        claims = cluster.claims
        async with cluster.world.writing("example-client"):
            await asyncio.sleep(2)
        cluster.delete()
        await cluster.until(lambda: not model.all(POD))
        assert cluster.claims == claims
        cluster.apply(size=3, version="3.6.14")
        await cluster.settled()
        assert (cluster.pods, cluster.claims) == (claims, claims)
        assert cluster.world.lost() == []


async def test_the_volumes_are_deleted_with_the_cluster_on_request(model: ModelApi) -> None:
    async with operated(model) as cluster:
        cluster.apply(size=3, version="3.6.14")
        await cluster.settled()
        cluster.apply(storage={"whenDeleted": "Delete"})
        await cluster.settled()
        cluster.delete()
        await cluster.until(lambda: not cluster.claims)


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"paused": True},
        # The cluster domain cannot change.
        {"pod": {"ClusterDomain": ".cluster.local"}},
    ],
)
async def test_volumes_are_retained_at_once_although_nothing_else_can_change(
    model: ModelApi, spec: dict[str, Any]
) -> None:
    async with operated(model) as cluster:
        cluster.apply(size=5, version="3.6.14", storage={"whenDeleted": "Delete"})
        await cluster.settled()
        cluster.apply(size=3)
        await cluster.settled()
        cluster.apply(**spec)
        await asyncio.sleep(1)
        claims = cluster.claims
        assert len(claims) == 5

        async def refuse(call: Call) -> None:
            if call.verb in ("create", "delete") or call.resource == str(SERVICE):
                raise Forbidden(403, "Forbidden", "exceeded quota")

        cluster.client.before = refuse
        model.remove(POD, ObjectKey("default", cluster.pods[0]))
        await asyncio.sleep(10)
        cluster.apply(storage={"whenDeleted": "Retain"})
        await asyncio.sleep(10)
        cluster.delete()
        await asyncio.sleep(10)
        assert cluster.claims == claims


async def test_the_other_owners_of_a_volume_stay(model: ModelApi) -> None:
    async with operated(model) as cluster:
        cluster.apply(size=1, version="3.6.14")
        await cluster.settled()
        (name,) = cluster.claims
        backup = model.put(SERVICE, "backup")
        uid = model.read(SERVICE, backup)["metadata"]["uid"]
        other = {"apiVersion": "v1", "kind": "Service", "name": "backup", "uid": uid, "controller": True}
        model.put(CLAIM, name, metadata={"ownerReferences": [other]})

        def owners() -> list[dict[str, Any]]:
            return list(model.read(CLAIM, ObjectKey("default", name))["metadata"].get("ownerReferences", ()))

        cluster.apply(storage={"whenDeleted": "Delete"})
        await cluster.until(lambda: len(owners()) == 2)
        first, second = owners()
        assert (first, second["kind"], second["controller"]) == (other, "EtcdCluster", False)
        cluster.apply(storage={"whenDeleted": "Retain"})
        await cluster.until(lambda: owners() == [other])


async def test_labels_and_annotations_of_the_spec_reach_running_pods(model: ModelApi) -> None:
    async with operated(model) as cluster:
        cluster.apply(size=3, version="3.6.14", pod={"labels": {"team": "a"}})
        await cluster.settled()
        uids = cluster.uids(POD)
        cluster.apply(pod={"labels": {"tier": "b"}, "annotations": {"note": "c"}})
        await cluster.settled()
        for pod in model.all(POD):
            assert (pod["metadata"]["labels"]["tier"], pod["metadata"]["annotations"]["note"]) == ("b", "c")
            assert "team" not in pod["metadata"]["labels"]
        assert cluster.uids(POD) == uids


def unlabel(model: ModelApi, resource: Resource[Any], name: str, *labels: str) -> dict[str, str]:
    """Removes labels from an object as a user would, and returns those that it had."""
    metadata = model.read(resource, ObjectKey("default", name))["metadata"]
    before = dict(metadata["labels"])
    model.put(resource, name, metadata={"labels": {k: v for k, v in before.items() if k not in labels}})
    return before


LABELLED = pytest.mark.parametrize(
    ("resource", "what"), [(CLAIM, "pvc"), (POD, "pod")], ids=["volume", "pod"]
)


@LABELLED
@pytest.mark.parametrize("size", [1, 3])
async def test_an_object_without_its_label_is_reported_with_the_command_and_its_member_stays(
    model: ModelApi, resource: Resource[Any], what: str, size: int
) -> None:
    async with operated(model) as cluster:
        cluster.apply(size=size, version="3.6.14")
        await cluster.settled()
        name, uids = cluster.pods[0], (cluster.uids(POD), cluster.uids(CLAIM))
        async with cluster.world.writing("example-client") as log:
            labels = unlabel(model, resource, name, "app", "etcd_cluster", "etcd_node")
            await cluster.until(lambda: cluster.condition("Degraded")["reason"] == "LabelMissing")
            message = (
                f"kubectl label --overwrite -n default {what} {name} app=etcd etcd_cluster=example "
                f"etcd_node={name}"
            )
            assert message in cluster.condition("Ready")["message"]
            calls = len(cluster.client.calls)
            await asyncio.sleep(600)
            assert len(cluster.client.calls) - calls < 4 * 600 / EtcdSettings().poll
            assert (cluster.uids(POD), cluster.uids(CLAIM)) == uids
            model.put(resource, name, metadata={"labels": labels})
            await cluster.settled()
        assert cluster.world.members.changes == []
        assert cluster.world.lost() == []
        assert log.figures.failed_writes == 0 or (size, what) == (1, "pod")


async def test_a_deleted_pod_comes_back_on_its_volume_without_a_label(model: ModelApi) -> None:
    async with operated(model) as cluster:
        cluster.apply(size=3, version="3.6.14")
        await cluster.settled()
        name = cluster.pods[0]
        labels = unlabel(model, CLAIM, name, "etcd_cluster")
        model.remove(POD, ObjectKey("default", name))
        await cluster.until(lambda: name in cluster.status["members"].get("unready", ()))
        await cluster.until(lambda: len(cluster.status["members"]["ready"]) == 3)
        assert cluster.condition("Ready")["reason"] == "LabelMissing"
        # The voters are annotated on the volume as soon as it has its label again.
        cluster.apply(size=4)
        await cluster.until(lambda: len(cluster.status["members"]["ready"]) == 4)
        model.put(CLAIM, name, metadata={"labels": labels})
        await cluster.settled()
        voters = {each["metadata"]["annotations"]["etcd.pilothouse.dev/voters"] for each in model.all(CLAIM)}
        assert len(voters) == 1
        assert cluster.world.lost() == []


async def test_a_pod_that_has_lost_another_label_of_the_operator_gets_it_back(model: ModelApi) -> None:
    async with operated(model) as cluster:
        cluster.apply(size=3, version="3.6.14")
        await cluster.settled()
        name = cluster.pods[0]
        labels = unlabel(model, POD, name, "app", "etcd_node")
        pod = ObjectKey("default", name)
        await cluster.until(lambda: model.read(POD, pod)["metadata"]["labels"] == labels)
        await cluster.settled()
        assert cluster.world.members.changes == []


@LABELLED
async def test_the_label_of_another_cluster_is_reported_and_not_changed(
    model: ModelApi, resource: Resource[Any], what: str
) -> None:
    async with operated(model) as cluster:
        cluster.apply(size=3, version="3.6.14")
        await cluster.settled()
        name = cluster.pods[0]
        labels = unlabel(model, resource, name) | {"etcd_cluster": "other"}
        model.put(resource, name, metadata={"labels": labels})
        await cluster.until(lambda: cluster.condition("Degraded")["reason"] == "LabelMissing")
        await asyncio.sleep(60)
        assert model.read(resource, ObjectKey("default", name))["metadata"]["labels"] == labels
        assert cluster.world.members.changes == []


async def test_a_size_that_no_spec_may_have_changes_nothing(model: ModelApi) -> None:
    async with operated(model) as cluster:
        cluster.apply(size=0)
        await asyncio.sleep(5)
        ready = cluster.condition("Ready")
        assert (ready["status"], ready["reason"]) == ("False", "InvalidSpec")
        assert ready["message"] == "spec.size is 0: use 1 to 7 members, for example 3."
        assert cluster.status["phase"] == "Failed"
        cluster.apply(size=3, version="3.6.14")
        await cluster.settled()
        assert (cluster.status["phase"], cluster.status.get("reason", "")) == ("Running", "")
        cluster.apply(size=0)
        await asyncio.sleep(5)
        ready = cluster.condition("Ready")
        assert (ready["status"], ready["reason"]) == ("False", "InvalidSpec")
        assert ready["message"].endswith("The last valid spec stays in force.")
        assert len(cluster.pods) == 3


async def test_a_cluster_is_ready_once_its_pods_are(model: ModelApi, monkeypatch: pytest.MonkeyPatch) -> None:
    async with operated(model) as cluster:
        answers = node._answers
        with monkeypatch.context() as patch:
            # The members serve, and the kubelet has not noticed it yet.
            patch.setattr(node, "_answers", lambda probe, *of: "httpGet" not in probe and answers(probe, *of))
            cluster.apply(size=3, version="3.6.14")
            await cluster.until(lambda: cluster.condition("Ready").get("reason") == "WaitingForMembers")
            await cluster.until(lambda: bool(cluster.status["record"].get("founded")))
            await asyncio.sleep(60)
            assert not cluster.ready
            assert "are ready" in cluster.condition("Ready")["message"]
        await cluster.settled()


async def test_a_lost_majority_stops_an_upgrade(model: ModelApi) -> None:
    async with operated(model) as cluster:
        cluster.apply(size=3, version="3.5.33")
        await cluster.settled()
        survivor, *lost = cluster.pods
        for pod in lost:
            model.remove(POD, ObjectKey("default", pod))
            model.remove(CLAIM, ObjectKey("default", pod))
        cluster.apply(version="3.6.14")
        await cluster.until(lambda: cluster.condition("Ready")["reason"] == "QuorumLost", 180)
        degraded = cluster.condition("Degraded")
        assert (degraded["status"], degraded["reason"]) == ("True", "QuorumLost")
        assert f"Surviving members: {survivor} (revision " in degraded["message"]
        upgrading = cluster.condition("Upgrading")
        assert (upgrading["status"], upgrading["reason"]) == ("False", "QuorumLost")
        assert (cluster.pods, cluster.claims) == ([survivor], [survivor])


async def test_missing_services_and_budgets_are_applied_with_an_event(model: ModelApi) -> None:
    def notes() -> list[str]:
        return [each["note"] for each in model.all(EVENT) if each["reason"] == "ObjectApplied"]

    async with operated(model) as cluster:
        cluster.apply(size=3, version="3.6.14")
        await cluster.settled()
        assert notes() == []
        gone: list[tuple[Resource[Any], str]] = [
            (SERVICE, "example"),
            (SERVICE, "example-client"),
            (POD_DISRUPTION_BUDGET, "example"),
        ]
        for resource, name in gone:
            model.remove(resource, ObjectKey("default", name))
            await cluster.until(partial(model.exists, resource, ObjectKey("default", name)))
            await asyncio.sleep(5)
        assert notes() == [
            f"Applied the {resource.kind} {name}, which did not exist or had lost its labels."
            for resource, name in gone
        ]


async def test_an_alarm_is_an_event_once_when_it_begins_and_once_when_it_ends(model: ModelApi) -> None:
    def events(reason: str) -> list[tuple[str, str]]:
        return [(each["type"], each["note"]) for each in model.all(EVENT) if each["reason"] == reason]

    async with operated(model) as cluster:
        cluster.apply(size=3, version="3.6.14")
        await cluster.settled()
        for name in cluster.pods[1:]:
            model.remove(POD, ObjectKey("default", name))
            model.remove(CLAIM, ObjectKey("default", name))
        await cluster.until(lambda: cluster.condition("Ready")["reason"] == "QuorumLost", 180)
        await asyncio.sleep(600)
        [(kind, note)] = events("QuorumLost")
        assert (kind, note) == ("Warning", cluster.condition("Degraded")["message"])
        assert events("AlarmEnded") == []
        cluster.apply(paused=True)
        await asyncio.sleep(60)
        cluster.apply(paused=False)
        await asyncio.sleep(60)
        assert (len(events("QuorumLost")), events("AlarmEnded")) == (1, [])


async def test_an_alarm_is_no_second_event_after_a_restart_of_the_operator(model: ModelApi) -> None:
    labels = {"app": "etcd", "etcd_cluster": "example"}
    async with operated(model, operator=False) as cluster:
        model.put(CLAIM, "example-old", metadata={"labels": labels}, spec={})
        cluster.apply(size=3, version="3.6.14")
        for _ in range(2):
            watch = etcd_watch(cluster.world.connections(), EtcdSettings())
            async with operating(model.another_client(), watch, name="pilothouse-etcd"):
                await cluster.until(lambda: cluster.condition("Ready").get("reason") == "ForeignObjects")
                await asyncio.sleep(60)
        assert [each["reason"] for each in model.all(EVENT)] == ["ForeignObjects"]


async def test_a_paused_cluster_is_left_alone(model: ModelApi) -> None:
    async with operated(model) as cluster:
        cluster.apply(size=3, version="3.6.14")
        await cluster.settled()
        cluster.apply(paused=True, size=5)
        await asyncio.sleep(5)
        model.remove(POD, ObjectKey("default", cluster.pods[0]))
        await asyncio.sleep(60)
        assert len(cluster.pods) == 2
        ready = cluster.condition("Ready")
        assert (ready["status"], ready["reason"]) == ("Unknown", "Paused")
        assert cluster.status["controlPaused"] is True
        cluster.apply(paused=False)
        await cluster.settled()
        assert len(cluster.pods) == 5


@pytest.mark.usefixtures("no_metrics")
@pytest.mark.parametrize("namespaces", [(), ("default",)])
async def test_a_cluster_with_the_clusterwide_scope_needs_an_operator_for_all_namespaces(
    model: ModelApi, namespaces: tuple[str, ...]
) -> None:
    async with operated(model, settings=EtcdSettings(namespaces=namespaces)) as cluster:
        scope = {"etcd.database.coreos.com/scope": "clusterwide"}
        model.put(CLUSTERS, KEY.name, metadata={"annotations": scope}, spec={"size": 1, "version": "3.6.14"})
        if not namespaces:
            await cluster.settled()
            return
        await asyncio.sleep(700)
        assert cluster.client.writes == []
        assert (cluster.status, cluster.pods, model.all(EVENT)) == ({}, [], [])
        model.put(CLUSTERS, KEY.name, metadata={"annotations": {"etcd.database.coreos.com/scope": ""}})
        await cluster.settled()
        assert metrics_of(KEY.name)
        await asyncio.sleep(30)
        model.put(CLUSTERS, KEY.name, metadata={"annotations": scope})
        version = model.version
        model.remove(POD, ObjectKey("default", cluster.pods[0]))
        writes = len(cluster.client.writes)
        await asyncio.sleep(700)
        assert cluster.client.writes[writes:] == []
        assert model.version > version
        assert metrics_of(KEY.name) == {}


async def test_a_cluster_heals_although_its_service_belongs_to_another_object(model: ModelApi) -> None:
    async with operated(model) as cluster:
        cluster.apply(size=3, version="3.6.14")
        await cluster.settled()
        model.remove(SERVICE, ObjectKey("default", "example-client"))
        model.put(SERVICE, "example-client", spec={"selector": {"app": "other"}})
        await cluster.until(lambda: cluster.condition("Ready").get("reason") == "NameTaken")
        model.remove(POD, ObjectKey("default", cluster.pods[0]))
        await cluster.until(lambda: len(cluster.status["members"]["ready"]) == 2)
        await cluster.until(lambda: len(cluster.status["members"]["ready"]) == 3)
        model.remove(SERVICE, ObjectKey("default", "example-client"))
        await cluster.settled()


async def test_a_cluster_heals_although_its_service_is_stuck_in_deletion(model: ModelApi) -> None:
    service = ObjectKey("default", "example-client")
    async with operated(model) as cluster:
        cluster.apply(size=3, version="3.6.14")
        await cluster.settled()
        model.put(SERVICE, service.name, metadata={"finalizers": ["tests.dev/load-balancer"]})
        model.remove(SERVICE, service)
        await cluster.until(lambda: cluster.condition("Degraded").get("reason") == "Terminating")
        model.remove(POD, ObjectKey("default", cluster.pods[0]))
        await cluster.until(lambda: len(cluster.status["members"]["ready"]) == 2)
        await cluster.until(lambda: len(cluster.status["members"]["ready"]) == 3)
        freed: dict[str, Any] = {"metadata": {"finalizers": None}}
        await model.another_client("user").patch(SERVICE, service, freed, type=PatchType.MERGE)
        await cluster.settled()


async def test_nothing_is_founded_over_the_objects_of_another_operator(model: ModelApi) -> None:
    async with operated(model) as cluster:
        labels = {"app": "etcd", "etcd_cluster": "example"}
        model.put(CLAIM, "example-old", metadata={"labels": labels}, spec={})
        cluster.apply(size=3, version="3.6.14")
        await asyncio.sleep(10)
        ready = cluster.condition("Ready")
        assert (ready["status"], ready["reason"]) == ("False", "ForeignObjects")
        assert "The PVCs example-old do not have this operator's annotations" in ready["message"]
        assert (cluster.pods, cluster.claims) == ([], ["example-old"])
        model.remove(CLAIM, ObjectKey("default", "example-old"))
        await cluster.settled()


async def test_without_a_default_class_the_condition_names_the_field_to_set(model: ModelApi) -> None:
    async with operated(model, default_class=False) as cluster:
        cluster.apply(size=3, version="3.6.14")
        await asyncio.sleep(5)
        ready = cluster.condition("Ready")
        assert (ready["status"], ready["reason"]) == ("False", "NoStorageClass")
        assert "spec.pod.persistentVolumeClaimSpec.storageClassName" in ready["message"]
        model.put(STORAGE_CLASS, "slow")
        cluster.apply(pod={"persistentVolumeClaimSpec": {"storageClassName": "slow"}})
        await cluster.settled()
        assert len(cluster.claims) == 3


def put_peer_secret(model: ModelApi, *authorities: Authority) -> None:
    certificate, key = authorities[0].issue("member")
    pem = {
        "peer.crt": certificate.read_bytes(),
        "peer.key": key.read_bytes(),
        "peer-ca.crt": b"".join(each.ca_file.read_bytes() for each in authorities),
    }
    data = {name: base64.b64encode(text).decode() for name, text in pem.items()}
    model.put(SECRET, "peer", data=data)


def two_authorities(folder: Path) -> tuple[Authority, Authority]:
    for name in ("one", "two"):
        (folder / name).mkdir()
    return Authority(folder / "one"), Authority(folder / "two")


@pytest.mark.parametrize(
    "edit", [{"version": "3.6.14"}, {"pod": {"annotations": {}, "priorityClassName": "a"}}]
)
@pytest.mark.parametrize("size", [1, 3])
async def test_no_member_restarts_while_the_others_trust_none_of_its_authorities(
    model: ModelApi, tmp_path: Path, size: int, edit: dict[str, Any]
) -> None:
    first, second = two_authorities(tmp_path)
    async with operated(model) as cluster:
        put_peer_secret(model, first)
        cluster.apply(size=size, version="3.5.33", TLS={"static": {"member": {"peerSecret": "peer"}}})
        await cluster.settled()
        put_peer_secret(model, second)
        await cluster.until(lambda: cluster.condition("Warning").get("reason") == "AuthoritiesChanged")
        uids = cluster.uids(POD)
        cluster.apply(**edit)
        if size == 1:
            await cluster.settled()
            return
        await asyncio.sleep(60)
        ready = cluster.condition("Ready")
        assert ready["reason"] == "AuthoritiesReplaced"
        assert "The Secret peer has none" in ready["message"]
        assert f"{pages.AUTHORITIES} has the procedure." in ready["message"]
        assert (cluster.uids(POD), cluster.status["currentVersion"]) == (uids, "3.5.33")
        assert len(cluster.status["members"]["ready"]) == 3
        model.remove(POD, ObjectKey("default", cluster.pods[0]))
        await cluster.until(lambda: len(cluster.status["members"]["ready"]) == 2)
        await cluster.until(lambda: len(cluster.status["members"]["ready"]) == 3)
        put_peer_secret(model, second, first)
        await cluster.settled()


async def test_changed_certificate_authorities_restart_nothing_and_are_reported(
    model: ModelApi, tmp_path: Path
) -> None:
    put_secret = partial(put_peer_secret, model)
    first, second = two_authorities(tmp_path)
    async with operated(model) as cluster:
        put_secret(first)
        cluster.apply(size=3, version="3.6.14", TLS={"static": {"member": {"peerSecret": "peer"}}})
        await cluster.settled()
        uids = cluster.uids(POD)
        assert cluster.condition("Warning") == {}
        put_secret(first, first)
        await asyncio.sleep(60)
        assert cluster.condition("Warning") == {}
        put_secret(second)
        await cluster.until(lambda: cluster.condition("Warning").get("reason") == "AuthoritiesChanged")
        assert "Add the earlier ones to the Secrets first." in cluster.condition("Warning")["message"]
        put_secret(second, first)
        await cluster.until(lambda: "one after the other" in cluster.condition("Warning")["message"])
        assert "do not trust yet: example-" in cluster.condition("Warning")["message"]
        assert cluster.uids(POD) == uids
        for pod in cluster.pods:
            model.remove(POD, ObjectKey("default", pod))
            await cluster.until(lambda: not cluster.ready)
            await cluster.settled()
        assert cluster.condition("Warning")["status"] == "False"


async def test_a_missing_secret_is_named_and_used_once_it_exists(model: ModelApi) -> None:
    async with operated(model) as cluster:
        cluster.apply(size=3, version="3.6.14", TLS={"static": {"member": {"peerSecret": "peer"}}})
        await asyncio.sleep(5)
        ready = cluster.condition("Ready")
        assert (ready["status"], ready["reason"]) == ("False", "SecretUnusable")
        assert ready["message"].startswith("Secret peer does not exist.")
        assert cluster.pods == []


async def test_the_budget_is_right_before_the_service_selects_another_voter(model: ModelApi) -> None:
    """Evictions between two requests of the operator never leave fewer voters than a quorum."""

    async def before(call: Call) -> None:
        labels = (call.body or {}).get("metadata", {}).get("labels", {}) if call.verb == "patch" else {}
        if call.resource == str(POD) and labels.get("etcd.pilothouse.dev/serving"):
            running = [each for name in cluster.pods if (each := cluster.world.process(name))]
            voters = max(sum(not member.is_learner for member in each.known.values()) for each in running)
            seen.append((voters, cluster.min_available))

    async with operated(model) as cluster:
        seen: list[tuple[int, int | None]] = []
        cluster.client.before = before
        for size in (3, 7, 3, 1, 5):
            cluster.apply(size=size, version="3.6.14")
            await cluster.settled()
        budgets = {1: None, 2: None, 3: 2, 4: 3, 5: 3, 6: 4, 7: 4}
        assert {voters for voters, _ in seen} >= {3, 4, 5, 6, 7}
        assert [(voters, minimum) for voters, minimum in seen if budgets[voters] != minimum] == []


async def test_the_budget_is_lowered_right_after_a_member_is_removed(model: ModelApi) -> None:
    async with operated(model) as cluster:
        cluster.apply(size=4, version="3.6.14")
        await cluster.settled()
        assert cluster.min_available == 3
        cluster.apply(size=3)
        await cluster.until(lambda: "remove" in str(cluster.world.members.changes[-1:]))
        await asyncio.sleep(0.1)
        assert cluster.min_available == 2


async def with_a_voter_of_a_user(cluster: Operated) -> Process:
    """Makes a cluster of three members to which a user adds a voter, 77. Returns the leader."""
    cluster.apply(size=3, version="3.6.14")
    await cluster.settled()
    leader = cluster.world.running(cluster.status["leader"])
    stranger = Member(77, "", ("http://stranger.example:2380",), (), False)
    cluster.world.members.propose(leader, SetMember(stranger))
    await cluster.until(lambda: cluster.condition("Degraded").get("reason") == "MembersAddedByUser")
    return leader


async def test_the_budget_counts_a_voter_that_a_user_has_added(model: ModelApi) -> None:
    async with operated(model) as cluster:
        leader = await with_a_voter_of_a_user(cluster)
        assert cluster.min_available == 3
        cluster.world.members.propose(leader, Remove(77))
        await cluster.settled()
        assert cluster.min_available == 2


async def test_a_voter_of_a_user_that_costs_the_quorum_is_named_with_the_command(model: ModelApi) -> None:
    async with operated(model) as cluster:
        await with_a_voter_of_a_user(cluster)
        lost = ObjectKey("default", cluster.pods[0])
        model.remove(POD, lost)
        model.remove(CLAIM, lost)
        await cluster.until(lambda: cluster.condition("Ready").get("reason") == "NoQuorum")
        await cluster.until(lambda: "added these voters: 4d." in cluster.condition("Ready")["message"])
        message = cluster.condition("Degraded")["message"]
        assert "4d (http://stranger.example:2380)" in message
        advice = f"etcdctl member remove 4d. If there will be no quorum, follow {pages.VOTER_DOWN}."
        assert advice in message


async def test_the_services_and_the_budget_follow_the_membership(model: ModelApi) -> None:
    async with operated(model) as cluster:
        for size, available in ((1, None), (3, 2), (5, 3), (1, None)):
            cluster.apply(size=size, version="3.6.14")
            await cluster.settled()
            assert cluster.min_available == available


async def test_the_events_have_the_reasons_of_the_coreos_operator(model: ModelApi) -> None:
    def reasons() -> set[str]:
        return {each["reason"] for each in model.all(EVENT)}

    async with operated(model) as cluster:
        cluster.apply(size=3, version="3.5.33")
        await cluster.settled()
        assert {"Founding", "Founded"} <= reasons()
        victim = ObjectKey("default", cluster.pods[0])
        model.remove(POD, victim)
        model.remove(CLAIM, victim)
        await cluster.until(lambda: not cluster.ready)
        await cluster.settled()
        cluster.apply(version="3.6.14")
        await cluster.settled()
        await asyncio.sleep(5)
        assert {"Replacing Dead Member", "Member Removed", "New Member Added", "Member Upgraded"} <= reasons()


@pytest.mark.parametrize("edit", [{"version": "3.6.14"}, {"pod": {"priorityClassName": "high"}}])
async def test_an_interruption_is_announced_before_it_happens(model: ModelApi, edit: Json) -> None:
    shown: list[str] = []

    async def before(call: Call) -> None:
        if call.resource == str(POD) and call.verb in ("delete", "patch") and not call.dry_run:
            shown.append(cluster.condition("Interruption").get("status", ""))

    async with operated(model) as cluster:
        cluster.apply(size=1, version="3.5.33")
        await cluster.settled()
        cluster.client.before = before
        cluster.apply(**edit)
        await cluster.until(lambda: bool(shown))
        assert shown[0] == "True"
        await cluster.settled()
        assert cluster.condition("Interruption")["status"] == "False"
        await asyncio.sleep(5)
        [event] = [each for each in model.all(EVENT) if each["type"] == "Warning"]
        assert "Clients may notice an interruption" in event["note"]


def metrics_of(name: str) -> dict[str, float]:
    """The metrics of a cluster, without their common prefix."""
    return {
        sample.name.removeprefix("etcd_cluster_"): sample.value
        for family in REGISTRY.collect()
        for sample in family.samples
        if sample.labels.get("name") == name and sample.name.startswith("etcd_cluster_")
    }


@pytest.fixture
def no_metrics() -> None:
    """Removes the metrics of the clusters of this name in other tests."""
    for metric in (metrics.STEP, metrics.LEADER_CHANGES):
        metric.clear()


@pytest.mark.usefixtures("no_metrics")
async def test_each_cluster_has_metrics_until_it_is_deleted(model: ModelApi) -> None:
    async with operated(model) as cluster:
        cluster.apply(size=3, version="3.6.14")
        await cluster.settled()
        leader = cluster.status["leader"]
        model.remove(POD, ObjectKey("default", leader))
        await cluster.until(lambda: cluster.status["leader"] not in ("", leader))
        await cluster.settled()
        found = metrics_of(KEY.name)
        assert (found["members"], found["members_ready"], found["has_leader"]) == (3, 3, 1)
        assert found["leader_changes_total"] == 1
        assert found["db_size_bytes"] > 0
        assert "step_seconds" in found
        cluster.delete()
        await asyncio.sleep(1)
        assert metrics_of(KEY.name) == {}
