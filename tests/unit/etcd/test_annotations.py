"""The annotations of PVCs that an earlier release has not written, and those that a user has changed."""

import asyncio

import pytest

from etcd_operator.volumes import (
    CLUSTER_ID,
    INCARNATION,
    MEMBER_ID,
    REMOVED,
    SCHEME,
    SERVICE,
    STARTED,
    VOTERS,
)
from pilothouse.kube import ObjectKey
from pilothouse.testing import ModelApi
from pilothouse.testing.controllers.pods import CLAIM, POD
from tests.unit.etcd.operated import Operated, operated

pytestmark = pytest.mark.usefixtures("virtual_time")


def annotations(model: ModelApi, name: str) -> dict[str, str]:
    return dict(model.read(CLAIM, ObjectKey("default", name))["metadata"]["annotations"])


def annotate(model: ModelApi, name: str, key: str, text: str | None) -> None:
    """Sets an annotation, or removes it."""
    changed = {**annotations(model, name), key: text}
    kept = {key: value for key, value in changed.items() if value is not None}
    model.put(CLAIM, name, metadata={"annotations": kept})


async def test_the_service_is_written_once_on_the_volumes_of_an_earlier_release(model: ModelApi) -> None:
    async with operated(model) as cluster:
        cluster.apply(size=3, version="3.6.14")
        await cluster.settled()
        await asyncio.sleep(30)
        before = {name: annotations(model, name) for name in cluster.claims}
        for name in cluster.claims:
            annotate(model, name, SERVICE, None)
        writes = len(cluster.client.writes)
        await cluster.until(lambda: {name: annotations(model, name) for name in cluster.claims} == before)
        await asyncio.sleep(60)
        assert len(cluster.client.writes) == writes + 3
        assert cluster.ready


@pytest.mark.parametrize("key", [INCARNATION, MEMBER_ID, CLUSTER_ID, VOTERS, STARTED, SCHEME, REMOVED])
async def test_a_mistyped_annotation_of_a_member_s_volume_is_corrected(model: ModelApi, key: str) -> None:
    async with operated(model) as cluster:
        cluster.apply(size=3, version="3.6.14")
        await cluster.settled()
        await asyncio.sleep(30)
        name = cluster.claims[0]
        before = annotations(model, name)
        annotate(model, name, key, "mistyped")
        await cluster.until(lambda: annotations(model, name) == before)
        await cluster.settled()
        assert cluster.world.members.changes == []


@pytest.mark.parametrize("when_scaled", ["Retain", "Delete"])
@pytest.mark.parametrize("key", [INCARNATION, MEMBER_ID, STARTED, REMOVED])
async def test_a_mistyped_annotation_of_a_removed_member_s_volume_is_reported(
    model: ModelApi, key: str, when_scaled: str
) -> None:
    """The volume is neither deleted nor used."""
    async with operated(model) as cluster:
        cluster.apply(size=3, version="3.6.14")
        await cluster.settled()
        cluster.apply(size=1)
        await cluster.until(lambda: len(cluster.status.get("retainedVolumes", ())) == 2)
        await cluster.settled()
        name, claims = cluster.status["retainedVolumes"][0], cluster.claims
        right = annotations(model, name).get(key)
        annotate(model, name, key, "mistyped")
        cluster.apply(storage={"whenScaled": when_scaled})
        await cluster.until(lambda: cluster.condition("Degraded").get("reason") == "UnreadableAnnotation")
        assert f"{key} of PVC {name}" in cluster.condition("Degraded")["message"]
        kill_the_last_pod(cluster)
        await cluster.until(lambda: cluster.condition("Available").get("status") == "True", 60)
        await asyncio.sleep(60)
        assert cluster.claims == claims
        assert len(cluster.pods) == 1
        annotate(model, name, key, right)
        await cluster.settled()
        assert cluster.claims == claims
        assert name in cluster.status["retainedVolumes"]


def kill_the_last_pod(cluster: Operated) -> None:
    [pod] = cluster.pods
    cluster.api.remove(POD, ObjectKey("default", pod))
