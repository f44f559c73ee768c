"""A playbook that runs a Job and reads its pod's log, on a node with a kubelet."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from pilothouse.kube import Client, NotFound, ObjectKey, PartialObjectMetadata, Resource
from pilothouse.playbook import Playbook, Secondary, Stores, Watch, add_watch
from pilothouse.process import Manager, Settings
from pilothouse.testing import eventually, objects
from pilothouse.views import JOB
from tests.api.tickets import CRD
from tests.api.widgets import install
from tests.cluster.flights import NAMESPACE, Flights
from tests.cluster.load import open_client
from tests.running import running
from tests.unit.playbook.configured import TicketPlay, playbook
from tests.unit.tickets import TICKET, Ticket

pytestmark = pytest.mark.timeout(300)

POD = Resource("", "v1", "Pod", "pods", PartialObjectMetadata)
# The label that the Job controller sets on the pods of a Job (batch/v1).
JOB_NAME = "batch.kubernetes.io/job-name"
TICKET_NAME = "tests.dev/ticket"
KEY = ObjectKey(NAMESPACE, "counts")


def tickets_of(pod: PartialObjectMetadata, stores: Stores) -> Sequence[ObjectKey]:
    """Maps a pod to its ticket by label, because the pod's owner is the Job."""
    name = pod.metadata.labels.get(TICKET_NAME)
    return [ObjectKey(pod.metadata.namespace, name)] if name else []


def job_names_of(pod: PartialObjectMetadata) -> Sequence[str]:
    return [pod.metadata.labels.get(JOB_NAME, "")]


def counting(image: str) -> Playbook[TicketPlay]:
    """Returns a playbook whose Job counts a ticket's seats. The Job's output goes to the status."""

    async def seats_are_counted(play: TicketPlay) -> None:
        container = {
            "name": "count",
            "image": image,
            "command": ["python3", "-c", f"print('counted', {play.object.spec.seats} + 0)"],
        }
        template = {
            "metadata": {"labels": {TICKET_NAME: play.object.metadata.name}},
            "spec": {"restartPolicy": "Never", "containers": [container]},
        }
        labels = template["metadata"]
        job = await play.run_job({"metadata": labels, "spec": {"template": template, "backoffLimit": 0}})
        pods = play.list(POD, "job", job.metadata.name)
        play.wait_for("the Job's pod is known", bool(pods))
        play.ready_message = (await play.pod_log(pods[0].metadata.name, container="count")).strip()

    return playbook(seats_are_counted)


@asynccontextmanager
async def operator(client: Client, book: Playbook[Any]) -> AsyncIterator[None]:
    """Runs an operator on this host while the block runs."""
    settings = Settings(watch_namespaces=(NAMESPACE,), health_host="127.0.0.1", health_port=0)
    manager = Manager("tickets", settings, client)
    pods = Secondary(POD, mapper=tickets_of, selector=TICKET_NAME, indexes={"job": job_names_of})
    add_watch(manager, Watch(TICKET, book, owns=[JOB], watches=[pods]))
    async with running(manager):
        yield


@asynccontextmanager
async def ticket(flights: Flights, client: Client) -> AsyncIterator[str]:
    """Creates a ticket for three seats and yields its UID. Deletes everything afterwards."""
    await install(client, CRD)
    with suppress(NotFound):
        await client.delete(TICKET, KEY)
    body = {
        "apiVersion": TICKET.api_version,
        "kind": TICKET.kind,
        "metadata": {"name": KEY.name},
        "spec": {"seats": 3},
    }
    made = await client.create(TICKET, body, namespace=NAMESPACE)
    try:
        yield made.metadata.uid
    finally:
        # The garbage collector discovers a new kind within half a minute, too late for these objects.
        flights.kubectl("delete", "job", "-l", TICKET_NAME, "-n", NAMESPACE, "--wait=false")
        flights.kubectl("delete", "crd", str(TICKET), "--timeout=30s")


async def test_a_job_runs_to_its_end_once_and_its_pods_log_is_read(flights: Flights) -> None:
    async with await open_client(flights.kubectl.kubeconfig) as client, ticket(flights, client) as uid:

        async def counted() -> bool:
            found: Ticket = await client.get(TICKET, KEY)
            return any(
                (each.type, each.status, each.message) == ("Ready", "True", "counted 3")
                for each in found.status.conditions
            )

        async with operator(client, counting(flights.published.operator)):
            await eventually(counted, within=60, describe=objects(client, TICKET, NAMESPACE))
        jobs = flights.kubectl.read("jobs", "-n", NAMESPACE, "-l", TICKET_NAME)["items"]
        ours = [job for job in jobs if job["metadata"]["ownerReferences"][0]["uid"] == uid]
        assert [job["status"]["succeeded"] for job in ours] == [1]
