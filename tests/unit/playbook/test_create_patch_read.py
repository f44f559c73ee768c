"""Creation of objects that must not exist, patches of some fields, and live reads."""

import asyncio
import re
from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from pilothouse.cli.by_hand import Hand
from pilothouse.controller import Fenced
from pilothouse.controller.events import EVENT
from pilothouse.kube import (
    ApiError,
    BadRequest,
    Cause,
    Forbidden,
    Invalid,
    ObjectKey,
    Resource,
    ServerError,
    Unreachable,
)
from pilothouse.playbook import Secondary, TaskFailed, Watch
from pilothouse.playbook.awaited import PlaybookError
from pilothouse.playbook.ownership import CREATED_FROM, OWNER_UID
from pilothouse.process import Settings
from pilothouse.testing import Call, ModelApi
from tests.unit.playbook.configured import (
    CONFIG_MAP,
    DEPLOYMENT,
    NODE,
    OWNS,
    POD,
    SECRET,
    WEB,
    TicketPlay,
    operator,
    owned_by,
    playbook,
    ready,
    requests,
)
from tests.unit.tickets import TICKET

pytestmark = pytest.mark.usefixtures("virtual_time")


def writes(api: ModelApi, resource: Resource[Any]) -> list[Call]:
    return [call for call in requests(api, resource) if call.writes]


# Creation.


async def create(play: TicketPlay) -> None:
    seats = str(play.object.spec.seats)
    await play.create(CONFIG_MAP, {"metadata": {"name": "web"}, "data": {"seats": seats}})


async def test_an_object_is_created_once_and_costs_nothing_then(api: ModelApi, ticket: ObjectKey) -> None:
    diffs: list[str] = []

    async def reported(play: TicketPlay) -> None:
        await create(play)
        diffs.extend(play.task_result.diff)

    async with operator(api, playbook(reported), resync=5):
        await asyncio.sleep(60)
        made = api.read(CONFIG_MAP, WEB)
        assert made["data"] == {"seats": "2"}
        assert made["metadata"]["ownerReferences"][0]["uid"] == api.read(TICKET, ticket)["metadata"]["uid"]
        assert [call.verb for call in requests(api, CONFIG_MAP)] == ["patch"]
        assert ready(api, ticket)[0] == "True"
    assert diffs == ["+ data.seats: 2"]


@pytest.mark.parametrize("how", ["foreign", "another manifest", "annotated", "deleted"])
@pytest.mark.parametrize("shown", [True, False])
async def test_an_object_that_exists_is_never_changed(
    api: ModelApi, ticket: ObjectKey, how: str, shown: bool
) -> None:
    if how == "deleted":
        async with operator(api, playbook(create)):
            pass
        api.put(CONFIG_MAP, "web", metadata={"finalizers": ["tests.dev/slow"]})
        api.remove(CONFIG_MAP, WEB)
    elif how == "another manifest":
        api.put(CONFIG_MAP, "web", metadata=owned_by(api, ticket), data={"mine": "yes"})
    elif how == "annotated":
        api.put(CONFIG_MAP, "web", metadata={"annotations": {OWNER_UID: "gone"}}, data={"mine": "yes"})
    else:
        api.put(CONFIG_MAP, "web", data={"mine": "yes"})
    before = api.read(CONFIG_MAP, WEB)
    if not shown:
        # The watch lags behind and does not show the object yet.
        api.server.collection(CONFIG_MAP).objects.pop(WEB)
        api.before = _restore(api, before)
    async with operator(api, playbook(create)):
        await asyncio.sleep(10)
        assert api.read(CONFIG_MAP, WEB) == before
        status, reason, message = ready(api, ticket)
        assert (status, reason) == ("False", "AlreadyExists")
        assert (
            message
            == "Cannot create ConfigMap default/web: "
            + {
                "foreign": "it already exists and is not managed by any object. Delete it, or use "
                "another name for the Ticket.",
                "annotated": "it already exists and belongs to another object, which may no longer exist "
                "(annotation pilothouse.dev/owner-uid: gone). Delete it, or use another name for the Ticket.",
                "another manifest": "it already exists and was not created from this manifest. "
                "Delete it first.",
                "deleted": "an object of that name is being deleted. The operator retries until it is gone.",
            }[how]
        )


def _restore(api: ModelApi, obj: Any) -> Callable[[Call], Any]:
    async def restore(call: Call) -> None:
        if call.resource == str(CONFIG_MAP):
            api.server.collection(CONFIG_MAP).objects[WEB] = obj

    return restore


async def test_a_creation_whose_answer_was_lost_is_recognised(api: ModelApi, ticket: ObjectKey) -> None:
    """Also if the watch shows the object late, and another client has changed it since."""
    lost = iter([True])

    async def lose(call: Call) -> None:
        if call.writes and call.resource == str(CONFIG_MAP) and next(lost, False):
            api.connected.clear()
            api.put(CONFIG_MAP, "web", data={"theirs": "stays"})
            raise Unreachable("connection reset", maybe_sent=True)

    api.after = lose
    async with operator(api, playbook(create)):
        await asyncio.sleep(10)
        assert ready(api, ticket)[0] == "True"
        assert api.read(CONFIG_MAP, WEB)["data"] == {"theirs": "stays"}
        assert [call.verb for call in requests(api, CONFIG_MAP)][:2] == ["patch", "patch"]
        api.connected.set()


async def test_a_recreated_owner_does_not_recognize_objects_of_the_earlier_one(
    api: ModelApi, ticket: ObjectKey
) -> None:
    async def keep(play: TicketPlay) -> None:
        await play.create(CONFIG_MAP, {"metadata": {"name": "web"}}, owned=False)

    async with operator(api, playbook(keep)):
        assert api.read(CONFIG_MAP, WEB)["metadata"]["annotations"].keys() == {OWNER_UID, CREATED_FROM}
        api.remove(TICKET, ticket)
        await asyncio.sleep(1)
        api.put(TICKET, ticket.name)
        await asyncio.sleep(1)
        assert ready(api, ticket)[1] == "AlreadyExists"


async def test_an_object_that_was_deleted_is_created_again(api: ModelApi, ticket: ObjectKey) -> None:
    async with operator(api, playbook(create)):
        uid = api.read(CONFIG_MAP, WEB)["metadata"]["uid"]
        api.remove(CONFIG_MAP, WEB)
        await asyncio.sleep(1)
        assert api.read(CONFIG_MAP, WEB)["metadata"]["uid"] != uid
        assert ready(api, ticket)[0] == "True"


async def test_one_that_the_watch_still_shows_is_created_again(api: ModelApi, ticket: ObjectKey) -> None:
    api.put(CONFIG_MAP, "web", data={"mine": "yes"})

    async def delete(call: Call) -> None:
        if call.resource == str(CONFIG_MAP) and call.verb == "get" and api.exists(CONFIG_MAP, WEB):
            api.remove(CONFIG_MAP, WEB)

    api.before = delete
    async with operator(api, playbook(create)):
        assert api.read(CONFIG_MAP, WEB)["data"] == {"seats": "2"}
        assert ready(api, ticket)[0] == "True"


async def test_in_check_mode_nothing_is_created_and_the_same_is_refused(
    api: ModelApi, ticket: ObjectKey
) -> None:
    watch = Watch(TICKET, playbook(create), owns=OWNS)
    reported = (await Hand("tickets", Settings(), api).check(watch, ticket)).recap
    assert reported.results[0].diff == ("+ data.seats: 2",)
    assert api.all(CONFIG_MAP) == []
    api.put(CONFIG_MAP, "web")
    failure = (await Hand("tickets", Settings(), api).check(watch, ticket)).recap.failure
    assert failure is not None
    assert failure.reason == "AlreadyExists"


# Patches.


async def patch(play: TicketPlay) -> None:
    await play.patch(DEPLOYMENT, "web", {"spec": {"replicas": play.object.spec.seats, "paused": None}})


async def test_a_patch_changes_its_fields_alone_and_then_costs_nothing(
    api: ModelApi, ticket: ObjectKey
) -> None:
    diffs: list[str] = []

    async def both(play: TicketPlay) -> None:
        await patch(play)
        await play.patch(DEPLOYMENT, "web", {"metadata": {"labels": {"tier": "front"}}})
        diffs.extend(play.task_result.diff)

    spec = {"replicas": 1, "paused": True, "theirs": "stays"}
    api.put(DEPLOYMENT, "web", spec=spec, metadata=owned_by(api, ticket))
    async with operator(api, playbook(both), resync=5):
        await asyncio.sleep(60)
        made = api.read(DEPLOYMENT, WEB)
        assert made["spec"] == {"replicas": 2, "theirs": "stays"}
        assert made["metadata"]["labels"] == {"tier": "front"}
        assert [call.verb for call in requests(api, DEPLOYMENT)] == ["get", "patch"] * 2 + ["get"]
        assert ready(api, ticket)[0] == "True"
        assert diffs == ["spec.replicas: 1 -> 2", "- spec.paused: true", "+ metadata.labels.tier: front"]
        asked = len(requests(api, DEPLOYMENT))
        api.put(DEPLOYMENT, "web", status={"replicas": 1})
        await asyncio.sleep(10)
        assert len(requests(api, DEPLOYMENT)) == asked, "a change of the status costs no request"
        api.put(DEPLOYMENT, "web", spec={"replicas": 7})
        await asyncio.sleep(5)
        assert api.read(DEPLOYMENT, WEB)["spec"] == {"replicas": 2}


async def test_a_patch_carries_what_the_play_has_seen(api: ModelApi, ticket: ObjectKey) -> None:
    """A change between the read and the patch is never overwritten unseen."""
    struck: list[Call] = []

    async def strike(call: Call) -> None:
        if call.resource == str(DEPLOYMENT) and len(struck) < 2:
            struck.append(call)
            api.put(DEPLOYMENT, "web", spec={"replicas": 5})

    seen: list[int] = []

    async def grow(play: TicketPlay) -> None:
        deployment = play.get(DEPLOYMENT, "web")
        assert deployment is not None
        if len(struck) < 2 or deployment.spec["replicas"] == 5:
            seen.append(deployment.spec["replicas"])
            await play.patch(DEPLOYMENT, "web", {"spec": {"replicas": deployment.spec["replicas"] + 1}})

    api.put(DEPLOYMENT, "web", spec={"replicas": 1}, metadata=owned_by(api, ticket))
    api.before = strike
    async with operator(api, playbook(grow)):
        await asyncio.sleep(10)
        assert seen[0] == 1
        assert seen[-1] == 5
        assert api.read(DEPLOYMENT, WEB)["spec"] == {"replicas": 6}
        assert ready(api, ticket)[0] == "True"
        assert api.all(EVENT) == []
        [write] = writes(api, DEPLOYMENT)[-1:]
        assert write.body["metadata"].keys() == {"uid", "resourceVersion"}


async def test_patching_a_missing_object_fails(api: ModelApi, ticket: ObjectKey) -> None:
    async with operator(api, playbook(patch)):
        assert ready(api, ticket)[1:] == (
            "NothingToPatch",
            "Cannot patch Deployment default/web: it does not exist.",
        )


async def test_an_object_deleted_before_the_patch_is_not_created_again(
    api: ModelApi, ticket: ObjectKey
) -> None:
    async def delete(call: Call) -> None:
        if call.resource == str(DEPLOYMENT) and call.writes and api.exists(DEPLOYMENT, WEB):
            api.remove(DEPLOYMENT, WEB)

    api.put(DEPLOYMENT, "web", metadata=owned_by(api, ticket))
    api.before = delete
    async with operator(api, playbook(patch)):
        await asyncio.sleep(5)
        assert api.all(DEPLOYMENT) == []
        assert ready(api, ticket)[1] == "NothingToPatch"


async def test_what_others_own_is_patched_on_purpose_only(api: ModelApi, ticket: ObjectKey) -> None:
    owned = True

    async def patch_theirs(play: TicketPlay) -> None:
        await play.patch(DEPLOYMENT, "web", {"spec": {"replicas": 2}}, owned=owned)

    api.put(DEPLOYMENT, "web", spec={"replicas": 1})
    async with operator(api, playbook(patch_theirs), resync=5):
        assert ready(api, ticket)[1] == "NotOwned"
        assert api.read(DEPLOYMENT, WEB)["spec"] == {"replicas": 1}
        owned = False
        await asyncio.sleep(30)
        assert api.read(DEPLOYMENT, WEB)["spec"] == {"replicas": 2}


async def test_a_value_that_the_server_writes_in_another_way_is_not_patched_again_and_again(
    api: ModelApi, ticket: ObjectKey
) -> None:
    async def rewrite(call: Call) -> None:
        if call.resource == str(DEPLOYMENT) and call.writes:
            call.body["spec"]["cpu"] = "500m"

    async def patch_cpu(play: TicketPlay) -> None:
        await play.patch(DEPLOYMENT, "web", {"spec": {"cpu": "0.5"}})

    api.put(DEPLOYMENT, "web", spec={"replicas": 1}, metadata=owned_by(api, ticket))
    api.before = rewrite
    async with operator(api, playbook(patch_cpu), resync=5):
        await asyncio.sleep(60)
        assert len(writes(api, DEPLOYMENT)) == 1


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"status": {}}, "status cannot be changed by a patch. Remove the field."),
        ({"metadata": {"name": "b"}}, "metadata.name cannot be changed by a patch. Remove the field."),
        ({"metadata": {"uid": "b"}}, "metadata.uid cannot be changed by a patch. Remove the field."),
        ({"metadata": {"managedFields": [{}]}}, "metadata.managedFields cannot be changed by a patch."),
        ({"metadata": {"generation": 5}}, "metadata.generation cannot be changed by a patch."),
        (
            {"metadata": {"creationTimestamp": None}},
            "metadata.creationTimestamp cannot be changed by a patch.",
        ),
        (
            {"status": {"a": 1}, "metadata": {"selfLink": "b"}},
            "status and metadata.selfLink cannot be changed by a patch. Remove the fields.",
        ),
    ],
)
async def test_a_patch_states_neither_the_status_nor_an_identity(
    api: ModelApi, ticket: ObjectKey, body: dict[str, Any], sentence: str
) -> None:
    async def patch_wrongly(play: TicketPlay) -> None:
        with pytest.raises(PlaybookError, match=re.escape(f"the patch of the Deployment: {sentence}")):
            await play.patch(DEPLOYMENT, "web", body)

    api.put(DEPLOYMENT, "web", metadata=owned_by(api, ticket))
    async with operator(api, playbook(patch_wrongly)):
        assert ready(api, ticket)[0] == "True"


async def test_in_check_mode_a_patch_is_tried_and_nothing_changes(api: ModelApi, ticket: ObjectKey) -> None:
    api.put(DEPLOYMENT, "web", spec={"replicas": 1}, metadata=owned_by(api, ticket))
    before = api.read(DEPLOYMENT, WEB)
    reported = await Hand("tickets", Settings(), api).check(Watch(TICKET, playbook(patch), owns=OWNS), ticket)
    assert reported.recap.results[0].diff == ("spec.replicas: 1 -> 2",)
    assert api.writes == []
    assert api.read(DEPLOYMENT, WEB) == before


async def test_a_patch_of_a_secret_shows_no_value(api: ModelApi, ticket: ObjectKey) -> None:
    diffs: list[str] = []

    async def patch_secret(play: TicketPlay) -> None:
        await play.patch(SECRET, "web", {"data": {"password": "aHVudGVyMg=="}})
        diffs.extend(play.task_result.diff)

    api.put(SECRET, "web", data={"password": "b2xk"}, metadata=owned_by(api, ticket))
    async with operator(api, playbook(patch_secret)):
        assert diffs == ["data.password: (hidden) -> (hidden)"]


async def test_a_patch_of_string_data_is_sent_as_data(api: ModelApi, ticket: ObjectKey) -> None:
    stated: dict[str, str | None] = {"a": "1", "b": "2"}

    async def patch_secret(play: TicketPlay) -> None:
        await play.patch(SECRET, "web", {"stringData": dict(stated)})

    api.put(SECRET, "web", data={"b": "b2xk", "c": "Mw=="}, metadata=owned_by(api, ticket))
    async with operator(api, playbook(patch_secret), resync=5):
        assert api.read(SECRET, WEB)["data"] == {"a": "MQ==", "b": "Mg==", "c": "Mw=="}
        await asyncio.sleep(30)
        assert [call.body.keys() - {"metadata"} for call in writes(api, SECRET)] == [{"data"}]
        stated["b"] = None
        await asyncio.sleep(30)
        assert api.read(SECRET, WEB)["data"] == {"a": "MQ==", "c": "Mw=="}
        assert len(writes(api, SECRET)) == 2


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ({"stringData": {"pin": 8675309}}, "a value in stringData has the type int, but must be text."),
        (
            {"stringData": "hunter2"},
            "stringData is of type str, but must be a mapping. Remove it, or state its keys.",
        ),
        ({"stringData": None}, "stringData is None, but must be a mapping. Remove it, or state its keys."),
        (
            {"stringData": {"a": "b"}, "data": None},
            "data is None, but must be a mapping. Remove it, or state its keys.",
        ),
    ],
)
async def test_a_patch_of_string_data_that_is_not_text_is_refused(
    api: ModelApi, ticket: ObjectKey, body: Any, why: str
) -> None:
    async def patch_secret(play: TicketPlay) -> None:
        await play.patch(SECRET, "web", body)

    api.put(SECRET, "web", metadata=owned_by(api, ticket))
    async with operator(api, playbook(patch_secret)):
        reason, message = ready(api, ticket)[1:]
        assert reason == "InvalidManifest"
        assert message.endswith(f"The patch of the Secret is not valid: {why}")
        assert not writes(api, SECRET)


async def test_a_secret_is_created_with_data_instead_of_string_data(api: ModelApi, ticket: ObjectKey) -> None:
    async def create_secret(play: TicketPlay) -> None:
        await play.create(SECRET, {"metadata": {"name": "web"}, "stringData": {"a": "1"}})

    async with operator(api, playbook(create_secret), resync=5):
        assert [call.body["data"] for call in writes(api, SECRET)] == [{"a": "MQ=="}]
        assert "stringData" not in writes(api, SECRET)[0].body


async def test_the_memory_of_a_deleted_object_is_not_used_for_the_next_one(
    api: ModelApi, ticket: ObjectKey
) -> None:
    owned = owned_by(api, ticket)
    api.put(DEPLOYMENT, "web", spec={"replicas": 1}, metadata=owned)
    async with operator(api, playbook(patch), resync=5):
        api.remove(DEPLOYMENT, WEB)
        api.put(DEPLOYMENT, "web", spec={"replicas": 1}, metadata=owned)
        await asyncio.sleep(20)
        assert api.read(DEPLOYMENT, WEB)["spec"] == {"replicas": 2}


# Immutable fields.


def pods_hardly_change(resource: Resource[Any], new: Any, old: Any) -> list[Cause]:
    """Refuses changes of a Pod as the API server does, in short form."""
    if resource.kind != "Pod" or old is None:
        return []
    specs = [
        {
            **each["spec"],
            "containers": [{**container, "image": ""} for container in each["spec"]["containers"]],
        }
        for each in (new, old)
    ]
    if specs[0] == specs[1]:
        return []
    dump = '@@ -1 +1 @@ - "Value": "hunter1" + "Value": "hunter2"'
    message = f"Forbidden: pod updates may not change fields other than `spec.containers[*].image`\n{dump}"
    return [Cause("spec", message, "FieldValueForbidden")]


async def test_the_fields_of_a_pod_that_cannot_change_are_named_without_their_values(
    api: ModelApi, ticket: ObjectKey
) -> None:
    container: dict[str, Any] = {
        "name": "etcd",
        "image": "etcd:1",
        "env": [{"name": "A", "value": "hunter1"}],
    }
    diffs: list[str] = []

    async def run(play: TicketPlay) -> None:
        body = {"metadata": {"name": "web"}, "spec": {"containers": [container], "grace": 30}}
        await play.apply(POD, body)
        diffs.extend(play.task_result.diff)

    api.server.validate = pods_hardly_change
    watch = Watch(TICKET, playbook(run), owns=[*OWNS, POD])
    async with operator(api, playbook(run), watches=[Secondary(POD)], resync=5):
        made = api.read(POD, WEB)
        spec = {**made["spec"], "nodeName": "node-1", "volumes": [{"name": "token"}]}
        api.put(POD, "web", spec=spec)
        diffs.clear()
        await asyncio.sleep(20)
        assert ready(api, ticket)[0] == "True", "additions of others are not a difference"
        assert diffs == []
        container["image"] = "etcd:2"
        await asyncio.sleep(20)
        assert diffs == ["spec.containers[etcd].image: etcd:1 -> etcd:2"]
        assert api.read(POD, WEB)["metadata"]["uid"] == made["metadata"]["uid"]
        container["env"] = [{"name": "A", "value": "hunter2"}, {"name": "B", "value": "b"}]
        container["image"] = "etcd:3"
        await asyncio.sleep(20)
        expected = (
            "Cannot change spec.containers[etcd].env[A].value, spec.containers[etcd].env[B] of Pod "
            "default/web: the API server does not accept this change of an existing Pod. Undo the change, or "
            "delete the Pod so that it is created again."
        )
        assert ready(api, ticket)[1:] == ("Immutable", expected)
        failure = (await Hand("tickets", Settings(), api).check(watch, ticket)).recap.failure
        assert failure is not None
        assert failure.message == expected
        assert "hunter" not in str(api.all(EVENT)) + str(api.read(TICKET, ticket))
        api.remove(POD, WEB)
        await asyncio.sleep(1)
        assert api.read(POD, WEB)["spec"]["containers"][0]["image"] == "etcd:3"
        assert ready(api, ticket)[0] == "True"


async def test_a_play_may_replace_what_cannot_be_changed(api: ModelApi, ticket: ObjectKey) -> None:
    grace = 30

    async def run(play: TicketPlay) -> None:
        body = {"metadata": {"name": "web"}, "spec": {"containers": [], "grace": grace}}
        try:
            await play.apply(POD, body)
        except TaskFailed as failure:
            if failure.reason != "Immutable":
                raise
            play.wait_for("the Pod is gone", await play.delete(POD, "web"))

    api.server.validate = pods_hardly_change
    async with operator(api, playbook(run), watches=[Secondary(POD)], resync=5):
        grace = 5
        await asyncio.sleep(20)
        assert api.read(POD, WEB)["spec"]["grace"] == 5
        assert ready(api, ticket)[0] == "True"


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("spec.selector", 'Invalid value: {"matchLabels":{"c":"d"}}: field is immutable'),
        ("spec.clusterIPs[0]", 'Invalid value: ["None"]: may not change once set'),
        ("spec.containers", "Forbidden: pod updates may not add or remove containers"),
        ("spec.tolerations", "Forbidden: existing toleration can not be modified except its seconds"),
        ("spec.template", f'Invalid value: {{"a":"{"x" * 5000}"}}: field is immutable'),
        ("spec.template", f'Invalid value: core.PodTemplateSpec{{A:"{"x: " * 500}"}}: field is immutable'),
        ("spec.template", f'Invalid value: {{"a":"{"x" * 100}…{"x: " * 30}"}}: field is immutable'),
        ("roleRef", 'Invalid value: {"kind":"Role"}: cannot change roleRef'),
        ("data", "Forbidden: field is immutable when `immutable` is set"),
        ("spec.region", 'Invalid value: "string": failed rule: self == oldSelf'),
        ("spec.region", 'Invalid value: "string": Region is Immutable: create another object'),
        ("spec.region", 'Invalid value: "string": the region must not be changed'),
        ("spec.region", 'Invalid value: "object": changing the region is not allowed'),
        ("spec.resources.requests.storage", "Forbidden: field can not be less than status.capacity"),
    ],
)
async def test_a_field_that_the_server_names_is_named(
    api: ModelApi, ticket: ObjectKey, field: str, message: str
) -> None:
    def refuse(resource: Resource[Any], new: Any, old: Any) -> list[Cause]:
        late = resource.kind == "ConfigMap" and old is not None and new["data"] != old["data"]
        return [Cause(field, message, "FieldValueInvalid")] if late else []

    data = {"a": "1"}

    async def apply(play: TicketPlay) -> None:
        await play.apply(CONFIG_MAP, {"data": data})

    async def patch_data(play: TicketPlay) -> None:
        await play.patch(CONFIG_MAP, play.object.metadata.name, {"data": {"a": "3"}})

    api.server.validate = refuse
    async with operator(api, playbook(apply), resync=5):
        data = {"a": "2"}
        await asyncio.sleep(20)
        assert ready(api, ticket)[1] == "Immutable"
        assert f"Cannot change {field} of ConfigMap default/my-ticket" in ready(api, ticket)[2]
    async with operator(api, playbook(patch_data)):
        assert ready(api, ticket)[1] == "Immutable"
        assert api.read(CONFIG_MAP, ticket)["data"] == {"a": "1"}


async def test_a_value_with_the_words_of_an_immutable_field_is_refused_as_what_it_is(
    api: ModelApi, ticket: ObjectKey
) -> None:
    def refuse(resource: Resource[Any], new: Any, old: Any) -> list[Cause]:
        message = 'Invalid value: {"readOnly":true,"note":"this field is immutable"}: must be odd'
        wrong = resource.kind == "ConfigMap" and old is not None
        return [Cause("data.a", message, "FieldValueInvalid")] if wrong else []

    data = {"a": "1"}

    async def apply(play: TicketPlay) -> None:
        await play.apply(CONFIG_MAP, {"data": data})

    api.server.validate = refuse
    async with operator(api, playbook(apply), resync=5):
        data = {"a": "2"}
        await asyncio.sleep(20)
        assert ready(api, ticket)[1] == "KubernetesRefused"
        assert "must be odd" in ready(api, ticket)[2]


async def test_another_refusal_keeps_the_message_of_the_server(api: ModelApi, ticket: ObjectKey) -> None:
    def refuse(resource: Resource[Any], new: Any, old: Any) -> list[Cause]:
        wrong = resource.kind == "ConfigMap" and old is not None and new["data"]["a"] == "2"
        return [Cause("data.a", "Invalid value: must be odd", "FieldValueInvalid")] if wrong else []

    data = {"a": "1"}

    async def apply(play: TicketPlay) -> None:
        await play.apply(CONFIG_MAP, {"data": data})

    api.server.validate = refuse
    async with operator(api, playbook(apply), resync=5):
        data = {"a": "2"}
        await asyncio.sleep(20)
        assert ready(api, ticket)[1] == "KubernetesRefused"


# Live reads.


async def test_an_object_is_read_live_in_check_mode_too_and_need_not_be_declared(
    api: ModelApi, ticket: ObjectKey
) -> None:
    read: list[object] = []

    async def look(play: TicketPlay) -> None:
        node = await play.read(NODE, "node-1")
        found = await play.read(CONFIG_MAP, "web", namespace="elsewhere")
        read[:] = [
            node and node.metadata.name,
            found and found.data,
            await play.read(CONFIG_MAP, "web"),
        ]

    api.put(NODE, "node-1")
    api.put(CONFIG_MAP, "web", namespace="elsewhere", data={"a": "b"})
    async with operator(api, playbook(look)):
        assert read == ["node-1", {"a": "b"}, None]
    read.clear()
    reported = await Hand("tickets", Settings(), api).check(Watch(TICKET, playbook(look)), ticket)
    assert reported.recap.failure is None
    assert read == ["node-1", {"a": "b"}, None]


async def test_a_read_that_is_refused_is_a_failure_and_not_an_absence(
    api: ModelApi, ticket: ObjectKey
) -> None:
    async def refuse(call: Call) -> None:
        if call.resource == str(CONFIG_MAP):
            raise Forbidden(403, "Forbidden", "configmaps are not yours")

    async def look(play: TicketPlay) -> None:
        await play.read(CONFIG_MAP, "web")

    api.before = refuse
    async with operator(api, playbook(look)):
        assert ready(api, ticket)[1] == "KubernetesRefused"


async def test_objects_are_listed_live_by_their_labels_in_the_namespace_of_the_object(
    api: ModelApi, ticket: ObjectKey
) -> None:
    listed: list[str] = []

    async def look(play: TicketPlay) -> None:
        found = await play.read_list(NODE)
        found = [*found, *await play.read_list(SECRET, selector="app=web")]
        found = [*found, *await play.read_list(SECRET, namespace="elsewhere")]
        listed[:] = [each.metadata.name for each in found]

    api.put(NODE, "node-1")
    api.put(SECRET, "mine", metadata={"labels": {"app": "web"}})
    api.put(SECRET, "other")
    api.put(SECRET, "elsewhere", namespace="elsewhere", metadata={"labels": {"app": "web"}})
    async with operator(api, playbook(look)):
        assert listed == ["node-1", "mine", "elsewhere"]
    listed.clear()
    await Hand("tickets", Settings(), api).check(Watch(TICKET, playbook(look)), ticket)
    assert listed == ["node-1", "mine", "elsewhere"]


async def test_a_list_with_an_unreadable_object_is_a_failure_and_not_an_absence(
    api: ModelApi, ticket: ObjectKey
) -> None:
    async def look(play: TicketPlay) -> None:
        await play.read_list(NODE)

    api.put(NODE, "node-1", metadata={"labels": "web"})
    async with operator(api, playbook(look)):
        assert ready(api, ticket)[1] == "Undecodable"


@pytest.mark.parametrize("module", ["create", "patch", "record", "delete"])
async def test_a_process_that_may_have_lost_its_lease_changes_nothing(
    api: ModelApi, ticket: ObjectKey, module: str
) -> None:
    reached: list[str] = []

    async def act(play: TicketPlay) -> None:
        play.fence.close()
        try:
            if module == "create":
                await play.create(CONFIG_MAP, {"metadata": {"name": "web"}})
            elif module == "patch":
                await play.patch(DEPLOYMENT, "web", {"spec": {"replicas": 9}})
            elif module == "record":
                await play.record(replace(play.status, booking="claimed"))
            else:
                await play.delete(DEPLOYMENT, "web")
        except Fenced:
            reached.append(module)
            raise

    api.put(DEPLOYMENT, "web", spec={"replicas": 1}, metadata=owned_by(api, ticket))
    async with operator(api, playbook(act)):
        assert set(reached) == {module}
        assert [call for call in api.writes if call.resource != "leases.coordination.k8s.io"] == []


async def test_a_field_of_a_creation_is_removed_by_a_later_apply_without_it(
    api: ModelApi, ticket: ObjectKey
) -> None:
    """Also if the task calls both in each reconcile."""
    stated: dict[str, str] = {"a": "1", "b": "1"}

    async def both(play: TicketPlay) -> None:
        await play.create(CONFIG_MAP, {"metadata": {"name": "web"}, "data": {"a": "1", "b": "1"}})
        await play.apply(CONFIG_MAP, {"metadata": {"name": "web"}, "data": dict(stated)})

    async with operator(api, playbook(both), resync=5):
        assert api.read(CONFIG_MAP, WEB)["data"] == {"a": "1", "b": "1"}
        uid = api.read(CONFIG_MAP, WEB)["metadata"]["uid"]
        stated = {"a": "2"}
        await asyncio.sleep(30)
        made = api.read(CONFIG_MAP, WEB)
        assert made["data"] == {"a": "2"}
        assert made["metadata"]["uid"] == uid
        assert CREATED_FROM in made["metadata"]["annotations"], "the creation is still recognized"
        assert ready(api, ticket)[0] == "True"
        asked = len(requests(api, CONFIG_MAP))
        await asyncio.sleep(60)
        assert len(requests(api, CONFIG_MAP)) == asked, "a settled object costs no request"


@pytest.mark.parametrize("refused", [True, False])
async def test_a_dry_run_shows_what_the_api_server_refuses_and_stores_nothing(
    api: ModelApi, ticket: ObjectKey, refused: bool
) -> None:
    found: list[object] = []

    def validate(resource: Resource[Any], new: Any, old: Any) -> list[Cause]:
        return [Cause("data.a", "Too long")] if refused and str(resource) == "configmaps" else []

    async def run(play: TicketPlay) -> None:
        found.append(
            await play.dry_run(CONFIG_MAP, {"metadata": {"name": "web-dry-run"}, "data": {"a": "b"}})
        )

    api.server.validate = validate
    async with operator(api, playbook(run)):
        assert ready(api, ticket)[0] == "True"
        assert not api.exists(CONFIG_MAP, ObjectKey("default", "web-dry-run"))
    if refused:
        assert isinstance(found[0], Invalid)
        assert found[0].causes == (Cause("data.a", "Too long"),)
    else:
        assert found[0] is None


@pytest.mark.parametrize(
    ("error", "accepted"),
    [
        (Forbidden(403, "Forbidden", 'configmaps "w" is forbidden: violates PodSecurity'), False),
        (BadRequest(400, "BadRequest", "admission webhook denied the request"), False),
        (BadRequest(400, "BadRequest", 'admission webhook "w" does not support dry run'), True),
        (Forbidden(403, "Forbidden", 'User "u" cannot create resource "configmaps"'), False),
        (ServerError(500, "", "failed to create typed patch object (w): .data: duplicate entries"), False),
    ],
)
async def test_a_dry_run_that_checks_nothing_is_no_refusal(
    api: ModelApi, ticket: ObjectKey, error: ApiError, accepted: bool
) -> None:
    found: list[object] = []

    async def refuse(call: Call) -> None:
        if call.dry_run:
            raise error

    async def run(play: TicketPlay) -> None:
        found.append(await play.dry_run(CONFIG_MAP, {"metadata": {"name": "web-dry-run"}}))

    api.before = refuse
    async with operator(api, playbook(run)):
        assert ready(api, ticket)[0] == "True"
    assert found[0] is (None if accepted else error)


async def test_a_dry_run_that_gets_no_answer_fails_the_task(api: ModelApi, ticket: ObjectKey) -> None:
    async def refuse(call: Call) -> None:
        if call.dry_run:
            raise Unreachable("connection lost", maybe_sent=True)

    async def run(play: TicketPlay) -> None:
        await play.dry_run(CONFIG_MAP, {"metadata": {"name": "web-dry-run"}})

    api.before = refuse
    async with operator(api, playbook(run)):
        assert ready(api, ticket) == (
            "False",
            "KubernetesRefused",
            "The task 'run' failed: connection lost",
        )
