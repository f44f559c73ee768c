"""Modules that act on other objects: apply, delete, scale, evict, wait_for, run_job, and reads."""

import asyncio
import logging
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from pilothouse.cli.by_hand import Hand
from pilothouse.controller import Fence, Fenced, FencedApi
from pilothouse.controller.events import EVENT
from pilothouse.kube import (
    Conflict,
    Forbidden,
    ObjectKey,
    PatchType,
    TooManyRequests,
    Unreachable,
    scale_of,
)
from pilothouse.kube import evict as evict_pod
from pilothouse.playbook import Play, Playbook, Secondary, TaskFailed, Watch, task
from pilothouse.process import Settings
from pilothouse.testing import Call, ModelApi
from pilothouse.views import JOB
from tests.unit.operators import operating
from tests.unit.playbook.configured import (
    CONFIG_MAP,
    DEPLOYMENT,
    POD,
    SECRET,
    SERVICE,
    Function,
    TicketPlay,
    operator,
    owned_by,
    playbook,
    ready,
    requests,
)
from tests.unit.tickets import TICKET

pytestmark = pytest.mark.usefixtures("virtual_time")


@pytest.fixture
def config_map(ticket: ObjectKey) -> ObjectKey:
    """The ConfigMap that the ticket's play applies."""
    return ticket


async def seats_are_noted(play: TicketPlay) -> None:
    await play.apply(CONFIG_MAP, {"data": {"seats": str(play.object.spec.seats)}})


async def test_an_object_is_created_with_its_owners_name_and_reference(
    api: ModelApi, ticket: ObjectKey
) -> None:
    async with operator(api, playbook(seats_are_noted)):
        made = api.read(CONFIG_MAP, ticket)
        assert made["data"] == {"seats": "2"}
        [owner] = made["metadata"]["ownerReferences"]
        assert owner == {
            "apiVersion": "tests.dev/v1",
            "kind": "Ticket",
            "name": "my-ticket",
            "uid": api.read(TICKET, ticket)["metadata"]["uid"],
            "controller": True,
            "blockOwnerDeletion": True,
        }
        assert [call.verb for call in requests(api, CONFIG_MAP)] == ["get", "patch"]
        assert ready(api, ticket)[0] == "True"


async def test_an_object_that_matches_costs_one_read_after_a_restart(
    api: ModelApi, ticket: ObjectKey, caplog: pytest.LogCaptureFixture
) -> None:
    async with operator(api, playbook(seats_are_noted), resync=10):
        await asyncio.sleep(100)
        assert [call.verb for call in requests(api, CONFIG_MAP)] == ["get", "patch"]
    api.calls.clear()
    caplog.set_level(logging.INFO)
    async with operator(api, playbook(seats_are_noted), resync=10):
        await asyncio.sleep(100)
    assert [call.verb for call in requests(api, CONFIG_MAP)] == ["get"]
    assert not [record for record in caplog.records if "change ConfigMap" in record.getMessage()]


async def test_a_change_by_another_client_is_corrected_and_reported_by_field(
    api: ModelApi, ticket: ObjectKey, config_map: ObjectKey
) -> None:
    diffs: list[str] = []

    async def reported(play: TicketPlay) -> None:
        await seats_are_noted(play)
        diffs.extend(play.task_result.diff)

    async with operator(api, playbook(reported)):
        api.put(CONFIG_MAP, config_map.name, data={"seats": "7", "theirs": "stays"})
        await asyncio.sleep(1)
        assert api.read(CONFIG_MAP, config_map)["data"] == {"seats": "2", "theirs": "stays"}
    assert diffs == ["+ data.seats: 2", "data.seats: 7 -> 2"]


async def test_a_field_dropped_from_the_manifest_is_removed(api: ModelApi, ticket: ObjectKey) -> None:
    stated = {"a": "1", "b": "2"}

    async def state(play: TicketPlay) -> None:
        await play.apply(CONFIG_MAP, {"data": dict(stated)})

    async with operator(api, playbook(state), resync=10):
        del stated["b"]
        await asyncio.sleep(20)
        assert api.read(CONFIG_MAP, ticket)["data"] == {"a": "1"}


async def test_a_key_dropped_from_string_data_is_removed(api: ModelApi, ticket: ObjectKey) -> None:
    stated = {"a": "1", "b": "2"}

    async def state(play: TicketPlay) -> None:
        await play.apply(SECRET, {"stringData": dict(stated)})

    async with operator(api, playbook(state), resync=10):
        assert api.read(SECRET, ticket)["data"] == {"a": "MQ==", "b": "Mg=="}
        del stated["b"]
        await asyncio.sleep(20)
        assert api.read(SECRET, ticket)["data"] == {"a": "MQ=="}
        asked = len(requests(api, SECRET))
        await asyncio.sleep(60)
        assert len(requests(api, SECRET)) == asked, "a settled object costs no request"


async def test_a_key_dropped_from_an_atomic_map_is_removed(api: ModelApi, ticket: ObjectKey) -> None:
    selector = {"app": "web", "tier": "front"}
    diffs: list[str] = []

    async def serve(play: TicketPlay) -> None:
        await play.apply(SERVICE, {"spec": {"selector": dict(selector)}})
        diffs.extend(play.task_result.diff)

    async with operator(api, playbook(serve), watches=[Secondary(SERVICE)], resync=10):
        diffs.clear()
        del selector["tier"]
        await asyncio.sleep(60)
        assert api.read(SERVICE, ticket)["spec"]["selector"] == {"app": "web"}
        assert diffs == ["- spec.selector.tier: front"]
        # A client that changes a part of it owns the whole.
        body = {"spec": {"selector": {"theirs": "z"}}}
        await api.patch(SERVICE, ticket, body, type=PatchType.MERGE, field_manager="another")
        await asyncio.sleep(1)
        assert api.read(SERVICE, ticket)["spec"]["selector"] == {"app": "web"}
        assert diffs[1:] == ["- spec.selector.theirs: z"]
        asked = len(requests(api, SERVICE))
        await asyncio.sleep(60)
        assert len(requests(api, SERVICE)) == asked


async def test_check_mode_finds_the_changes_of_an_apply_by_a_dry_run(
    api: ModelApi, ticket: ObjectKey
) -> None:
    stated = {"app": "web", "tier": "front"}

    async def serve(play: TicketPlay) -> None:
        await play.apply(SERVICE, {"spec": {"selector": dict(stated)}})
        await play.apply(CONFIG_MAP, {})

    watch = Watch(TICKET, playbook(serve), owns=[SERVICE, CONFIG_MAP])

    async def reported() -> list[str]:
        played = await Hand("tickets", Settings(), api).check(watch, ticket)
        return [line for result in played.recap.results for line in result.diff]

    assert await reported() == [
        "+ spec.selector.app: web",
        "+ spec.selector.tier: front",
        "+ ConfigMap default/my-ticket",
    ]
    async with operator(api, playbook(serve), watches=[Secondary(SERVICE)]):
        assert await reported() == []
    made = api.read(SERVICE, ticket)
    del stated["tier"]
    api.calls.clear()
    assert await reported() == ["- spec.selector.tier: front"]
    assert [call.dry_run for call in api.calls if call.verb == "patch"] == [True]
    assert api.writes == []
    assert api.read(SERVICE, ticket) == made


async def test_a_status_that_grows_causes_no_read(api: ModelApi, ticket: ObjectKey) -> None:
    plays = 0

    async def deploy(play: TicketPlay) -> None:
        nonlocal plays
        plays += 1
        await play.apply(DEPLOYMENT, {"spec": {"replicas": 1}})

    async with operator(api, playbook(deploy)):
        api.put(DEPLOYMENT, ticket.name, status={"readyReplicas": 0})
        await asyncio.sleep(1)
        asked = len(requests(api, DEPLOYMENT))
        before = plays
        for count in range(1, 5):
            api.put(DEPLOYMENT, ticket.name, status={"readyReplicas": count})
            await asyncio.sleep(1)
        assert plays >= before + 4
        assert len(requests(api, DEPLOYMENT)) == asked


async def test_an_object_of_another_client_is_not_changed(api: ModelApi, ticket: ObjectKey) -> None:
    api.put(CONFIG_MAP, ticket.name, data={"mine": "yes"})
    async with operator(api, playbook(seats_are_noted)):
        assert api.read(CONFIG_MAP, ticket)["data"] == {"mine": "yes"}
        status, reason, message = ready(api, ticket)
        assert (status, reason) == ("False", "NameTaken")
        assert "already exists and is not managed by any object" in message


LABELLED: dict[str, Any] = {"metadata": {"labels": {"app": "web"}}, "data": {"seats": "2"}}


@asynccontextmanager
async def selecting(
    api: ModelApi, function: Function, *, namespaces: tuple[str, ...] = ()
) -> AsyncIterator[None]:
    """An operator that sees only the ConfigMaps of an app."""
    config_maps = Secondary(CONFIG_MAP, selector="app=web")
    watch = Watch(TICKET, playbook(function), resync=10, watches=[config_maps])
    async with operating(api, watch, watch_namespaces=namespaces):
        yield


async def test_an_object_that_the_selector_excludes_is_not_taken_over(
    api: ModelApi, ticket: ObjectKey
) -> None:
    async def note(play: TicketPlay) -> None:
        await play.apply(CONFIG_MAP, LABELLED)

    api.put(CONFIG_MAP, ticket.name, data={"mine": "yes"})
    async with selecting(api, note):
        assert ready(api, ticket)[1] == "NameTaken"
        assert api.read(CONFIG_MAP, ticket)["data"] == {"mine": "yes"}


@pytest.mark.parametrize("data", [{"seats": "99"}, {"other": "99"}, {"seats": "2"}, {}])
@pytest.mark.parametrize("owned", [True, False])
async def test_an_object_created_by_another_client_at_the_same_moment_is_not_taken_over(
    api: ModelApi, ticket: ObjectKey, data: dict[str, str], *, owned: bool
) -> None:
    async def be_faster(call: Call) -> None:
        if call.resource == str(CONFIG_MAP) and call.writes and not api.exists(CONFIG_MAP, call.key):
            api.put(CONFIG_MAP, call.key.name, data=data)

    async def note(play: TicketPlay) -> None:
        await play.apply(CONFIG_MAP, {"data": {"seats": "2"}}, owned=owned)

    api.before = be_faster
    async with operator(api, playbook(note)):
        assert ready(api, ticket)[1] == "NameTaken"
        found = api.read(CONFIG_MAP, ticket)
        assert found["data"] == data
        assert not {"ownerReferences", "annotations"} & found["metadata"].keys()
        assert {each["manager"] for each in found["metadata"].get("managedFields", ())} <= {"user"}


async def test_an_object_created_by_another_client_at_the_same_moment_is_adopted(
    api: ModelApi, ticket: ObjectKey
) -> None:
    async def be_faster(call: Call) -> None:
        if call.resource == str(CONFIG_MAP) and call.writes and not api.exists(CONFIG_MAP, call.key):
            api.put(CONFIG_MAP, call.key.name, data={"seats": "99", "other": "1"})

    async def note(play: TicketPlay) -> None:
        await play.apply(CONFIG_MAP, {"data": {"seats": "2"}}, adopt=True)

    api.before = be_faster
    async with operator(api, playbook(note)):
        assert ready(api, ticket)[0] == "True"
        assert api.read(CONFIG_MAP, ticket)["data"] == {"seats": "2", "other": "1"}


async def forbid_elsewhere(call: Call) -> None:
    """Refuses reads outside the watched namespaces, as a Role does."""
    if call.key.namespace == "elsewhere":
        raise Forbidden(403, "Forbidden", "no")


async def test_an_object_that_the_watch_would_exclude_is_not_applied(
    api: ModelApi, ticket: ObjectKey
) -> None:
    labels = {"app": "db"}
    far = "default"

    async def note(play: TicketPlay) -> None:
        await play.apply(CONFIG_MAP, {"metadata": {"labels": labels, "namespace": far}}, owned=False)

    async with selecting(api, note, namespaces=("default",)):
        _, reason, message = ready(api, ticket)
        assert reason == "NotSelected"
        assert "the watch selects 'app=web'" in message
        assert "{'app': 'db'}" in message
        labels["app"], far = "web", "elsewhere"
        api.before = forbid_elsewhere
        await asyncio.sleep(30)
        assert "watches only the namespaces default" in ready(api, ticket)[2]
        assert api.all(CONFIG_MAP) == []
        far = "default"
        await asyncio.sleep(60)
        assert ready(api, ticket)[0] == "True"
        assert len(api.all(CONFIG_MAP)) == 1


@pytest.mark.parametrize("anothers", [False, True])
async def test_an_object_deleted_around_the_read_is_created_again_without_a_failure(
    api: ModelApi, ticket: ObjectKey, anothers: bool
) -> None:
    """It is deleted just before the read, or just after it, when another object has taken the name."""
    verb = "patch" if anothers else "get"
    gone = False

    async def delete(call: Call) -> None:
        nonlocal gone
        if (call.verb, call.resource) == (verb, str(CONFIG_MAP)) and not gone:
            gone = True
            api.remove(CONFIG_MAP, ticket)
            if anothers:
                api.put(CONFIG_MAP, ticket.name, metadata=dict(made["metadata"], uid="another"))

    reasons: list[str] = []

    async def note_reasons(call: Call) -> None:
        if call.subresource == "status":
            reasons.extend(each["reason"] for each in call.body["status"].get("conditions", ()))

    async with operator(api, playbook(seats_are_noted)):
        made = api.read(CONFIG_MAP, ticket)
        api.before, api.after = delete, note_reasons
        api.put(TICKET, ticket.name, spec={"seats": 3})
        await asyncio.sleep(20)
        assert gone
        assert api.read(CONFIG_MAP, ticket)["data"] == {"seats": "3"}
        assert set(reasons) == {"Reconciled"}
        assert api.all(EVENT) == []


async def test_adopt_takes_an_object_over(api: ModelApi, ticket: ObjectKey) -> None:
    async def adopt(play: TicketPlay) -> None:
        await play.apply(CONFIG_MAP, {"data": {"ours": "too"}}, adopt=True)

    api.put(CONFIG_MAP, ticket.name, data={"mine": "yes"})
    async with operator(api, playbook(adopt)):
        obj = api.read(CONFIG_MAP, ticket)
        assert obj["data"] == {"mine": "yes", "ours": "too"}
        assert obj["metadata"]["ownerReferences"]


async def test_without_force_another_managers_field_is_a_failure_that_names_it(
    api: ModelApi, ticket: ObjectKey
) -> None:
    async def polite(play: TicketPlay) -> None:
        await play.apply(CONFIG_MAP, {"data": {"seats": "2"}}, adopt=True, force=False)

    api.put(CONFIG_MAP, ticket.name, data={"seats": "9"})
    async with operator(api, playbook(polite)):
        status, reason, message = ready(api, ticket)
        assert (status, reason) == ("False", "FieldConflict")
        assert "data.seats" in message
        assert len(requests(api, CONFIG_MAP)) < 20, "the operator retries with back-off"


async def test_a_secrets_values_are_never_shown(
    api: ModelApi, ticket: ObjectKey, caplog: pytest.LogCaptureFixture
) -> None:
    value = "aHVudGVyMg=="
    shown: list[str] = []

    async def secret(play: TicketPlay) -> None:
        await play.apply(SECRET, {"data": {"password": value}})
        shown.extend(play.task_result.diff)
        shown.append(play.task_result.message)

    caplog.set_level(logging.DEBUG)
    async with operator(api, playbook(secret)):
        api.put(SECRET, ticket.name, data={"password": "b3RoZXI="})
        await asyncio.sleep(1)
    assert shown[0] == "+ data.password: (hidden)"
    assert "data.password: (hidden) -> (hidden)" in shown
    reported = [*shown, caplog.text, str(api.all(EVENT)), str(api.read(TICKET, ticket))]
    assert not [each for each in reported if value in each or "b3RoZXI=" in each]


async def test_a_kind_that_the_watch_does_not_declare_is_reported(
    api: ModelApi, ticket: ObjectKey, caplog: pytest.LogCaptureFixture
) -> None:
    async def undeclared(play: TicketPlay) -> None:
        await play.apply(replace(CONFIG_MAP, kind="Pod", plural="pods"), {})

    async with operator(api, playbook(undeclared)):
        assert ready(api, ticket)[1] == "UnexpectedError"
        assert "does not declare pods: add it to `owns` or `watches`" in caplog.text


async def test_an_owner_in_another_namespace_needs_owned_false(api: ModelApi, ticket: ObjectKey) -> None:
    body = {"metadata": {"name": "far", "namespace": "elsewhere"}, "data": {"a": "b"}}
    owned = True

    async def far(play: TicketPlay) -> None:
        await play.apply(CONFIG_MAP, body, owned=owned)

    async with operator(api, playbook(far), resync=10):
        assert ready(api, ticket)[1] == "UnexpectedError"
        owned = False
        await asyncio.sleep(60)
        made = api.read(CONFIG_MAP, ObjectKey("elsewhere", "far"))
        assert "ownerReferences" not in made["metadata"]
        assert ready(api, ticket)[0] == "True"


async def test_an_object_is_deleted_once_and_exactly_that_one(api: ModelApi, ticket: ObjectKey) -> None:
    gone = []

    async def none_is_left(play: TicketPlay) -> None:
        gone.append(await play.delete(CONFIG_MAP, "old"))

    old = api.put(CONFIG_MAP, "old", metadata={"finalizers": ["tests.dev/slow"], **owned_by(api, ticket)})
    async with operator(api, playbook(none_is_left), resync=10):
        await asyncio.sleep(60)
        [call] = requests(api, CONFIG_MAP)
        assert (call.verb, call.key) == ("delete", old)
        assert not gone[-1], "its finalizer keeps it"
        api.put(CONFIG_MAP, "old", metadata={"finalizers": []})
        api.remove(CONFIG_MAP, old)
        await asyncio.sleep(60)
        assert gone[-1]
        assert len(requests(api, CONFIG_MAP)) == 1


async def test_another_object_with_the_name_of_the_one_that_was_seen_is_not_deleted(
    api: ModelApi, ticket: ObjectKey
) -> None:
    async def take_the_name(call: Call) -> None:
        if call.verb == "delete" and not api.read(CONFIG_MAP, call.key).get("data"):
            api.remove(CONFIG_MAP, call.key)
            api.put(CONFIG_MAP, call.key.name, data={"new": "one"})

    async def none_is_left(play: TicketPlay) -> None:
        config_map = play.get(CONFIG_MAP, "old")
        if config_map is not None and not config_map.data:
            await play.delete(CONFIG_MAP, "old")

    old = api.put(CONFIG_MAP, "old", metadata=owned_by(api, ticket))
    api.before = take_the_name
    async with operator(api, playbook(none_is_left)):
        await asyncio.sleep(10)
        assert api.read(CONFIG_MAP, old)["data"] == {"new": "one"}
        assert ready(api, ticket)[0] == "True"
        assert api.all(EVENT) == []


async def test_a_wait_does_not_fail_and_the_watch_ends_it(
    api: ModelApi, ticket: ObjectKey, caplog: pytest.LogCaptureFixture
) -> None:
    async def deployed(play: TicketPlay) -> None:
        deployment = await play.apply(DEPLOYMENT, {"spec": {"replicas": 1}})
        play.wait_for("the Deployment is ready", deployment.status.get("readyReplicas") == 1, fallback=3600)

    caplog.set_level(logging.INFO)
    async with operator(api, playbook(deployed)):
        await asyncio.sleep(60)
        assert ready(api, ticket) == ("False", "Waiting", "Waiting until the Deployment is ready.")
        assert api.read(TICKET, ticket)["status"]["observedGeneration"] == 1
        api.put(DEPLOYMENT, ticket.name, status={"readyReplicas": 1})
        await asyncio.sleep(1)
        assert ready(api, ticket)[0] == "True"
        assert api.all(EVENT) == []
        assert not [record for record in caplog.records if record.levelno > logging.INFO]


async def test_a_condition_that_no_watch_reports_is_checked_after_the_fallback(
    api: ModelApi, ticket: ObjectKey
) -> None:
    answers = iter([False, False, True])

    async def answered(play: TicketPlay) -> None:
        play.wait_for("the server answers", next(answers), reason="NoAnswer", fallback=30)

    async with operator(api, playbook(answered)):
        assert ready(api, ticket)[1] == "NoAnswer"
        await asyncio.sleep(31)
        assert ready(api, ticket)[1] == "NoAnswer"
        await asyncio.sleep(30)
        assert ready(api, ticket)[0] == "True"


async def test_a_job_runs_once_and_its_end_is_seen(api: ModelApi, ticket: ObjectKey) -> None:
    body: dict[str, Any] = {"spec": {"template": {"spec": {"restartPolicy": "Never"}}}}

    async def job_is_done(play: TicketPlay) -> None:
        job = await play.run_job(body)
        play.condition("Migrated", True, "Done", job.metadata.name)

    async with operator(api, playbook(job_is_done)):
        [job] = api.all(JOB)
        name = job["metadata"]["name"]
        assert ready(api, ticket) == ("False", "JobRunning", f"Waiting until Job {name} has finished.")
        api.put(JOB, name, status={"conditions": [{"type": "Complete", "status": "True"}]})
        await asyncio.sleep(1)
        assert ready(api, ticket)[0] == "True"
        conditions = {each["type"]: each for each in api.read(TICKET, ticket)["status"]["conditions"]}
        assert conditions["Migrated"]["message"] == name
        assert len(api.all(JOB)) == 1
        body["spec"]["template"]["spec"]["restartPolicy"] = "OnFailure"
        api.put(TICKET, ticket.name, spec={"seats": 3})
        await asyncio.sleep(1)
        assert len(api.all(JOB)) == 2, "a changed spec starts another Job"


async def test_a_failed_job_is_reported_and_runs_again_after_its_deletion(
    api: ModelApi, ticket: ObjectKey
) -> None:
    async def job_is_done(play: TicketPlay) -> None:
        await play.run_job({"spec": {}})

    why = {"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "message": "It has failed."}
    async with operator(api, playbook(job_is_done), resync=10):
        [job] = api.all(JOB)
        key = ObjectKey("default", job["metadata"]["name"])
        api.put(JOB, key.name, status={"conditions": [why]})
        await asyncio.sleep(60)
        status, reason, message = ready(api, ticket)
        assert (status, reason) == ("False", "JobFailed")
        assert message.startswith(
            f"Job {key.name} failed (BackoffLimitExceeded): It has failed. See the logs of its Pods."
        )
        api.remove(JOB, key)
        await asyncio.sleep(1)
        assert ready(api, ticket)[1] == "JobRunning"
        assert api.read(JOB, key)["metadata"]["uid"] != job["metadata"]["uid"]


async def test_get_owned_and_list_read_from_the_stores(api: ModelApi, ticket: ObjectKey) -> None:
    seen: list[Any] = []

    async def look(play: TicketPlay) -> None:
        for name in ("a", "b"):
            await play.apply(CONFIG_MAP, {"metadata": {"name": name}, "data": {"n": name}})
        color = play.list(SECRET, "color", "blue")
        seen[:] = [
            [each.metadata.name for each in play.owned(CONFIG_MAP)],
            [each.metadata.name for each in color],
            play.get(CONFIG_MAP, "theirs"),
            play.get(CONFIG_MAP, "none"),
        ]

    def color(secret: Any) -> list[str]:
        return [secret.metadata.labels.get("color", "")]

    api.put(CONFIG_MAP, "theirs")
    api.put(SECRET, "one", metadata={"labels": {"color": "blue"}})
    api.put(SECRET, "two", metadata={"labels": {"color": "red"}})
    async with operator(api, playbook(look), watches=[Secondary(SECRET, indexes={"color": color})]):
        own, blue, theirs, none = seen
        assert (own, blue, none) == (["a", "b"], ["one"], None)
        assert theirs.metadata.name == "theirs"
        assert [call.key.name for call in api.calls if call.verb == "get"] == ["a", "b"], "to make them"


async def test_a_secondary_object_reconciles_the_objects_that_its_mapper_names(
    api: ModelApi, ticket: ObjectKey
) -> None:
    plays = 0

    async def counted(play: TicketPlay) -> None:
        nonlocal plays
        plays += 1

    api.put(SECRET, "shared")
    watches = [Secondary(SECRET, lambda secret, stores: [ticket])]
    async with operator(api, playbook(counted), watches=watches):
        before = plays
        api.put(SECRET, "shared", data={"a": "b"})
        await asyncio.sleep(1)
        assert plays == before + 1


async def test_a_lost_answer_makes_nothing_twice(api: ModelApi, ticket: ObjectKey) -> None:
    lost = iter([True])

    async def lose(call: Call) -> None:
        if call.resource == str(CONFIG_MAP) and call.writes and next(lost, False):
            raise Unreachable("connection reset", maybe_sent=True)

    api.after = lose
    async with operator(api, playbook(seats_are_noted)):
        await asyncio.sleep(10)
        assert len(api.all(CONFIG_MAP)) == 1
        assert ready(api, ticket)[0] == "True"


async def test_a_cleanup_that_waits_keeps_the_finalizer(api: ModelApi, ticket: ObjectKey) -> None:
    @task("the config is gone")
    async def config_is_gone(play: TicketPlay) -> None:
        play.wait_for("the config is gone", await play.delete(CONFIG_MAP, "config", propagation="Foreground"))

    metadata = {"finalizers": ["tests.dev/slow"], **owned_by(api, ticket)}
    config = api.put(CONFIG_MAP, "config", metadata=metadata)
    book = Playbook[TicketPlay](Play, tasks=[], cleanup=[config_is_gone], finalizer="tests.dev/config")
    async with operator(api, book):
        api.remove(TICKET, ticket)
        await asyncio.sleep(90)
        assert ready(api, ticket) == ("False", "Waiting", "Waiting until the config is gone.")
        api.put(CONFIG_MAP, "config", metadata={"finalizers": []})
        api.remove(CONFIG_MAP, config)
        await asyncio.sleep(61)
        assert not api.exists(TICKET, ticket)
        assert [call.verb for call in requests(api, CONFIG_MAP)] == ["delete"]


async def test_what_the_server_refuses_a_module_can_be_rescued(api: ModelApi, ticket: ObjectKey) -> None:
    async def refuse(call: Call) -> None:
        if call.resource == str(SECRET):
            raise Forbidden(403, "Forbidden", "secrets are not yours")

    async def rescue(play: TicketPlay) -> None:
        try:
            await play.apply(SECRET, {})
        except TaskFailed as failure:
            await play.apply(CONFIG_MAP, {"data": {"because": failure.reason}})

    api.before = refuse
    async with operator(api, playbook(rescue)):
        assert api.read(CONFIG_MAP, ticket)["data"] == {"because": "KubernetesRefused"}
        assert ready(api, ticket)[0] == "True"


async def test_a_conflict_passes_a_rescue_and_causes_another_reconcile(
    api: ModelApi, ticket: ObjectKey
) -> None:
    calls = 0
    rescued = False

    async def conflict_once(call: Call) -> None:
        nonlocal calls
        if call.resource == str(CONFIG_MAP) and call.writes:
            calls += 1
            if calls == 1:
                raise Conflict(409, "Conflict", "changed")

    async def rescue(play: TicketPlay) -> None:
        nonlocal rescued
        try:
            await seats_are_noted(play)
        except TaskFailed:
            rescued = True

    api.before = conflict_once
    async with operator(api, playbook(rescue)):
        assert (calls, rescued) == (2, False)
        assert api.read(CONFIG_MAP, ticket)["data"] == {"seats": "2"}


async def test_a_retry_after_of_the_server_is_respected(api: ModelApi, ticket: ObjectKey) -> None:
    async def shed_load(call: Call) -> None:
        if call.resource == str(CONFIG_MAP):
            raise TooManyRequests(429, "TooManyRequests", "slow down", retry_after=60)

    api.before = shed_load
    async with operator(api, playbook(seats_are_noted)):
        await asyncio.sleep(50)
        assert len(requests(api, CONFIG_MAP)) == 1
        await asyncio.sleep(20)
        assert len(requests(api, CONFIG_MAP)) == 2


async def test_a_deployment_is_scaled_and_then_costs_nothing(api: ModelApi, ticket: ObjectKey) -> None:
    reported: list[tuple[str, ...]] = []

    async def scale(play: TicketPlay) -> None:
        await play.scale(DEPLOYMENT, "web", play.object.spec.seats)
        reported.append(tuple(play.task_result.diff))

    spec = {"replicas": 1, "paused": True}
    api.put(DEPLOYMENT, "web", spec=spec, status={"replicas": 1}, metadata=owned_by(api, ticket))
    async with operator(api, playbook(scale), resync=10):
        await asyncio.sleep(60)
        assert api.read(DEPLOYMENT, ObjectKey("default", "web"))["spec"] == {"replicas": 2, "paused": True}
        [write] = [call for call in api.writes if call.resource == str(DEPLOYMENT)]
        assert (write.subresource, write.body["spec"]) == ("scale", {"replicas": 2})
        assert len(requests(api, DEPLOYMENT)) <= 3
        assert reported[0] == ("replicas: 1 -> 2",)
        assert set(reported[1:]) == {()}
        api.put(DEPLOYMENT, "web", spec={"replicas": 9})
        await asyncio.sleep(30)
        assert api.read(DEPLOYMENT, ObjectKey("default", "web"))["spec"] == {"replicas": 2}


async def test_scaling_a_missing_object_fails(api: ModelApi, ticket: ObjectKey) -> None:
    async def scale(play: TicketPlay) -> None:
        await play.scale(DEPLOYMENT, "web", 2)

    async with operator(api, playbook(scale)):
        assert ready(api, ticket) == (
            "False",
            "NothingToScale",
            "Cannot scale Deployment default/web: it does not exist.",
        )


async def test_a_pod_is_evicted_after_its_log_was_read(api: ModelApi, ticket: ObjectKey) -> None:
    gone: list[bool] = []
    said: list[str] = []

    async def evict(play: TicketPlay) -> None:
        if play.get(POD, "web-1") is not None:
            said.append(await play.pod_log("web-1"))
        gone.append(await play.evict(POD, "web-1"))
        play.wait_for("the pod is gone", gone[-1])

    pod = api.put(POD, "web-1", metadata=owned_by(api, ticket))
    api.logs[pod] = "farewell"
    async with operator(api, playbook(evict), watches=[Secondary(POD, lambda pod, stores: [ticket])]):
        await asyncio.sleep(1)
        assert not api.exists(POD, pod)
    assert (gone, said) == ([False, True], ["farewell"])
    [write] = [call for call in api.writes if call.resource == str(POD)]
    assert write.body["deleteOptions"]["preconditions"]["uid"]


async def test_check_mode_neither_scales_nor_evicts(api: ModelApi, ticket: ObjectKey) -> None:
    async def both(play: TicketPlay) -> None:
        await play.scale(DEPLOYMENT, "web", 2)
        await play.evict(POD, "web-1")

    api.put(DEPLOYMENT, "web", spec={"replicas": 1}, metadata=owned_by(api, ticket))
    api.put(POD, "web-1", metadata=owned_by(api, ticket))
    watch = Watch(TICKET, playbook(both), owns=[DEPLOYMENT, POD])
    reported = await Hand("tickets", Settings(), api).check(watch, ticket)
    assert reported.recap.results[0].diff == ("replicas: 1 -> 2", "- Pod default/web-1")
    assert api.writes == []
    closed = Fence(-math.inf)
    for request in (
        evict_pod(FencedApi(api, closed), ObjectKey("default", "web-1")),
        FencedApi(api, closed).patch(
            scale_of(DEPLOYMENT), ticket, {"spec": {"replicas": 2}}, type=PatchType.MERGE, subresource="scale"
        ),
    ):
        with pytest.raises(Fenced):
            await request
    assert api.writes == []
