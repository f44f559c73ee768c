"""The stand-ins for Kubernetes' own controllers, on the model of the API server."""

import asyncio
import math
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from pilothouse.kube import ObjectKey
from pilothouse.playbook import Play, Playbook, Watch, task
from pilothouse.testing import ModelApi, Process, Scenario, explore
from pilothouse.testing.controllers import (
    Built,
    Deployments,
    Jobs,
    Pods,
    StatefulSets,
    Trouble,
    VolumeClaims,
    running,
)
from pilothouse.testing.controllers.jobs import JOB
from pilothouse.testing.controllers.pods import CLAIM, POD
from pilothouse.testing.controllers.workloads import DEPLOYMENT, REPLICA_SET, STATEFUL_SET
from pilothouse.views import DEPLOYMENT as DEPLOYMENT_VIEW
from pilothouse.views import POD as POD_VIEW
from tests.unit.playbook.configured import TicketPlay
from tests.unit.tickets import TICKET

KEY = ObjectKey("default", "web")


def template(image: str = "web:1") -> dict[str, Any]:
    return {
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{"name": "web", "image": image}]},
    }


def workload(replicas: int, image: str = "web:1") -> dict[str, Any]:
    return {
        "replicas": replicas,
        "selector": {"matchLabels": {"app": "web"}},
        "template": template(image),
    }


def conditions(obj: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {each["type"]: (each["status"], each.get("reason", "")) for each in obj["status"]["conditions"]}


def names(model: ModelApi, kind: Any) -> list[str]:
    return sorted(each["metadata"]["name"] for each in model.all(kind))


@pytest.mark.usefixtures("virtual_time")
async def test_a_deployment_is_rolled_out_and_updated(model: ModelApi) -> None:
    async with running(model.another_client(), Deployments(), Pods()):
        model.put(DEPLOYMENT, "web", spec=workload(2))
        await asyncio.sleep(0.5)
        early = model.read(DEPLOYMENT, KEY)
        assert (early["status"]["updatedReplicas"], early["status"]["readyReplicas"]) == (2, 0)
        assert conditions(early)["Available"] == ("False", "MinimumReplicasUnavailable")
        await asyncio.sleep(2)
        done = model.read(DEPLOYMENT, KEY)
        assert done["status"]["readyReplicas"] == done["status"]["replicas"] == 2
        assert conditions(done)["Progressing"] == ("True", "NewReplicaSetAvailable")
        first = names(model, POD)
        model.put(DEPLOYMENT, "web", spec=workload(3, "web:2"))
        await asyncio.sleep(1)
        assert len(names(model, POD)) == 5, "the new Pods are made before the old ones are deleted"
        await asyncio.sleep(2)
        status = model.read(DEPLOYMENT, KEY)["status"]
        assert (status["observedGeneration"], status["readyReplicas"], status["replicas"]) == (2, 3, 3)
        assert not set(first) & set(names(model, POD))
        assert len(model.all(REPLICA_SET)) == 1
        model.put(DEPLOYMENT, "web", spec=workload(1, "web:2"))
        await asyncio.sleep(1)
        assert model.read(DEPLOYMENT, KEY)["status"]["replicas"] == 1
    assert model.calls == []


@pytest.mark.usefixtures("virtual_time")
@pytest.mark.parametrize(
    ("trouble", "phase", "shown"),
    [
        (Trouble.UNSCHEDULABLE, "Pending", "Unschedulable"),
        (Trouble.IMAGE_PULL, "Pending", "ImagePullBackOff"),
        (Trouble.CRASH_LOOP, "Running", "CrashLoopBackOff"),
        (Trouble.UNREADY, "Running", "ContainersNotReady"),
    ],
)
async def test_pods_in_trouble_report_it_and_recover(
    model: ModelApi, trouble: Trouble, phase: str, shown: str
) -> None:
    troubles: list[Trouble | None] = [trouble]
    async with running(model.another_client(), Deployments(), Pods(trouble=lambda pod: troubles[0])):
        model.put(DEPLOYMENT, "web", spec={**workload(1), "progressDeadlineSeconds": 30})
        await asyncio.sleep(20)
        [pod] = model.all(POD)
        assert pod["status"]["phase"] == phase
        assert shown in str(pod["status"])
        assert conditions(model.read(DEPLOYMENT, KEY))["Progressing"] == ("True", "ReplicaSetUpdated")
        await asyncio.sleep(20)
        assert conditions(model.read(DEPLOYMENT, KEY))["Progressing"] == ("False", "ProgressDeadlineExceeded")
        troubles[0] = None
        await asyncio.sleep(10)
        assert conditions(model.all(POD)[0])["Ready"] == ("True", "")
        assert model.read(DEPLOYMENT, KEY)["status"]["readyReplicas"] == 1


@pytest.mark.usefixtures("virtual_time")
async def test_hooks_start_and_stop_what_runs_in_a_pod(model: ModelApi) -> None:
    calls: list[str] = []

    async def start(pod: Built) -> None:
        calls.append(f"start {pod.metadata.name} {pod.status['podIP']}")

    def stop(pod: Built) -> None:
        calls.append(f"stop {pod.metadata.name}")

    async with running(model.another_client(), Pods(on_start=start, on_stop=stop)):
        key = model.put(POD, "member-0", spec=template()["spec"])
        await asyncio.sleep(3)
        address = model.read(POD, key)["status"]["podIP"]
        assert calls == [f"start member-0 {address}"]
        model.remove(POD, key)
        model.put(POD, "member-0", spec=template()["spec"])
        await asyncio.sleep(3)
        assert calls[1:] == ["stop member-0", f"start member-0 {model.read(POD, key)['status']['podIP']}"]
        assert model.read(POD, key)["status"]["podIP"] != address
        never = model.put(POD, "never", spec=template()["spec"])
        await asyncio.sleep(0.1)
        model.remove(POD, never)
        await asyncio.sleep(1)
        assert len(calls) == 3, "a Pod that has not started is not stopped"


@pytest.mark.usefixtures("virtual_time")
async def test_a_stateful_set_is_rolled_out_one_by_one_with_claims(model: ModelApi) -> None:
    claim = {"metadata": {"name": "data"}, "spec": {"resources": {"requests": {"storage": "1Gi"}}}}
    async with running(model.another_client(), StatefulSets(), Pods(), VolumeClaims()):
        model.put(STATEFUL_SET, "web", spec={**workload(3), "volumeClaimTemplates": [claim]})
        await asyncio.sleep(1)
        assert names(model, POD) == ["web-0"]
        await asyncio.sleep(6)
        assert names(model, POD) == ["web-0", "web-1", "web-2"]
        assert names(model, CLAIM) == ["data-web-0", "data-web-1", "data-web-2"]
        assert {each["status"]["phase"] for each in model.all(CLAIM)} == {"Bound"}
        status = model.read(STATEFUL_SET, KEY)["status"]
        assert (status["readyReplicas"], status["currentRevision"]) == (3, status["updateRevision"])
        model.put(STATEFUL_SET, "web", spec={**workload(2, "web:2"), "volumeClaimTemplates": [claim]})
        await asyncio.sleep(1)
        revisions = {
            each["metadata"]["name"]: each["metadata"]["labels"]["controller-revision-hash"]
            for each in model.all(POD)
        }
        updated = model.read(STATEFUL_SET, KEY)["status"]["updateRevision"]
        assert revisions == {"web-0": status["updateRevision"], "web-1": updated}, "the last one comes first"
        await asyncio.sleep(6)
        status = model.read(STATEFUL_SET, KEY)["status"]
        assert (status["replicas"], status["updatedReplicas"], status["readyReplicas"]) == (2, 2, 2)
        assert len(names(model, CLAIM)) == 3


@pytest.mark.usefixtures("virtual_time")
@pytest.mark.parametrize(
    ("failures", "ended", "failed"), [(0, "Complete", 0), (2, "Complete", 2), (math.inf, "Failed", 4)]
)
async def test_a_job_completes_or_fails(model: ModelApi, failures: float, ended: str, failed: int) -> None:
    async with running(model.another_client(), Jobs(failures=lambda job: failures)):
        key = model.put(JOB, "job", spec={"backoffLimit": 3})
        await asyncio.sleep(0.5)
        assert model.read(JOB, key)["status"]["active"] == 1
        await asyncio.sleep(10)
        status = model.read(JOB, key)["status"]
        assert conditions({"status": status})[ended][0] == "True"
        assert (status["failed"], status["active"]) == (failed, 0)


@pytest.mark.usefixtures("virtual_time")
async def test_a_claim_that_is_stuck_stays_pending(model: ModelApi) -> None:
    async with running(model.another_client(), VolumeClaims(stuck=lambda claim: True)):
        key = model.put(CLAIM, "data", spec={})
        await asyncio.sleep(10)
        assert model.read(CLAIM, key)["status"] == {"phase": "Pending"}


@task("the Deployment is rolled out")
async def roll_out(play: TicketPlay) -> None:
    deployment = await play.apply(DEPLOYMENT_VIEW, {"spec": workload(play.object.spec.seats)})
    play.wait_for("the Deployment is ready", deployment.status.ready_replicas == play.object.spec.seats)


class Deployed(Scenario):
    """A ticket for which a Deployment is rolled out."""

    controllers = (Deployments(), Pods())

    def watches(self, process: Process) -> Sequence[Watch]:
        return [Watch(TICKET, Playbook(Play, tasks=[roll_out]), owns=[DEPLOYMENT_VIEW])]

    def play(self, user: ModelApi) -> Iterator[str | float]:
        key = user.put(TICKET, "web", spec={"seats": 2})
        yield "rolled out"
        assert user.read(TICKET, key)["status"]["conditions"][0]["status"] == "True"
        user.put(TICKET, "web", spec={"seats": 1})
        yield "scaled"
        user.remove(TICKET, key)
        yield "deleted"
        assert user.all(POD_VIEW) == []


def test_a_scenario_can_have_stand_ins() -> None:
    explore(Deployed).require_converged()
