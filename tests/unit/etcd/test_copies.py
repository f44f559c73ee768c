"""PVCs that have the label of a cluster and are not its members': copies and backups."""

import asyncio
from typing import Any

import pytest

from pilothouse.kube import ObjectKey, PatchType
from pilothouse.testing import Json, ModelApi
from pilothouse.testing.controllers.pods import CLAIM, POD
from tests.etcd.model.volumes import STORAGE_CLASS
from tests.unit.etcd.operated import Operated, operated

pytestmark = pytest.mark.usefixtures("virtual_time")


def read(model: ModelApi, name: str) -> Json:
    return model.read(CLAIM, ObjectKey("default", name))


def copy(cluster: Operated, name: str = "example-copy") -> None:
    """Copies the PVC of the first member, as a user or a backup tool does."""
    original = read(cluster.api, cluster.claims[0])
    metadata = {key: original["metadata"][key] for key in ("labels", "annotations")}
    cluster.api.put(CLAIM, name, metadata=metadata, spec=original["spec"])


async def test_a_copy_is_not_started_when_all_pods_are_lost(model: ModelApi) -> None:
    async with operated(model) as cluster:
        cluster.apply(size=3, version="3.6.14")
        await cluster.settled()
        members = cluster.pods
        copy(cluster)
        for name in members:
            model.remove(POD, ObjectKey("default", name))
        await cluster.until(lambda: cluster.condition("Available")["status"] == "False")
        await cluster.until(lambda: cluster.condition("Degraded")["reason"] == "VolumeCopied")
        await asyncio.sleep(30)
        assert cluster.pods == members
        assert cluster.condition("Available")["status"] == "True"
        assert f"example-copy (of {members[0]})" in cluster.condition("Degraded")["message"]
        unlabelled: dict[str, Any] = {"metadata": {"labels": {"etcd_cluster": None}}}
        key = ObjectKey("default", "example-copy")
        await model.another_client("user").patch(CLAIM, key, unlabelled, type=PatchType.MERGE)
        await cluster.until(lambda: cluster.condition("Degraded")["status"] == "False")


async def test_a_deleted_cluster_resumes_without_a_copy(model: ModelApi) -> None:
    async with operated(model) as cluster:
        cluster.apply(size=3, version="3.6.14")
        await cluster.settled()
        members = cluster.pods
        copy(cluster)
        cluster.delete()
        await cluster.until(lambda: not model.all(POD))
        cluster.apply(size=3, version="3.6.14")
        await cluster.until(lambda: cluster.condition("Degraded").get("reason") == "VolumeCopied")
        await asyncio.sleep(30)
        assert cluster.pods == members
        assert cluster.world.lost() == []


async def test_a_copy_of_a_removed_member_is_kept_although_its_data_is_deleted(model: ModelApi) -> None:
    async with operated(model) as cluster:
        cluster.apply(size=3, version="3.6.14", storage={"whenScaled": "Delete"})
        await cluster.settled()
        copies = {}
        for number, name in enumerate(cluster.claims):
            original = read(model, name)
            metadata = {key: original["metadata"][key] for key in ("labels", "annotations")}
            copies[f"example-copy{number}"] = metadata
        for name, metadata in copies.items():
            model.put(CLAIM, name, metadata=metadata, spec=original["spec"])
        cluster.apply(size=1)
        await cluster.until(lambda: len(cluster.claims) == 1 + len(copies))
        await asyncio.sleep(30)
        assert {*cluster.claims} >= copies.keys()


async def test_only_the_claims_of_members_are_deleted_with_the_cluster_and_grow(model: ModelApi) -> None:
    async with operated(model) as cluster:
        model.put(STORAGE_CLASS, "standard", allowVolumeExpansion=True)
        cluster.apply(size=3, version="3.6.14")
        await cluster.settled()
        members = cluster.claims
        copy(cluster)
        spec = read(model, members[0])["spec"]
        model.put(CLAIM, "backup", metadata={"labels": {"etcd_cluster": "example"}}, spec=spec)
        resources = {"resources": {"requests": {"storage": "2Gi"}}}
        cluster.apply(storage={"whenDeleted": "Delete"}, pod={"persistentVolumeClaimSpec": resources})
        await cluster.until(lambda: all(size(model, name) == "2Gi" for name in members))
        await asyncio.sleep(30)
        assert {size(model, name) for name in ("backup", "example-copy")} == {"1Gi"}
        cluster.apply(size=4)
        await cluster.until(lambda: len(cluster.status["members"]["ready"]) == 4)
        await asyncio.sleep(30)
        cluster.delete()
        await cluster.until(lambda: cluster.claims == ["backup", "example-copy"])


def size(model: ModelApi, name: str) -> Any:
    return read(model, name)["spec"]["resources"]["requests"]["storage"]


async def test_the_class_of_a_backup_does_not_keep_the_members_from_growing(model: ModelApi) -> None:
    async with operated(model) as cluster:
        model.put(STORAGE_CLASS, "standard", allowVolumeExpansion=True)
        model.put(STORAGE_CLASS, "rigid")
        cluster.apply(size=1, version="3.6.14")
        await cluster.settled()
        spec = {**read(model, cluster.claims[0])["spec"], "storageClassName": "rigid"}
        model.put(CLAIM, "backup", metadata={"labels": {"etcd_cluster": "example"}}, spec=spec)
        resources = {"resources": {"requests": {"storage": "2Gi"}}}
        cluster.apply(pod={"persistentVolumeClaimSpec": resources})
        await cluster.settled()
        assert size(model, cluster.claims[-1]) == "2Gi"
