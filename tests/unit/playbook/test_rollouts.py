"""A task waits for a rollout, and the status of the object shows why the pods do not run."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from pilothouse.kube import Forbidden, ObjectKey
from pilothouse.testing import ModelApi
from pilothouse.views import DEPLOYMENT, PERSISTENT_VOLUME_CLAIM, POD
from tests.unit.playbook.configured import TicketPlay, operator, playbook, ready, requests

pytestmark = pytest.mark.usefixtures("virtual_time")

LABELS = {"app": "web"}
KEY = ObjectKey("default", "web")
MANIFEST = {
    "metadata": {"name": "web"},
    "spec": {
        "replicas": 1,
        "selector": {"matchLabels": LABELS},
        "template": {"metadata": {"labels": LABELS}, "spec": {"containers": [{"name": "app", "image": "i"}]}},
    },
}


async def servers_run(play: TicketPlay) -> None:
    await play.wait_for_rollout(await play.apply(DEPLOYMENT, MANIFEST))


def report(api: ModelApi, **status: Any) -> None:
    """Acts as the Deployment controller: reports the progress of the current spec."""
    generation = api.read(DEPLOYMENT, KEY)["metadata"]["generation"]
    counts = {"replicas": 1, "updatedReplicas": 1, "availableReplicas": 0}
    api.put(DEPLOYMENT, KEY.name, status={"observedGeneration": generation, **counts, **status})


def put_pod(api: ModelApi, *, volumes: Any = (), **status: Any) -> None:
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-5d", "uid": "r", "controller": True}
    metadata = {"labels": LABELS, "ownerReferences": [owner]}
    api.put(POD, "web-5d-x", metadata=metadata, spec={"volumes": list(volumes)}, status=status)


async def test_it_waits_with_the_reason_and_continues(api: ModelApi, ticket: ObjectKey) -> None:
    async with operator(api, playbook(servers_run), owns=[DEPLOYMENT]):
        assert ready(api, ticket) == (
            "False",
            "RollingOut",
            "Deployment web: The controller has not seen the current spec yet.",
        )
        report(api)
        await asyncio.sleep(1)
        assert ready(api, ticket)[2] == "Deployment web: 0 of 1 updated pods are available."
        # No watch reports this, so the next check finds it.
        waiting = {"reason": "ErrImagePull", "message": "manifest unknown"}
        put_pod(api, containerStatuses=[{"name": "app", "image": "i", "state": {"waiting": waiting}}])
        await asyncio.sleep(16)
        status, reason, message = ready(api, ticket)
        assert (status, reason) == ("False", "ImagePullBackOff")
        assert message.endswith("Container app of Pod web-5d-x cannot get its image i: manifest unknown.")
        report(api, availableReplicas=1)
        await asyncio.sleep(1)
        assert ready(api, ticket)[0] == "True"
        settled = len(api.calls)
        await asyncio.sleep(300)
        assert len(api.calls) == settled, "a finished rollout costs no request"


async def test_the_problem_of_a_starting_pod_shows_soon_and_stays(api: ModelApi, ticket: ObjectKey) -> None:
    def state(reason: str) -> list[dict[str, Any]]:
        return [{"name": "app", "image": "i", "state": {"waiting": {"reason": reason}}}]

    async with operator(api, playbook(servers_run), owns=[DEPLOYMENT]):
        put_pod(api, phase="Pending", containerStatuses=state("ContainerCreating"))
        report(api)
        await asyncio.sleep(1)
        assert ready(api, ticket)[1] == "RollingOut"
        # From here on no watch of the operator reports anything.
        put_pod(api, phase="Pending", containerStatuses=state("ErrImagePull"))
        await asyncio.sleep(5)
        assert ready(api, ticket)[1] == "ImagePullBackOff"
        seen = len(requests(api, POD)) + len(api.calls)
        for reason in ("ImagePullBackOff", "ErrImagePull") * 20:
            put_pod(api, phase="Pending", containerStatuses=state(reason))
            await asyncio.sleep(16)
            assert ready(api, ticket)[1] == "ImagePullBackOff", "a steady state shows it, without Events"
        assert len(requests(api, POD)) + len(api.calls) - seen < 60


async def test_a_pod_that_starts_slowly_is_checked_at_the_usual_pace(
    api: ModelApi, ticket: ObjectKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    lists: list[float] = []
    pages, loop = api.pages, asyncio.get_running_loop()

    def counting(resource: Any, **options: Any) -> AsyncGenerator[Any, None]:
        if resource is POD:
            lists.append(loop.time())
        return pages(resource, **options)

    monkeypatch.setattr(api, "pages", counting)
    async with operator(api, playbook(servers_run), owns=[DEPLOYMENT]):
        put_pod(api, phase="Pending")
        report(api)
        await asyncio.sleep(40)
        lists.clear()
        await asyncio.sleep(150)
        assert 9 <= len(lists) <= 11


async def test_an_exceeded_deadline_is_a_failure_and_is_retried(api: ModelApi, ticket: ObjectKey) -> None:
    late = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}
    async with operator(api, playbook(servers_run), owns=[DEPLOYMENT]):
        report(api, conditions=[late])
        await asyncio.sleep(1)
        assert ready(api, ticket)[:2] == ("False", "ProgressDeadlineExceeded")
        report(api, availableReplicas=1)
        await asyncio.sleep(1)
        assert ready(api, ticket)[0] == "True"


async def test_the_claims_of_a_pod_that_cannot_be_scheduled_are_read(
    api: ModelApi, ticket: ObjectKey
) -> None:
    unbound = "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims."
    scheduled = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": unbound,
    }
    put_pod(
        api,
        volumes=[{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
        conditions=[scheduled],
    )
    async with operator(api, playbook(servers_run), owns=[DEPLOYMENT]):
        report(api)
        await asyncio.sleep(1)
        assert ready(api, ticket)[2].endswith(f"{unbound} PersistentVolumeClaim data does not exist.")
        api.put(PERSISTENT_VOLUME_CLAIM, "data", spec={"storageClassName": "s"}, status={"phase": "Pending"})
        await asyncio.sleep(16)
        assert ready(api, ticket)[1] == "VolumePending"
        assert ready(api, ticket)[2].endswith(
            "claim data of StorageClass s is not bound yet.".replace("claim", "PersistentVolumeClaim")
        )


async def test_without_the_permission_it_shows_the_progress_of_the_rollout(
    api: ModelApi, ticket: ObjectKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = api.pages

    def refusing(resource: Any, **options: Any) -> AsyncGenerator[Any, None]:
        if resource is POD:
            raise Forbidden(403, "Forbidden", 'cannot list resource "pods"')
        return pages(resource, **options)

    monkeypatch.setattr(api, "pages", refusing)
    async with operator(api, playbook(servers_run), owns=[DEPLOYMENT]):
        report(api)
        await asyncio.sleep(1)
        status, reason, message = ready(api, ticket)
        assert (status, reason) == ("False", "RollingOut")
        assert message.startswith("Deployment web: 0 of 1 updated pods are available. ")
        assert 'cannot list resource "pods"' in message
        report(api, availableReplicas=1)
        await asyncio.sleep(1)
        assert ready(api, ticket)[0] == "True"


async def test_pods_of_others_are_not_blamed(api: ModelApi, ticket: ObjectKey) -> None:
    waiting = {"reason": "ErrImagePull", "message": "manifest unknown"}
    status = {"containerStatuses": [{"name": "app", "state": {"waiting": waiting}}]}
    api.put(POD, "stray", metadata={"labels": LABELS}, status=status)
    api.put(POD, "other", metadata={"labels": {"app": "other"}}, status=status)
    async with operator(api, playbook(servers_run), owns=[DEPLOYMENT]):
        report(api)
        await asyncio.sleep(16)
        assert ready(api, ticket)[1] == "RollingOut"
        assert not requests(api, PERSISTENT_VOLUME_CLAIM)
