"""Every fault at every call of the modules leads to the same objects."""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from pilothouse.kube import EventType, ObjectKey, Resource
from pilothouse.kube.subresources import PODS as POD
from pilothouse.playbook import (
    Group,
    Plan,
    Play,
    Playbook,
    Secondary,
    Task,
    Watch,
    child_name,
    task,
)
from pilothouse.playbook.jobs import job_manifest
from pilothouse.testing import Fault, FaultMatrix, Json, ModelApi, Process, Scenario, explore
from pilothouse.testing.controllers import Deployments, Jobs, Pods, StandIn
from pilothouse.views import JOB
from tests.unit.playbook.configured import CONFIG_MAP, DEPLOYMENT, OWNS, SECRET, TicketPlay, owned_by
from tests.unit.tickets import TICKET


def seats(play: TicketPlay) -> str:
    return str(play.object.spec.seats)


@task("the config is as the spec asks")
async def configure(play: TicketPlay) -> None:
    await play.apply(CONFIG_MAP, {"data": {"seats": seats(play)}})


@task("the password is there")
async def keep_secret(play: TicketPlay) -> None:
    name = child_name(play.object.metadata.name, "password")
    await play.apply(SECRET, {"metadata": {"name": name}, "data": {"password": "aHVudGVyMg=="}})


@task("many seats need a guard")
async def guard(play: TicketPlay) -> None:
    name = child_name(play.object.metadata.name, "guard")
    if play.object.spec.seats > 2:
        await play.apply(CONFIG_MAP, {"metadata": {"name": name}})
    else:
        await play.delete(CONFIG_MAP, name)


@task("the seats are migrated")
async def migrate(play: TicketPlay) -> None:
    await play.run_job({"spec": {"seats": seats(play)}})


@task("the Deployment is rolled out")
async def roll_out(play: TicketPlay) -> None:
    deployment = await play.apply(DEPLOYMENT, {"spec": {"replicas": play.object.spec.seats}})
    rolled_out = deployment.status.get("replicas") == play.object.spec.seats
    play.wait_for("the Deployment is rolled out", rolled_out)


def is_migrated(play: TicketPlay) -> bool:
    """Returns whether the Deployment has the seats already."""
    deployment = play.get(DEPLOYMENT, play.object.metadata.name)
    return deployment is not None and deployment.spec.get("replicas") == play.object.spec.seats


PREPARE = Group("prepare", [configure, keep_secret, guard], parallel=True)
DEPLOY = Plan("deploy", [migrate], when=lambda play: not is_migrated(play))


def playbook(*tasks: Task[TicketPlay] | Group[TicketPlay]) -> Playbook[TicketPlay]:
    return Playbook(Play, tasks=tasks)


class Deployed(Scenario):
    """A ticket that keeps a few objects."""

    controllers: Sequence[StandIn] = (Jobs(), Deployments(), Pods())
    tasks: tuple[Any, ...] = (PREPARE, DEPLOY, roll_out)
    kinds: Sequence[Resource[Any]] = (TICKET, *OWNS)

    def __init__(self) -> None:
        self._user: ModelApi | None = None

    def watches(self, process: Process) -> Sequence[Watch]:
        return [Watch(TICKET, playbook(*self.tasks), resync=60, owns=OWNS)]

    def effects(self) -> Sequence[str]:
        """The objects created, deleted or changed: a Job that runs again does its work twice."""
        if self._user is None:
            return ()
        return [
            f"{change.type} {resource} {change.object['metadata']['name']} {change.object.get('spec', '')}"
            for resource in self.kinds
            for change in self._user.server.collection(resource).history
            if change.type is not EventType.MODIFIED or _spec(change.before) != _spec(change.object)
        ]

    def play(self, user: ModelApi) -> Iterator[str | float]:
        self._user = user
        key = ObjectKey("default", "my-ticket")
        user.put(TICKET, key.name, spec={"seats": 3})
        yield "seats are asked for, migrated and rolled out"
        conditions = user.read(TICKET, key)["status"]["conditions"]
        assert [each["status"] for each in conditions] == ["True"]
        user.put(TICKET, key.name, spec={"seats": 2})
        yield "fewer seats are asked for"

    def state(self, api: ModelApi) -> object:
        """The part that matters to the user: an object that a repeated reconcile created again is as good."""
        return {
            str(resource): sorted((_content(each) for each in api.all(resource)), key=str)
            for resource in self.kinds
        }


def _spec(obj: Json | None) -> object:
    return obj.get("spec") if obj else None


def _content(obj: Json) -> Json:
    status = {name: value for name, value in obj.get("status", {}).items() if not name.endswith("Time")}
    conditions = [(each["type"], each["status"], each.get("reason")) for each in status.get("conditions", [])]
    return {
        "name": obj["metadata"]["name"],
        **{name: obj[name] for name in ("data", "spec") if name in obj},
        "status": {**status, "conditions": conditions},
    }


def suffered(matrix: FaultMatrix) -> set[Fault]:
    return {injection.fault for run in matrix.runs for injection in run.struck}


def test_every_fault_at_every_call_leads_to_the_same_objects() -> None:
    matrix = explore(Deployed)
    matrix.require_converged()
    assert suffered(matrix) == set(Fault)
    # ConfigMaps, Secret, Job, Deployment, statuses; again with fewer seats, and the guard's deletion.
    assert len(matrix.sites) >= 12


@task("the Deployment has the seats")
async def scale(play: TicketPlay) -> None:
    await play.scale(DEPLOYMENT, "web", play.object.spec.seats)


@task("no pod has other seats")
async def evict(play: TicketPlay) -> None:
    pod = play.get(POD, "web-1")
    if pod is not None and pod.metadata.labels.get("seats") != seats(play):
        await play.evict(POD, "web-1")


class Scaled(Deployed):
    """A ticket that scales a Deployment of others, and evicts their pod, which the user creates again."""

    tasks = (scale, evict)
    kinds = (TICKET, DEPLOYMENT, POD)
    controllers = ()

    def watches(self, process: Process) -> Sequence[Watch]:
        others = [
            Secondary(each, lambda _, stores: [ObjectKey("default", "my-ticket")])
            for each in (DEPLOYMENT, POD)
        ]
        return [Watch(TICKET, playbook(*self.tasks), resync=60, watches=others)]

    def play(self, user: ModelApi) -> Iterator[str | float]:
        self._user = user
        owned = owned_by(user, user.put(TICKET, "my-ticket", spec={"seats": 2}))
        user.put(DEPLOYMENT, "web", spec={"replicas": 1}, metadata=owned)
        user.put(POD, "web-1", metadata={"labels": {"seats": "1"}, **owned})
        yield "it is scaled, and the pod is gone"
        assert not user.all(POD)
        user.put(POD, "web-1", metadata={"labels": {"seats": "2"}, **owned})
        yield "another pod has the name"
        user.put(TICKET, "my-ticket", spec={"seats": 3})
        yield "it is scaled again, and that pod is gone, too"


def test_every_fault_at_every_call_scales_and_evicts_only_once() -> None:
    matrix = explore(Scaled)
    matrix.require_converged()
    assert suffered(matrix) == set(Fault)
    called = [site.what for site in matrix.sites]
    assert called.count("patch deployments.apps/scale default/web") == 2
    assert called.count("POST /api/v1/namespaces/default/pods/web-1/eviction") == 2


class Claimed(Deployed):
    """A ticket that claims a number, creates an object with that number in its name, and patches it."""

    kinds = (TICKET, CONFIG_MAP)

    def watches(self, process: Process) -> Sequence[Watch]:
        @task("a number is claimed")
        async def claim(play: TicketPlay) -> None:
            if not play.status.booking:
                # Another process would claim another number, so the claim must be stored before it is used.
                await play.record(replace(play.status, booking=f"number-{process.number}"))

        @task("the number is taken")
        async def take(play: TicketPlay) -> None:
            name = play.status.booking
            if play.get(CONFIG_MAP, name) is None:
                await play.create(CONFIG_MAP, {"metadata": {"name": name}, "data": {"seats": "0"}})

        @task("the seats are noted")
        async def note(play: TicketPlay) -> None:
            await play.patch(CONFIG_MAP, play.status.booking, {"data": {"seats": seats(play)}})
            if play.task_result.diff:
                found = await play.read(CONFIG_MAP, play.status.booking)
                assert found is not None

        return [Watch(TICKET, playbook(claim, take, note), resync=60, owns=OWNS)]

    def effects(self) -> Sequence[str]:
        return [re.sub("number-[0-9]+", "number", each) for each in super().effects()]

    def state(self, api: ModelApi) -> object:
        numbers = [each["metadata"]["name"] for each in api.all(CONFIG_MAP)]
        claimed = [each["status"]["booking"] for each in api.all(TICKET)]
        assert numbers == claimed, "exactly the claimed objects were created"
        return re.sub("number-[0-9]+", "number", json.dumps(super().state(api), sort_keys=True))

    def play(self, user: ModelApi) -> Iterator[str | float]:
        self._user = user
        user.put(TICKET, "my-ticket", spec={"seats": 2})
        yield "a number is taken"
        user.put(TICKET, "my-ticket", spec={"seats": 3})
        yield "other seats are noted"


def test_every_fault_at_every_call_claims_creates_and_patches_only_once() -> None:
    matrix = explore(Claimed)
    matrix.require_converged()
    assert suffered(matrix) == set(Fault)
    called = [site.what.split()[0] + " " + site.what.split()[1] for site in matrix.sites]
    assert called.count("patch configmaps") == 3, "created, and patched twice"
    assert "patch tickets.tests.dev/status" in called


class Retained(Deployed):
    """A ticket with data that outlives it until the cleanup deletes the data."""

    kinds = (TICKET, CONFIG_MAP)

    def watches(self, process: Process) -> Sequence[Watch]:
        @task("the data is there")
        async def keep(play: TicketPlay) -> None:
            body = {"metadata": {"name": "data", "namespace": "elsewhere"}, "data": {"seats": seats(play)}}
            await play.apply(CONFIG_MAP, body, owned=False)

        @task("the data is gone")
        async def clean(play: TicketPlay) -> None:
            for each in play.owned(CONFIG_MAP):
                name, namespace = each.metadata.name, each.metadata.namespace
                gone = await play.delete(CONFIG_MAP, name, namespace=namespace)
                play.wait_for("the data is gone", gone)

        book: Playbook[TicketPlay] = Playbook(Play, tasks=[keep], cleanup=[clean], finalizer="tests.dev/data")
        return [Watch(TICKET, book, resync=60, owns=OWNS)]

    def play(self, user: ModelApi) -> Iterator[str | float]:
        self._user = user
        user.put(CONFIG_MAP, "theirs", namespace="elsewhere")
        key = user.put(TICKET, "my-ticket", spec={"seats": 2})
        yield "the data is there"
        user.remove(TICKET, key)
        yield "it is gone, and the object of others is not"
        assert [each["metadata"]["name"] for each in user.all(CONFIG_MAP)] == ["theirs"]
        assert not user.exists(TICKET, key)


def test_every_fault_at_every_call_deletes_what_outlives_its_owner() -> None:
    matrix = explore(Retained)
    matrix.require_converged()
    assert suffered(matrix) == set(Fault)


class Careless(Deployed):
    """The planted defect: a name that only the process that invented it knows."""

    def watches(self, process: Process) -> Sequence[Watch]:
        name = f"config-{process.number}"

        @task("the config is as the spec asks")
        async def make(play: TicketPlay) -> None:
            await play.apply(CONFIG_MAP, {"metadata": {"name": name}})

        return [Watch(TICKET, playbook(make), owns=OWNS)]

    def play(self, user: ModelApi) -> Iterator[str | float]:
        self._user = user
        user.put(TICKET, "my-ticket", spec={"seats": 2})
        yield "it is applied"


def test_a_playbook_whose_names_change_is_detected() -> None:
    with pytest.raises(AssertionError, match="runs failed"):
        explore(Careless, faults=[Fault.KILLED_AFTER]).require_converged()


class Forgetful(Deployed):
    """The planted defect: each process runs the Job again, because it does not know that it has run."""

    def watches(self, process: Process) -> Sequence[Watch]:
        done = False

        @task("the seats are migrated")
        async def migrate_anew(play: TicketPlay) -> None:
            nonlocal done
            body = {"spec": {"seats": seats(play)}}
            if not done:
                await play.delete(JOB, job_manifest(body, "my-ticket")["metadata"]["name"])
            done = True
            await play.run_job(body)

        return [Watch(TICKET, playbook(migrate_anew), owns=OWNS)]

    def play(self, user: ModelApi) -> Iterator[str | float]:
        self._user = user
        user.put(TICKET, "my-ticket", spec={"seats": 2})
        yield "the job runs"


def test_a_playbook_that_runs_a_job_twice_is_detected() -> None:
    with pytest.raises(AssertionError, match=r"happened too often\.\s[\s\S]*jobs\.batch"):
        explore(Forgetful, faults=[Fault.KILLED_AFTER]).require_converged()
