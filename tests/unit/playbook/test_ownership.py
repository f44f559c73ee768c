"""One rule for all modules decides which objects a playbook may change."""

import asyncio
from typing import Any

import msgspec
import pytest

from pilothouse.cli.by_hand import Hand
from pilothouse.controller.events import EVENT
from pilothouse.informer import drop_last_applied
from pilothouse.kube import Conflict, Forbidden, ObjectKey, Resource
from pilothouse.playbook import Play, Playbook, Secondary, Watch, child_name, task
from pilothouse.playbook.jobs import job_manifest
from pilothouse.playbook.ownership import OWNER_UID
from pilothouse.process import Settings
from pilothouse.testing import Call, ModelApi
from pilothouse.views import JOB
from tests.unit.playbook.configured import (
    CONFIG_MAP,
    DEPLOYMENT,
    NODE,
    OWNS,
    POD,
    WEB,
    Function,
    Secret,
    TicketPlay,
    operator,
    owned_by,
    playbook,
    ready,
    requests,
)
from tests.unit.tickets import TICKET

pytestmark = pytest.mark.usefixtures("virtual_time")

REPLICA_SET: Resource[Secret] = Resource("apps", "v1", "ReplicaSet", "replicasets", Secret)
KEPT: list[tuple[Resource[Any], ObjectKey]] = [
    (CONFIG_MAP, ObjectKey("elsewhere", "web")),
    (NODE, ObjectKey("", "web")),
]


async def delete(play: TicketPlay) -> None:
    await play.delete(CONFIG_MAP, "web")


async def scale(play: TicketPlay) -> None:
    await play.scale(DEPLOYMENT, "web", 3)


async def evict(play: TicketPlay) -> None:
    await play.evict(POD, "web")


MODULES: list[tuple[Resource[Any], Function, str]] = [
    (CONFIG_MAP, delete, "delete"),
    (DEPLOYMENT, scale, "scale"),
    (POD, evict, "evict"),
]
PODS = [Secondary(POD, lambda pod, stores: [ObjectKey("default", "my-ticket")])]


def foreign(api: ModelApi, how: str) -> tuple[dict[str, Any], str]:
    """Returns the metadata of an object that does not belong to the ticket, and the words of the refusal."""
    match how:
        case "unmanaged":
            return {}, "is not managed by any object"
        case "other":
            other = api.put(DEPLOYMENT, "other")
            return owned_by(api, other, DEPLOYMENT), "is controlled by Deployment other"
        case "earlier":
            reference: dict[str, Any] = owned_by(api, ObjectKey("default", "my-ticket"))["ownerReferences"][0]
            return {"ownerReferences": [{**reference, "uid": "gone"}]}, (
                "is controlled by an earlier Ticket my-ticket (UID gone)"
            )
        case "annotated":
            return {"annotations": {OWNER_UID: "gone"}}, (
                f"belongs to another object, which may no longer exist (annotation {OWNER_UID}: gone)"
            )
        case _:
            # The annotation cannot take an object from its controller.
            uid = api.read(TICKET, ObjectKey("default", "my-ticket"))["metadata"]["uid"]
            controlled = owned_by(api, api.put(DEPLOYMENT, "other"), DEPLOYMENT)
            return {**controlled, "annotations": {OWNER_UID: uid}}, "is controlled by Deployment other"


FOREIGN = ["unmanaged", "other", "earlier", "annotated", "controlled and annotated"]


@pytest.mark.parametrize("how", FOREIGN)
@pytest.mark.parametrize(("resource", "module", "action"), MODULES)
async def test_no_module_changes_an_object_of_others(
    api: ModelApi,
    ticket: ObjectKey,
    resource: Resource[Any],
    module: Function,
    action: str,
    how: str,
) -> None:
    metadata, whose = foreign(api, how)
    api.put(resource, "web", spec={"replicas": 1}, metadata=metadata)
    before = api.read(resource, WEB)
    async with operator(api, playbook(module), watches=PODS):
        await asyncio.sleep(30)
        assert api.read(resource, WEB) == before
        status, reason, message = ready(api, ticket)
        assert (status, reason) == ("False", "NotOwned")
        assert message == (
            f"Cannot {action} {resource.kind} default/web: it {whose}. {action.capitalize()} it manually, or "
            "use another name for the Ticket."
        )


@pytest.mark.parametrize("how", FOREIGN)
@pytest.mark.parametrize("owned", [True, False])
@pytest.mark.parametrize("check", [True, False])
async def test_apply_refuses_an_object_of_others_unless_it_adopts_it(
    api: ModelApi, ticket: ObjectKey, how: str, owned: bool, check: bool
) -> None:
    adopt = False

    async def apply(play: TicketPlay) -> None:
        body = {"metadata": {"name": "web"}, "data": {"a": "1"}}
        await play.apply(CONFIG_MAP, body, owned=owned, adopt=adopt)

    metadata, whose = foreign(api, how)
    api.put(CONFIG_MAP, "web", metadata=metadata, data={"mine": "yes"})
    before = api.read(CONFIG_MAP, WEB)
    if check:
        watch = Watch(TICKET, playbook(apply), owns=OWNS)
        failure = (await Hand("tickets", Settings(), api).check(watch, ticket)).recap.failure
        assert failure is not None
        assert failure.reason == "NameTaken"
        adopt = True
        reported = (await Hand("tickets", Settings(), api).check(watch, ticket)).recap
        assert reported.failure is None
        assert "+ data.a: 1" in reported.results[0].diff
        assert api.read(CONFIG_MAP, WEB) == before
        return
    async with operator(api, playbook(apply), resync=5):
        assert api.read(CONFIG_MAP, WEB) == before
        assert ready(api, ticket)[1:] == (
            "NameTaken",
            f"ConfigMap default/web already exists and {whose}. Delete it, or use another name for the "
            "Ticket.",
        )
        adopt = True
        await asyncio.sleep(60)
        taken = api.read(CONFIG_MAP, WEB)
        assert taken["data"] == {"mine": "yes", "a": "1"}
        uid = api.read(TICKET, ticket)["metadata"]["uid"]
        controllers = [each["uid"] for each in taken["metadata"].get("ownerReferences", [])]
        assert controllers == ([uid] if owned else [])
        if not owned:
            assert taken["metadata"]["annotations"][OWNER_UID] == uid
        adopt = False
        api.put(CONFIG_MAP, "web", data={"a": "2"})
        await asyncio.sleep(5)
        assert api.read(CONFIG_MAP, WEB)["data"] == {"a": "1"}, "it is the ticket's now"
        assert ready(api, ticket)[0] == "True"


async def test_run_job_refuses_a_job_of_others(api: ModelApi, ticket: ObjectKey) -> None:
    async def run(play: TicketPlay) -> None:
        await play.run_job({"spec": {}})

    name = job_manifest({"spec": {}}, ticket.name)["metadata"]["name"]
    done = {"conditions": [{"type": "Complete", "status": "True"}]}
    api.put(JOB, name, spec={}, status=done)
    async with operator(api, playbook(run)):
        assert ready(api, ticket)[1] == "NameTaken"


async def test_two_objects_with_one_job_name_learn_how_the_playbook_can_name_it(
    api: ModelApi, ticket: ObjectKey
) -> None:
    other = api.put(TICKET, "other", spec={"seats": 2})

    async def run(play: TicketPlay) -> None:
        await play.run_job({"metadata": {"name": "backup"}, "spec": {}})

    async def run_own(play: TicketPlay) -> None:
        await play.run_job(
            {"metadata": {"name": child_name(play.object.metadata.name, "backup")}, "spec": {}}
        )

    async with operator(api, playbook(run)):
        states = {ready(api, key)[1]: ready(api, key)[2] for key in (ticket, other)}
        assert states.keys() == {"JobRunning", "NameTaken"}
        assert states["NameTaken"].endswith(
            "Every Ticket needs a Job name of its own: the playbook can use "
            "child_name(play.object.metadata.name, 'backup') as metadata.name."
        )
    async with operator(api, playbook(run_own)):
        assert {ready(api, key)[1] for key in (ticket, other)} == {"JobRunning"}


@pytest.mark.parametrize(("resource", "module", "action"), MODULES)
async def test_in_check_mode_the_same_is_refused(
    api: ModelApi, ticket: ObjectKey, resource: Resource[Any], module: Function, action: str
) -> None:
    api.put(resource, "web", spec={"replicas": 1})
    watch = Watch(TICKET, playbook(module), owns=[*OWNS, POD])
    failure = (await Hand("tickets", Settings(), api).check(watch, ticket)).recap.failure
    assert failure is not None
    assert failure.reason == "NotOwned"


async def test_on_purpose_modules_act_on_objects_of_others(api: ModelApi, ticket: ObjectKey) -> None:
    async def act(play: TicketPlay) -> None:
        await play.scale(DEPLOYMENT, "web", 3, owned=False)
        await play.delete(CONFIG_MAP, "web", owned=False)
        await play.evict(POD, "web", owned=False)

    for resource, _, _ in MODULES:
        api.put(resource, "web", spec={"replicas": 1})
    async with operator(api, playbook(act), watches=PODS):
        assert api.read(DEPLOYMENT, WEB)["spec"] == {"replicas": 3}
        assert not api.exists(CONFIG_MAP, WEB)
        assert not api.exists(POD, WEB)
        assert ready(api, ticket)[0] == "True"


async def test_what_outlives_its_owner_carries_its_uid_and_causes_plays(
    api: ModelApi, ticket: ObjectKey
) -> None:
    """Also in another namespace, and without one."""
    found: list[list[str]] = []

    async def keep(play: TicketPlay) -> None:
        for resource, (namespace, name) in KEPT:
            metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
            await play.apply(resource, {"metadata": metadata, "spec": {"a": "1"}}, owned=False)
        found.append([str(each.metadata.key) for each in play.owned(CONFIG_MAP)])
        found[-1] += [str(each.metadata.key) for each in play.owned(NODE)]

    async with operator(api, playbook(keep), watches=[Secondary(NODE)]):
        uid = api.read(TICKET, ticket)["metadata"]["uid"]
        for resource, key in KEPT:
            metadata = api.read(resource, key)["metadata"]
            assert metadata["annotations"] == {OWNER_UID: uid}
            assert "ownerReferences" not in metadata
            api.put(resource, key.name, namespace=key.namespace, spec={"a": "2"})
            await asyncio.sleep(1)
            assert api.read(resource, key)["spec"] == {"a": "1"}, "its change has caused a reconcile"
    assert found[-1] == ["elsewhere/web", "web"]
    api.calls.clear()
    played = await Hand("tickets", Settings(leader_elect=True), api).check(
        Watch(TICKET, playbook(keep), owns=[CONFIG_MAP], watches=[Secondary(NODE)]), ticket
    )
    assert found[-1] == ["elsewhere/web", "web"], "a manual play finds it, too"
    assert not played.changes


async def test_who_removes_the_annotation_of_an_object_causes_a_play(
    api: ModelApi, ticket: ObjectKey
) -> None:
    async def keep(play: TicketPlay) -> None:
        await play.apply(CONFIG_MAP, {"metadata": {"name": "web"}}, owned=False)

    async with operator(api, playbook(keep)):
        assert ready(api, ticket)[0] == "True"
        api.put(CONFIG_MAP, "web", metadata={"annotations": {}})
        await asyncio.sleep(1)
        assert ready(api, ticket)[1] == "NameTaken", (
            "another owner took it over, so the ticket does not change it"
        )


async def test_a_cleanup_deletes_what_outlives_the_object(api: ModelApi, ticket: ObjectKey) -> None:
    @task("the data is there")
    async def keep(play: TicketPlay) -> None:
        await play.apply(CONFIG_MAP, {"metadata": {"name": "data"}}, owned=False)
        await play.apply(CONFIG_MAP, {"metadata": {"name": "config"}})

    @task("the data is gone")
    async def clean(play: TicketPlay) -> None:
        for each in play.owned(CONFIG_MAP):
            await play.delete(CONFIG_MAP, each.metadata.name)

    book = Playbook[TicketPlay](Play, tasks=[keep], cleanup=[clean], finalizer="tests.dev/data")
    async with operator(api, book):
        api.put(CONFIG_MAP, "theirs")
        api.remove(TICKET, ticket)
        await asyncio.sleep(1)
        assert [each["metadata"]["name"] for each in api.all(CONFIG_MAP)] == ["theirs"]
        assert not api.exists(TICKET, ticket)


async def test_a_recreated_owner_does_not_get_the_data_of_the_earlier_one(
    api: ModelApi, ticket: ObjectKey
) -> None:
    adopt = False

    async def keep(play: TicketPlay) -> None:
        body = {"metadata": {"name": "data"}, "data": {"a": "1"}}
        await play.apply(CONFIG_MAP, body, owned=False, adopt=adopt)

    data = ObjectKey("default", "data")
    async with operator(api, playbook(keep), resync=10):
        old = api.read(TICKET, ticket)["metadata"]["uid"]
        api.remove(TICKET, ticket)
        await asyncio.sleep(1)
        api.collect_garbage()
        api.put(TICKET, ticket.name, spec={"seats": 2})
        await asyncio.sleep(1)
        assert api.read(CONFIG_MAP, data)["metadata"]["annotations"][OWNER_UID] == old
        reason, message = ready(api, ticket)[1:]
        assert reason == "NameTaken"
        assert old in message
        assert message.endswith("Delete it, or use another name for the Ticket.")
        adopt = True
        await asyncio.sleep(60)
        uid = api.read(TICKET, ticket)["metadata"]["uid"]
        assert api.read(CONFIG_MAP, data)["metadata"]["annotations"][OWNER_UID] == uid != old


async def test_an_object_may_change_from_owned_to_retained_and_back(api: ModelApi, ticket: ObjectKey) -> None:
    owned = True

    async def keep(play: TicketPlay) -> None:
        await play.apply(CONFIG_MAP, {"metadata": {"name": "web"}}, owned=owned)

    async with operator(api, playbook(keep), resync=5):
        for owned in (False, True):
            await asyncio.sleep(20)
            metadata = api.read(CONFIG_MAP, WEB)["metadata"]
            assert bool(metadata.get("ownerReferences")) is owned
            assert (OWNER_UID in metadata.get("annotations", {})) is not owned


async def test_a_pod_belongs_to_the_owner_of_its_deployment_where_the_watch_shows_the_chain(
    api: ModelApi, ticket: ObjectKey
) -> None:
    deployment = api.put(DEPLOYMENT, "web", metadata=owned_by(api, ticket))
    replica_set = api.put(REPLICA_SET, "web-1", metadata=owned_by(api, deployment, DEPLOYMENT))
    api.put(POD, "web", metadata=owned_by(api, replica_set, REPLICA_SET))
    async with operator(api, playbook(evict), watches=PODS):
        assert ready(api, ticket)[1] == "NotOwned"
        assert "declare the kind ReplicaSet in the Watch" in ready(api, ticket)[2]
        assert api.exists(POD, WEB)
    declared = [*PODS, Secondary(REPLICA_SET, lambda _, stores: ())]
    async with operator(api, playbook(evict), watches=declared):
        assert not api.exists(POD, WEB)
        # Another ReplicaSet has taken the name.
        api.put(
            POD,
            "web",
            metadata={
                "ownerReferences": [
                    {**owned_by(api, replica_set, REPLICA_SET)["ownerReferences"][0], "uid": "gone"}
                ]
            },
        )
        await asyncio.sleep(5)
        assert api.exists(POD, WEB)
        assert ready(api, ticket)[1] == "NotOwned"


async def test_an_object_taken_over_before_its_deletion_is_kept(api: ModelApi, ticket: ObjectKey) -> None:
    async def take(call: Call) -> None:
        if call.verb == "delete" and api.read(CONFIG_MAP, WEB)["metadata"].get("ownerReferences"):
            api.put(CONFIG_MAP, "web", metadata={"ownerReferences": []})

    api.put(CONFIG_MAP, "web", metadata=owned_by(api, ticket), data={"a": "1"})
    api.before = take
    async with operator(api, playbook(delete)):
        await asyncio.sleep(10)
        assert api.read(CONFIG_MAP, WEB)["data"] == {"a": "1"}
        assert ready(api, ticket)[1] == "NotOwned"


async def test_a_deployment_taken_over_before_it_is_scaled_keeps_its_replicas(
    api: ModelApi, ticket: ObjectKey
) -> None:
    async def take(call: Call) -> None:
        if call.subresource == "scale" and call.verb == "get":
            api.put(DEPLOYMENT, "web", metadata={"ownerReferences": []})

    api.put(DEPLOYMENT, "web", metadata=owned_by(api, ticket), spec={"replicas": 1})
    api.before = take
    async with operator(api, playbook(scale)):
        await asyncio.sleep(10)
        assert api.read(DEPLOYMENT, WEB)["spec"] == {"replicas": 1}
        assert ready(api, ticket)[1] == "NotOwned"


async def test_a_busy_object_is_deleted_although_its_version_has_moved_on(
    api: ModelApi, ticket: ObjectKey
) -> None:
    beats = iter(range(1, 100))

    async def beat(call: Call) -> None:
        if call.verb == "delete" and (count := next(beats)) % 2:
            api.put(CONFIG_MAP, "web", data={"beat": str(count)})

    api.put(CONFIG_MAP, "web", metadata=owned_by(api, ticket))
    api.before = beat
    async with operator(api, playbook(delete)):
        assert not api.exists(CONFIG_MAP, WEB)
        assert ready(api, ticket)[0] == "True"


async def test_an_object_whose_stored_metadata_does_not_show_the_owner_is_read_live(
    api: ModelApi, ticket: ObjectKey
) -> None:
    def trim(obj: Any) -> Any:
        metadata = msgspec.structs.replace(obj.metadata, owner_references=())
        return msgspec.structs.replace(drop_last_applied(obj), metadata=metadata)

    api.put(CONFIG_MAP, "web", metadata=owned_by(api, ticket))
    watch = Watch(TICKET, playbook(delete), watches=[Secondary(CONFIG_MAP, transform=trim)])
    await Hand("tickets", Settings(leader_elect=True, pod_name="me"), api).play(watch, ticket)
    assert not api.exists(CONFIG_MAP, WEB)


@pytest.mark.parametrize("gone", [True, False])
async def test_a_foreign_object_deleted_during_the_check_is_not_a_failure(
    api: ModelApi, ticket: ObjectKey, gone: bool
) -> None:
    struck = False

    async def strike(call: Call) -> None:
        nonlocal struck
        if call.resource == str(CONFIG_MAP) and call.verb == "get" and not struck:
            struck = True
            api.remove(CONFIG_MAP, WEB)
            if not gone:
                api.put(CONFIG_MAP, "web", metadata=owned_by(api, ticket))

    api.put(CONFIG_MAP, "web")
    api.before = strike
    async with operator(api, playbook(delete)):
        await asyncio.sleep(5)
        assert struck
        assert not api.exists(CONFIG_MAP, WEB)
        assert ready(api, ticket)[0] == "True"
        assert api.all(EVENT) == []


async def test_a_role_that_may_not_read_the_object_does_not_hide_whose_it_is(
    api: ModelApi, ticket: ObjectKey
) -> None:
    async def refuse(call: Call) -> None:
        if call.resource == str(CONFIG_MAP) and call.verb == "get":
            raise Forbidden(403, "Forbidden", "configmaps are not yours")

    api.put(CONFIG_MAP, "web")
    api.before = refuse
    async with operator(api, playbook(delete)):
        assert ready(api, ticket)[1] == "NotOwned"


async def test_a_missing_object_costs_no_request(api: ModelApi, ticket: ObjectKey) -> None:
    async with operator(api, playbook(delete, evict), watches=PODS, resync=5):
        await asyncio.sleep(60)
        assert requests(api, CONFIG_MAP) == requests(api, POD) == []


async def test_a_take_over_that_meets_a_conflict_is_repeated(api: ModelApi, ticket: ObjectKey) -> None:
    struck: list[Call] = []

    async def conflict(call: Call) -> None:
        if call.resource == str(CONFIG_MAP) and call.writes and len(struck) < 2:
            struck.append(call)
            raise Conflict(409, "Conflict", "changed")

    async def adopt(play: TicketPlay) -> None:
        await play.apply(CONFIG_MAP, {"metadata": {"name": "web"}}, adopt=True)

    api.put(CONFIG_MAP, "web", metadata=owned_by(api, api.put(DEPLOYMENT, "other"), DEPLOYMENT))
    api.before = conflict
    async with operator(api, playbook(adopt)):
        await asyncio.sleep(5)
        assert ready(api, ticket)[0] == "True"


@pytest.mark.parametrize("owned", [True, False])
async def test_two_owners_that_take_an_object_from_each_other_are_slowed_down_and_reported(
    api: ModelApi, ticket: ObjectKey, owned: bool
) -> None:
    async def adopt(play: TicketPlay) -> None:
        await play.apply(CONFIG_MAP, {"metadata": {"name": "web"}}, owned=owned, adopt=True)

    other = api.put(TICKET, "other")
    async with operator(api, playbook(adopt)):
        await asyncio.sleep(60)
        assert len([call for call in requests(api, CONFIG_MAP) if call.writes]) < 30
        api.calls.clear()
        await asyncio.sleep(600)
        assert len([call for call in requests(api, CONFIG_MAP) if call.writes]) < 30
        for key in (ticket, other):
            assert ready(api, key)[1] == "FieldContended"
            assert "Another owner keeps taking ConfigMap default/web over" in ready(api, key)[2]


@pytest.mark.parametrize("how", ["scale", "patch"])
async def test_a_client_that_keeps_changing_scaled_or_patched_fields_is_slowed_down_and_reported(
    api: ModelApi, ticket: ObjectKey, how: str
) -> None:
    async def change(play: TicketPlay) -> None:
        if how == "scale":
            await play.scale(DEPLOYMENT, "web", 3)
        else:
            await play.patch(DEPLOYMENT, "web", {"spec": {"replicas": 3}})

    async def rival(call: Call) -> None:
        if call.resource == str(DEPLOYMENT) and call.writes:
            asyncio.get_running_loop().call_later(
                0.01, lambda: api.put(DEPLOYMENT, "web", spec={"replicas": 7})
            )

    api.put(DEPLOYMENT, "web", spec={"replicas": 1}, metadata=owned_by(api, ticket))
    api.after = rival
    async with operator(api, playbook(change)):
        await asyncio.sleep(600)
        assert len([call for call in requests(api, DEPLOYMENT) if call.writes]) < 30
        assert ready(api, ticket)[1] == "FieldContended"
        assert "spec.replicas of Deployment default/web" in ready(api, ticket)[2]

        async def nothing(call: Call) -> None:
            """The rival has stopped."""

        api.after = nothing
        await asyncio.sleep(1500)
        assert api.read(DEPLOYMENT, WEB)["spec"] == {"replicas": 3}
        assert ready(api, ticket)[0] == "True"
