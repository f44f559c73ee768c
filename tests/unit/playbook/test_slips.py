"""A slip of an author is one sentence that names the argument, the value and the fix; never a traceback."""

import asyncio
import logging
import math
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from pilothouse.api import Kind, Rule, Version
from pilothouse.cli.operator import require_operator
from pilothouse.controller import EventType
from pilothouse.kube import (
    Condition,
    KubeObject,
    ObjectKey,
    ObjectMeta,
    PartialObjectMetadata,
    PatchType,
    Resource,
)
from pilothouse.playbook import (
    Group,
    Plan,
    Play,
    Playbook,
    TaskFailed,
    Waiting,
    Watch,
    add_watch,
    child_name,
    task,
)
from pilothouse.playbook.arguments import with_article
from pilothouse.playbook.awaited import PlaybookError
from pilothouse.playbook.plain import plain
from pilothouse.playbook.watch import Secondary, require_distinct_names
from pilothouse.process import Environment, Manager, Settings
from pilothouse.testing import ModelApi, Scenario, explore
from tests.unit.playbook.configured import (
    CONFIG_MAP,
    DEPLOYMENT,
    POD,
    SECRET,
    named,
    operator,
    playbook,
    ready,
)
from tests.unit.tickets import TICKET, Ticket, TicketStatus

pytestmark = pytest.mark.usefixtures("virtual_time")

NODE: Resource[PartialObjectMetadata] = Resource(
    "", "v1", "Node", "nodes", PartialObjectMetadata, namespaced=False
)


class Site(msgspec.Struct, frozen=True):
    metadata: ObjectMeta


SITE = Kind(Site, "sites.example.com", "v1")


async def not_awaited() -> None:
    """Does nothing."""


def lone(play: Any) -> None:
    raise TaskFailed("no camel")  # type: ignore[call-arg]


def _set_phase(play: Any) -> None:
    play.status.phase = "Booked"


def _add_to_booking(play: Any) -> None:
    play.status.booking += "x"


def _set_item(play: Any) -> None:
    play.status.conditions[0] = None


def _set_seats(play: Any) -> None:
    play.object.spec.seats = 3


def _set_phase_of_a_variable(play: Any) -> None:
    status = play.status
    status.phase = "Booked"


# Each calls the framework wrongly, and the sentence that the object's status must contain.
SLIPS: list[tuple[Callable[[Any], Any], str]] = [
    # Reasons, conditions and Events.
    (
        lone,
        "TaskFailed missing 1 required positional argument: 'message'. Its arguments are: reason, message,",
    ),
    (
        lambda play: _fail("no camel"),
        "TaskFailed: the reason is 'no camel', but must be one word in CamelCase",
    ),
    (lambda play: _fail(""), "TaskFailed: the reason is '', but must be one word in CamelCase"),
    (lambda play: _fail(None), "TaskFailed: the reason is None, but must be one word"),
    (lambda play: _fail("A" * 129), "has 129 characters. Use at most 128"),
    (lambda play: _fail("Down", ["a"]), "TaskFailed: the message is a list, but must be text"),
    (
        lambda play: play.event("Bogus"),
        "play.event missing 2 required positional arguments: 'reason' and 'note'",
    ),
    (
        lambda play: play.event("Bogus", "Down", "It is down."),
        "the type is 'Bogus', but must be EventType.NORMAL",
    ),
    (lambda play: play.event(EventType.WARNING, "is down", "It is."), "play.event: the reason is 'is down'"),
    (lambda play: play.event(EventType.WARNING, "Is down", "It is."), "play.event: the reason is 'Is down'"),
    (lambda play: play.event(EventType.WARNING, "A" * 129, "It is."), "play.event: the reason 'AAA"),
    (
        lambda play: play.event(EventType.WARNING, "Down", 404),
        "play.event: the note is 404, but must be text",
    ),
    (lambda play: play.event(EventType.WARNING, "Down", "It is.", "x"), "play.event got too many positional"),
    (
        lambda play: play.event(EventType.WARNING, "Down", text="x"),
        "got an unexpected keyword argument 'text'",
    ),
    (lambda play: play.condition("Backed up", True, "Done"), "play.condition: the type is 'Backed up'"),
    (lambda play: play.condition("", True, "Done"), "play.condition: the type is ''"),
    (
        lambda play: play.condition("A", "True", "Done"),
        "play.condition('A'): the status is 'True', but must be True",
    ),
    (lambda play: play.condition("A", True, "all done"), "play.condition('A'): the reason is 'all done'"),
    (lambda play: play.condition("A", True, ""), "play.condition('A'): the reason is ''"),
    (lambda play: play.condition("A", True, "A" * 1025), "has 1025 characters. Use at most 1024"),
    (
        lambda play: play.condition("A", True, "Done", 5),
        "play.condition('A'): the message is 5, but must be text",
    ),
    (
        lambda play: setattr(play, "ready_reason", "all is well"),
        "play.ready_reason: the reason is 'all is well'",
    ),
    (lambda play: setattr(play, "ready_message", None), "play.ready_message is None, but must be text"),
    (lambda play: setattr(play, "ready", "yes"), "play.ready is 'yes', but must be True, False, or None"),
    (lambda play: play.ok(5), "play.ok: the message is 5, but must be text"),
    (lambda play: play.skip(None), "play.skip: the message is None, but must be text"),
    (lambda play: play.changed(b"x"), "play.changed: the message is bytes, but must be text"),
    (lambda play: play.hide(None), "play.hide: a value is None, but must be text or bytes"),
    # Waits.
    (lambda play: play.wait_for("it is so", False, reason="not yet"), "Waiting: the reason is 'not yet'"),
    (lambda play: play.wait_for(5, False), "play.wait_for: what the task waits for is 5"),
    (lambda play: play.wait_for("it is so", lambda: False), "is the function <lambda>, which is always true"),
    (lambda play: _wait("Down", 5), "Waiting: the message is 5, but must be text"),
    (
        lambda play: play.wait_for_rollout(None),
        "the workload is None, but must be a Deployment or a StatefulSet",
    ),
    # Names.
    (lambda play: play.aply(CONFIG_MAP, {}), "play.aply does not exist. Did you mean play.apply?"),
    (lambda play: play.zzz, "play.zzz does not exist. Set it in an earlier task, or correct the name."),
    (lambda play: play.get(CONFIG_MAP), "Its arguments are: resource, name, [namespace]."),
    # Kinds.
    (
        lambda play: play.apply("ConfigMap", {}),
        "play.apply: the kind is 'ConfigMap', which is not a Resource",
    ),
    (
        lambda play: play.apply({"data": {}}, CONFIG_MAP),
        "play.apply: the kind is a dict, which is not a Resource",
    ),
    (lambda play: play.apply(SITE, {}), "Pass its attribute `resource`: the kind Site has one"),
    (
        lambda play: play.apply(Site, {}),
        "the kind is the class Site, which is not a Resource. Pass the Resource",
    ),
    (lambda play: play.apply(CONFIG_MAP), "play.apply missing 1 required positional argument: 'body'"),
    (lambda play: play.create(None, {}), "play.create: the kind is None, which is not a Resource"),
    (lambda play: play.patch("a", "b", {}), "play.patch: the kind is 'a', which is not a Resource"),
    (lambda play: play.read("a", "b"), "play.read: the kind is 'a', which is not a Resource"),
    (lambda play: play.delete("a", "b"), "play.delete: the kind is 'a', which is not a Resource"),
    (lambda play: play.scale("a", "b", 1), "play.scale: the kind is 'a', which is not a Resource"),
    (lambda play: play.evict("a", "b"), "play.evict: the kind is 'a', which is not a Resource"),
    (lambda play: play.get("a", "b"), "play.get: the kind is 'a', which is not a Resource"),
    (lambda play: play.list("a", "b", "c"), "play.list: the kind is 'a', which is not a Resource"),
    (lambda play: play.owned("a"), "play.owned: the kind is 'a', which is not a Resource"),
    # Names, namespaces and numbers.
    (lambda play: play.get(CONFIG_MAP, None), "play.get(ConfigMap): the name is None, but must be the name"),
    (lambda play: play.get(CONFIG_MAP, ObjectKey("a", "b")), "play.get(ConfigMap): the name is an ObjectKey"),
    (lambda play: play.read(CONFIG_MAP, ""), "play.read(ConfigMap): the name is '', but must be the name"),
    (
        lambda play: play.read(CONFIG_MAP, "a/b"),
        "the name 'a/b' is not valid, because a name must not contain '/'",
    ),
    (lambda play: play.delete(CONFIG_MAP, "a", namespace=5), "play.delete(ConfigMap): the namespace is 5"),
    (lambda play: play.read(NODE, "a", namespace="b"), "play.read(Node): the kind is cluster-scoped"),
    (
        lambda play: play.delete(CONFIG_MAP, "a", propagation="All"),
        "propagation is 'All', but must be Background",
    ),
    (
        lambda play: play.scale(DEPLOYMENT, "a", "3"),
        "replicas is '3', but must be a whole number of at least 0",
    ),
    (
        lambda play: play.scale(DEPLOYMENT, "a", -1),
        "replicas is -1, but must be a whole number of at least 0",
    ),
    (lambda play: play.evict(DEPLOYMENT, "a"), "the kind is Deployment, but only a Pod can be evicted"),
    (
        lambda play: play.pod_log("a", tail_lines="5"),
        "play.pod_log: tail_lines is '5', but must be a whole number",
    ),
    (lambda play: child_name("a", None), "child_name: a part is None, but must be text"),  # type: ignore[arg-type]
    (lambda play: child_name("", ""), "child_name needs a part that is not empty"),
    # Manifests.
    (
        lambda play: play.apply(CONFIG_MAP, "text"),
        "the manifest of the ConfigMap is text, but must be a mapping",
    ),
    (
        lambda play: play.apply(CONFIG_MAP, None),
        "the manifest of the ConfigMap is None, but must be a mapping",
    ),
    (
        lambda play: play.apply(CONFIG_MAP, []),
        "the manifest of the ConfigMap is a list, but must be a mapping",
    ),
    (
        lambda play: play.create(CONFIG_MAP, []),
        "the manifest of the ConfigMap is a list, but must be a mapping",
    ),
    (
        lambda play: play.patch(CONFIG_MAP, "a", "b"),
        "the patch of the ConfigMap is text, but must be a mapping",
    ),
    (lambda play: play.run_job("text"), "the manifest of the Job is text, but must be a mapping"),
    (lambda play: play.run_job({"kind": "Pod"}), "the manifest of the Job: kind is 'Pod', but the Resource"),
    (
        lambda play: play.apply(CONFIG_MAP, {"kind": "Secret"}),
        "kind is 'Secret', but the Resource that is passed with it has 'ConfigMap'. Remove kind from",
    ),
    (
        lambda play: play.apply(DEPLOYMENT, {"apiVersion": "v1"}),
        "apiVersion is 'v1', but the Resource that is passed with it has 'apps/v1'. Remove apiVersion",
    ),
    (lambda play: play.create(CONFIG_MAP, {"apiVersion": None}), "apiVersion is None, but the Resource"),
    (lambda play: play.patch(CONFIG_MAP, "a", {"kind": "Pod"}), "the patch of the ConfigMap: kind is 'Pod'"),
    (lambda play: play.apply(CONFIG_MAP, {"metadata": None}), "metadata is None, but must be a mapping"),
    (lambda play: play.apply(CONFIG_MAP, {"metadata": "a"}), "metadata is 'a', but must be a mapping"),
    (lambda play: play.apply(CONFIG_MAP, {"metadata": {"name": 5}}), "metadata.name is 5, but must be text"),
    (
        lambda play: play.apply(CONFIG_MAP, {"metadata": {"name": ""}}),
        "metadata.name is '', but must be text",
    ),
    (
        lambda play: play.apply(CONFIG_MAP, {"metadata": {"name": "a/b"}}),
        "metadata.name is 'a/b', but a name",
    ),
    (
        lambda play: play.apply(CONFIG_MAP, {"metadata": {"labels": ["a"]}}),
        "metadata.labels is a list, but must",
    ),
    (
        lambda play: play.apply(CONFIG_MAP, {"metadata": {"labels": {"a": 5}}}),
        "metadata.labels.a is 5, but must be",
    ),
    (
        lambda play: play.apply(CONFIG_MAP, {"metadata": {"uid": "wrong"}}),
        "metadata.uid is stated, but only the API server sets it. Remove the field.",
    ),
    (
        lambda play: play.create(CONFIG_MAP, {"metadata": {"resourceVersion": "1"}}),
        "metadata.resourceVersion is stated, but only",
    ),
    (
        lambda play: play.apply(CONFIG_MAP, {"metadata": {"managedFields": []}}),
        "metadata.managedFields is stated, but only",
    ),
    (lambda play: play.apply(CONFIG_MAP, {"metadata": {"generateName": "a"}}), "State metadata.name instead"),
    (
        lambda play: play.apply(NODE, {"metadata": {"namespace": "a"}}, owned=False),
        "metadata.namespace is 'a', but the kind is cluster-scoped. Remove the field",
    ),
    (lambda play: play.apply(NODE, {}), "without a namespace: use owned=False"),
    (
        lambda play: play.apply(DEPLOYMENT, {"spec": {"a": [0, math.nan]}}),
        "spec.a[1] is nan, which a manifest",
    ),
    (
        lambda play: play.apply(DEPLOYMENT, {"spec": {"a": math.inf}}),
        "spec.a is inf, which a manifest cannot",
    ),
    (lambda play: play.apply(DEPLOYMENT, {"spec": {"a": {"b"}}}), "spec.a is a set, which a manifest cannot"),
    (
        lambda play: play.apply(SECRET, {"data": {"a": b"hunter2"}}),
        "data.a is bytes, which a manifest cannot",
    ),
    (lambda play: play.apply(SECRET, {"stringData": {"a": b"x"}}), "Write text: value.decode()"),
    (lambda play: play.apply(DEPLOYMENT, {"spec": {"a": datetime.now(UTC)}}), "spec.a is a datetime, which"),
    (lambda play: play.apply(DEPLOYMENT, {"spec": {"a": timedelta(1)}}), "spec.a is a timedelta, which"),
    (
        lambda play: play.apply(CONFIG_MAP, {"data": {1: "a"}}),
        "a key in data is 1, but the keys of a mapping must be",
    ),
    (lambda play: play.apply(CONFIG_MAP, {None: 1}), "a key in the top level is None, but the keys"),
    (lambda play: play.apply(DEPLOYMENT, {"spec": {"a": 2**63}}), "spec.a is an integer of 64 bits, which"),
    (
        lambda play: play.apply(DEPLOYMENT, {"spec": {"a": 10**5000}}),
        "spec.a is an integer of 16610 bits, which",
    ),
    (lambda play: play.apply(DEPLOYMENT, {"spec": {"a": object()}}), "spec.a is an object, which a manifest"),
    (
        lambda play: play.apply(DEPLOYMENT, {"spec": {"a": not_awaited()}}),
        "spec.a is a coroutine, which a manifest",
    ),
    (lambda play: play.apply(DEPLOYMENT, {"spec": {"a": str.upper}}), "spec.a is the function upper, which"),
    (lambda play: play.apply(CONFIG_MAP, {"data": {"a": "\ud800"}}), "data.a is text with a lone surrogate"),
    (lambda play: play.apply(CONFIG_MAP, _endless()), "is nested too deeply: it probably contains itself"),
    (
        lambda play: play.apply(CONFIG_MAP, {"metadata": {"ownerReferences": [5]}}),
        "metadata.ownerReferences[0] is 5, but must be a mapping",
    ),
    (lambda play: play.create(DEPLOYMENT, {"spec": {"a": math.nan}}), "spec.a is nan, which a manifest"),
    (
        lambda play: play.patch(DEPLOYMENT, "a", {"spec": {"a": {1}}}),
        "the patch of the Deployment: spec.a is a set",
    ),
    (lambda play: play.run_job({"spec": {"a": math.nan}}), "the manifest of the Job: spec.a is nan"),
    # Indexes.
    (
        lambda play: play.list(CONFIG_MAP, "none", "a"),
        "has no index 'none' of configmaps. Its indexes are: 'owner'.",
    ),
    (lambda play: play.list(CONFIG_MAP, 5, "a"), "has no index 5 of configmaps"),
    (
        lambda play: play.list(CONFIG_MAP, "owner", ["a"]),
        "the value for the index 'owner' is a list, but must be",
    ),
    (lambda play: play.list(CONFIG_MAP, by="owner"), "play.list got an unexpected keyword argument 'by'"),
    # The status.
    (lambda play: setattr(play, "status", None), "play.status is None, but must be a TicketStatus"),
    (
        _set_phase,
        "play.status.phase cannot be changed in place, because the status is frozen. Write play.status = "
        "replace(play.status, phase=...), where replace is from msgspec.structs.",
    ),
    (_add_to_booking, "Write play.status = replace(play.status, booking=...), where"),
    (
        _set_item,
        "play.status.conditions[0] cannot be changed in place, because the status is frozen. Write "
        "play.status = replace(play.status, conditions=...),",
    ),
    (
        lambda play: play.status.conditions.append(None),
        "play.status.conditions cannot be changed in place, because the status is frozen. Write play.status",
    ),
    (
        _set_seats,
        "play.object.spec.seats cannot be changed in place, because play.object is frozen. To change the "
        "object in the cluster, use play.patch; to change its status, set play.status.",
    ),
    (
        _set_phase_of_a_variable,
        "status.phase cannot be set, because TicketStatus is frozen. Make a changed copy: replace(..., ",
    ),
    (
        lambda play: setattr(play.status, "phase", "Booked"),
        "a field cannot be set, because TicketStatus is frozen. Make a changed copy",
    ),
    (
        lambda play: setattr(play, "status", {"phase": "a"}),
        "play.status is a dict, but must be a TicketStatus",
    ),
    (
        lambda play: setattr(play, "status", play.object),
        "play.status is a Ticket, but must be a TicketStatus",
    ),
    (
        lambda play: setattr(play, "status", replace(play.status, phase=5)),
        "play.status has a value of the wrong type: Expected `str`, got `int` - at `$.phase`",
    ),
    (
        lambda play: setattr(play, "status", replace(play.status, phase=object())),
        "play.status has a value of the",
    ),
    (
        lambda play: _set_condition(play, reason="all done"),
        "the condition A of play.status: the reason is 'all done'",
    ),
    (lambda play: _set_condition(play, type="a b"), "a condition of play.status: the type is 'a b'"),
    (
        lambda play: _set_condition(play, status="true"),
        "the condition A of play.status: the status is 'true'",
    ),
    (
        lambda play: TaskFailed("Down", "It is down."),
        "it returned a TaskFailed instead of raising it. Write `raise`",
    ),
    (lambda play: play.read_list(NODE, namespace="a"), "play.read_list(Node): the kind is cluster-scoped"),
    # Flags: the text "no" counts as true, and None as false.
    (lambda play: play.apply(CONFIG_MAP, {}, adopt="no"), "play.apply: adopt is 'no', but must be True or"),
    (lambda play: play.apply(CONFIG_MAP, {}, owned=0), "play.apply: owned is 0, but must be True or False"),
    (lambda play: play.apply(CONFIG_MAP, {}, force=None), "play.apply: force is None, but must be True or"),
    (lambda play: play.create(CONFIG_MAP, {}, owned="no"), "play.create: owned is 'no', but must be True or"),
    (lambda play: play.patch(CONFIG_MAP, "a", {}, owned=None), "play.patch: owned is None, but must be"),
    (lambda play: play.delete(CONFIG_MAP, "a", owned=None), "play.delete: owned is None, but must be True"),
    (lambda play: play.scale(DEPLOYMENT, "a", 1, owned=""), "play.scale: owned is '', but must be True or"),
    (lambda play: play.evict(POD, "a", owned=[]), "play.evict: owned is [], but must be True or False"),
    (lambda play: play.run_job({}, owned=None), "play.run_job: owned is None, but must be True or False"),
    (lambda play: play.run_job({}, adopt="no"), "play.run_job: adopt is 'no', but must be True or False"),
    (lambda play: play.run_job({}, ready="no"), "play.run_job: ready is 'no', but must be True or False"),
    (lambda play: play.wait_for("it", True, ready="no"), "play.wait_for: ready is 'no', but must be True or"),
    (
        lambda play: TaskFailed("Down", "It is down.", permanent="no"),  # type: ignore[arg-type]
        "TaskFailed: permanent is 'no', but must be True or False",
    ),
    (
        lambda play: Waiting("Down", "It is down.", fallback=1, ready="no"),  # type: ignore[arg-type]
        "Waiting: ready is 'no', but must be True or False",
    ),
    (lambda play: play.record({"phase": "a"}), "play.status is a dict, but must be a TicketStatus"),
]


def _fail(reason: Any, message: Any = "It is down.") -> None:
    raise TaskFailed(reason, message)


def _set_condition(play: Any, **fields: str) -> None:
    condition = msgspec.structs.replace(Condition("A", "True", "Done"), **fields)
    play.status = replace(play.status, conditions=(condition,))


def _wait(reason: Any, message: Any) -> None:
    raise Waiting(reason, message, fallback=1)


def _endless() -> dict[str, Any]:
    body: dict[str, Any] = {}
    body["data"] = body
    return body


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: Group("a", [], parallel="no"), "Group 'a': parallel is 'no', but must be True or False"),  # type: ignore[arg-type]
        (lambda: Plan("a", [], when=bool, blocking=None), "Plan 'a': blocking is None, but must be True"),  # type: ignore[arg-type]
        (lambda: Play(Site(ObjectMeta()), check="no"), "Play: check is 'no', but must be True or False"),  # type: ignore[arg-type]
        (lambda: Play(Site(ObjectMeta()), settled=0), "Play: settled is 0, but must be True or False"),  # type: ignore[arg-type]
        (lambda: Resource("", "v1", "A", "as", Site, namespaced="no"), "Resource A: namespaced is 'no', but"),  # type: ignore[arg-type]
        (lambda: Kind(Site, "a.example.com", "v1", namespaced=0), "Kind Site: namespaced is 0, but must be"),  # type: ignore[arg-type]
        (lambda: Version("v2", Site, served="no"), "Version v2: served is 'no', but must be True or False"),  # type: ignore[arg-type]
        (lambda: Rule("true", "a", optional_old_self=""), "Rule 'true': optional_old_self is '', "),  # type: ignore[arg-type]
        (lambda: Settings(leader_elect="no"), "Settings: leader_elect is 'no', but must be True or False"),  # type: ignore[arg-type]
        (lambda: Environment({}).flag("A", "no"), "Environment.flag('A'): default is 'no', but must be True"),  # type: ignore[arg-type]
        (lambda: explore(Scenario, elected="no"), "explore: elected is 'no', but must be True or False"),  # type: ignore[arg-type]
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
async def test_a_flag_that_is_neither_true_nor_false_is_refused(
    call: Callable[[], Any], sentence: str
) -> None:
    with pytest.raises(TypeError, match=re.escape(sentence)):
        call()


async def test_a_flag_of_a_patch_is_checked(api: ModelApi) -> None:
    key = api.put(TICKET, "t", spec={"seats": 2})
    with pytest.raises(TypeError, match="dry_run is None, but must be True or False"):
        await api.patch(TICKET, key, {}, type=PatchType.MERGE, dry_run=None)  # type: ignore[arg-type]


@pytest.mark.parametrize(("slip", "sentence"), SLIPS, ids=[sentence[:60] for _, sentence in SLIPS])
async def test_a_slip_in_a_task_fails_it_with_a_sentence(
    api: ModelApi, slip: Callable[[Any], Any], sentence: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def slipping(play: Any) -> Any:
        result = slip(play)
        if asyncio.iscoroutine(result):
            await result
        return result if isinstance(result, BaseException) else None

    key = api.put(TICKET, "t", spec={"seats": 2})
    async with operator(api, playbook(slipping)):
        status, reason, message = ready(api, key)
        assert (status, reason) == ("False", "UnexpectedError")
        assert message.startswith("The task 'slipping' failed: ")
        assert sentence in message
        assert "hunter2" not in message
        assert not [record for record in caplog.records if record.exc_info], "no traceback"
        assert [
            call for call in api.writes if call.resource != str(TICKET) and "events" not in call.resource
        ] == []


class Color(Enum):
    RED = "red"


class Part(msgspec.Struct):
    name: str
    size: int = 0


async def test_a_manifest_may_have_everything_that_json_can_express() -> None:
    body = {
        "a": (1, 2.5, True, None),
        "b": Part("x"),
        "c": Color.RED,
        "d": Decimal("0.5"),
        Color.RED: -(2**63),
        "e": "1234567890123456789012345",
    }
    assert plain(body, "it") == {
        "a": [1, 2.5, True, None],
        "b": {"name": "x", "size": 0},
        "c": "red",
        "d": "0.5",
        "red": -(2**63),
        "e": "1234567890123456789012345",
    }


async def test_a_manifest_needs_a_namespace_if_the_owner_has_none(api: ModelApi) -> None:
    cluster: Resource[Ticket] = replace_resource(TICKET)
    found: list[str] = []

    async def keep(play: Any) -> None:
        with pytest.raises(PlaybookError) as refused:
            await play.apply(CONFIG_MAP, {})
        found.append(str(refused.value))
        with pytest.raises(PlaybookError) as refused:
            await play.read(CONFIG_MAP, "a")
        found.append(str(refused.value))

    api.put(cluster, "t")
    manager = Manager("tickets", Settings(health_host="127.0.0.1", health_port=0), api)
    add_watch(manager, Watch(cluster, playbook(keep), owns=[CONFIG_MAP]))
    process = asyncio.create_task(manager.run(asyncio.Event()))
    await asyncio.sleep(1)
    process.cancel()
    await asyncio.gather(process, return_exceptions=True)
    assert "metadata.namespace is missing. State it, because Ticket t is cluster-scoped" in found[0]
    assert "play.read(ConfigMap): the object 'a' needs a namespace" in found[1]


def replace_resource(resource: Resource[Ticket]) -> Resource[Ticket]:
    return Resource(
        resource.group, resource.version, resource.kind, resource.plural, resource.view, namespaced=False
    )


async def test_a_status_may_be_set_to_equal_and_valid_ones(api: ModelApi, ticket: ObjectKey) -> None:
    async def book(play: Any) -> None:
        play.status = replace(play.status)
        play.status = TicketStatus(phase="Booked", conditions=play.status.conditions)

    async with operator(api, playbook(book)):
        assert ready(api, ticket)[0] == "True"
        assert api.read(TICKET, ticket)["status"]["phase"] == "Booked"


async def test_values_in_a_status_get_the_declared_types(api: ModelApi, ticket: ObjectKey) -> None:
    condition = {"type": "A", "status": "True", "reason": "Done", "message": ""}

    async def book(play: Any) -> None:
        play.status = replace(play.status, conditions=[condition])
        assert [each.type for each in play.status.conditions] == ["A"]

    async with operator(api, playbook(book)):
        assert ready(api, ticket)[0] == "True"


class Slips(Play[Any, Any]):
    def failed(self, failure: TaskFailed) -> None:
        self.ready_reason = "it failed"


async def test_a_slip_outside_of_the_tasks_is_a_sentence(
    api: ModelApi, ticket: ObjectKey, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(play: Any) -> None:
        raise TaskFailed("Down", "It is down.")

    async with operator(api, Playbook(Slips, tasks=[named(fail)])):
        await asyncio.sleep(60)
        status, reason, message = ready(api, ticket)
        assert (status, reason) == ("False", "UnexpectedError")
        assert message.startswith("play: play.ready_reason: the reason is 'it failed', but must be one word")
        assert not [record for record in caplog.records if record.exc_info], "no traceback"
        lines = [each for each in caplog.records if "it failed" in each.getMessage()]
        assert len([each for each in lines if each.levelno >= logging.WARNING]) == 1, "logged once"


class Optional(msgspec.Struct, frozen=True, gc=False):
    metadata: ObjectMeta
    status: TicketStatus | None = None


async def test_a_status_that_the_object_does_not_have_yet_may_be_set() -> None:
    play: Any = Play(Optional(ObjectMeta(name="a")))
    play.status = TicketStatus(phase="a")
    with pytest.raises(PlaybookError, match=r"play\.status is None, but must be a TicketStatus"):
        play.status = None
    with pytest.raises(PlaybookError, match=r"play\.status is an Optional, but must be a TicketStatus"):
        play.status = play.object


# At construction.


@task("one")
async def one(play: Any) -> None:
    """Does nothing."""


@task("one")
async def other_one(play: Any) -> None:
    """Does nothing."""


async def undecorated(play: Any) -> None:
    """Does nothing."""


def of_object(obj: KubeObject) -> list[str]:
    return []


def no_argument() -> list[str]:
    return []


async def asynchronous(obj: KubeObject) -> list[str]:
    return []


VIEWLESS: Resource[Any] = Resource("", "v1", "Thing", "things", dict)
ANY: Any = Playbook
WATCH: Any = Watch
SECONDARY: Any = Secondary
GROUP: Any = Group
PLAN: Any = Plan
TASK: Any = task


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda: ANY(Play, tasks=one),
            "the Playbook: tasks is the task 'one', which is not a list. Pass a list",
        ),
        (lambda: ANY(Play, tasks=None), "the Playbook: tasks is None, which is not a list"),
        (
            lambda: ANY(Play, tasks=[], cleanup=one, finalizer="a/b"),
            "cleanup is the task 'one', which is not",
        ),
        (lambda: ANY(Play, tasks=[undecorated]), "the function undecorated in tasks is not a task. Decorate"),
        (lambda: ANY(Play, tasks=[undecorated(None)]), "a call of undecorated in tasks is not a task"),
        (lambda: ANY(Play, tasks=[task("a")]), r"@task(...) without a function in tasks is not a task"),
        (lambda: ANY(Play, tasks=[[one]]), "a list in tasks is not a task"),
        (lambda: ANY(Play, tasks=["one"]), "'one' in tasks is not a task"),
        (lambda: ANY(Play, tasks=[one, other_one]), "`tasks` of the Playbook has two different tasks 'one'"),
        (lambda: ANY(Play, tasks=[Group("g", [one]), other_one]), "two different tasks 'one'. Rename one"),
        (
            lambda: ANY(Play, tasks=[task("a", notify=[one])(undecorated), other_one]),
            "two different tasks 'one'",
        ),
        (
            lambda: ANY(Play, tasks=[], cleanup=[one, other_one], finalizer="a/b"),
            "`cleanup` of the Playbook has two different tasks 'one'",
        ),
        (
            lambda: ANY(Play, tasks=[Plan("p", [], when=bool), Plan("p", [one], when=bool)]),
            "there are two plans 'p'. Rename one of them.",
        ),
        (lambda: ANY(Ticket, tasks=[]), "play is the class Ticket, but must be Play, a subclass of Play, or"),
        (lambda: ANY([one], tasks=[]), "play is a list, but must be Play"),
        (
            lambda: ANY(Play, tasks=[], cleanup=[one], finalizer=5),
            "the finalizer of the Playbook is 5, but must be",
        ),
        (lambda: ANY(Play, tasks=[], retired_finalizers=5), "retired_finalizers is 5, which is not a list"),
        (lambda: GROUP("g", one), "Group 'g': tasks is the task 'one', which is not a list"),
        (lambda: GROUP([one], "g"), "Group: the name is a list, but must be text"),
        (
            lambda: PLAN("p", [undecorated], when=bool),
            "Plan 'p': the function undecorated in tasks is not a task",
        ),
        (lambda: PLAN("p", [one], when=True), "the trigger of the plan 'p' is True, but must be a function"),
        (
            lambda: PLAN("p", [one], when=lambda: True),
            "the trigger of the plan 'p' must take one argument: the play",
        ),
        (lambda: TASK("a", notify=one), "the task 'a': notify is the task 'one', which is not a list"),
        (lambda: TASK("a", notify=[undecorated]), "the function undecorated in notify is not a task"),
        (lambda: WATCH(TICKET, [task]), "the function task in tasks is not a task"),
        (lambda: WATCH(TICKET, one), "tasks is the task 'one', which is not a list"),
        (lambda: WATCH([one], TICKET), "Watch: the kind is a list. Pass a Kind or a Resource"),
        (lambda: WATCH("Ticket", [one]), "Watch: the kind is 'Ticket'. Pass a Kind or a Resource"),
        (
            lambda: WATCH(TICKET, [one], watches=[CONFIG_MAP]),
            "watches has the Resource ConfigMap, which is not a Secondary",
        ),
        (lambda: WATCH(TICKET, [one], resync="10m"), "resync is '10m', but must be a number of seconds"),
        (lambda: WATCH(TICKET, [one], resync=timedelta(1)), "but must be a number of seconds"),
        (lambda: WATCH(TICKET, [one], workers=0), "workers is 0, so no object would be reconciled"),
        (lambda: WATCH(TICKET, [one], workers="4"), "workers is '4', but must be a whole number"),
        (lambda: WATCH(TICKET, [one], selector={"app": "web"}), "selector is a dict, but must be text"),
        (lambda: WATCH(TICKET, [one], selector="app in web"), "the selector is not valid"),
        (lambda: WATCH(TICKET, [one], field_selector="name"), "the selector is not valid"),
        (lambda: WATCH(TICKET, [one], namespaces=[""]), "'' in namespaces is not the name of a namespace"),
        (
            lambda: WATCH(TICKET, [one], namespaces=["A b"]),
            "'A b' in namespaces is not the name of a namespace",
        ),
        (
            lambda: WATCH(TICKET, [one], owns=CONFIG_MAP),
            "owns is the Resource ConfigMap, which is not a list. Pass a list: owns=[...].",
        ),
        (
            lambda: WATCH(TICKET, [one], owns=SITE),
            "owns is the Kind Site, which is not a list. Pass a list: owns=[...].",
        ),
        (
            lambda: WATCH(TICKET, [one], owns=[SITE]),
            "owns has the Kind Site, which is not a Resource. Pass its Resource: KIND.resource.",
        ),
        (lambda: WATCH(TICKET, [one], owns={CONFIG_MAP}), "owns is a set, which is not a list"),
        (
            lambda: WATCH(TICKET, [one], watches=Secondary(CONFIG_MAP)),
            "watches is a Secondary, which is not a list. Pass a list: watches=[...].",
        ),
        (
            lambda: WATCH(TICKET, [one], namespaces=["a" * 64]),
            "in namespaces is not the name of a namespace. Use at most 63 lower-case letters",
        ),
        (
            lambda: WATCH(TICKET, [one], namespaces=["a", "b", "a"]),
            "namespaces contains 'a' twice. Name it once.",
        ),
        (
            lambda: WATCH(TICKET, [one], owns=[CONFIG_MAP, CONFIG_MAP]),
            "The Watch of tickets.tests.dev: owns contains the Resource ConfigMap twice. Name it once.",
        ),
        (
            lambda: WATCH(TICKET, [one], watches=[Secondary(CONFIG_MAP), Secondary(CONFIG_MAP)]),
            "watches contains the Secondary of configmaps twice. Name it once.",
        ),
        (
            lambda: task("two", notify=[one, one]),
            "the task 'two': notify contains the task 'one' twice. Name it once.",
        ),
        (
            lambda: require_operator("tickets", [Settings, Settings]),
            "the operator: settings contains the class Settings twice. Name it once.",
        ),
        (
            lambda: WATCH(TICKET, [one], owns=[Secondary(CONFIG_MAP)]),
            "owns has a Secondary, which is not a Resource",
        ),
        (
            lambda: WATCH(TICKET, [one, other_one]),
            "The Watch of tickets.tests.dev has two different tasks 'one'",
        ),
        (lambda: WATCH(VIEWLESS, [one]), "the view is the class dict, but must be a Struct of objects"),
        (
            lambda: SECONDARY(VIEWLESS),
            "the Secondary of things: the view is the class dict, but must be a Struct",
        ),
        (lambda: WATCH(TICKET, [one], namespaces=[5]), "a namespace is 5, but must be text"),
        (
            lambda: WATCH(TICKET, [one], predicate=of_object),
            "predicate must take two arguments: the old object and",
        ),
        (lambda: WATCH(TICKET, [one], transform=None), "transform is None, but must be a function"),
        (
            lambda: WATCH(TICKET, [one], writes_status="no"),
            "writes_status is 'no', but must be True, False or None",
        ),
        (
            lambda: WATCH(TICKET, [one], indexes=[of_object]),
            "indexes is a list, but must be a mapping from names",
        ),
        (lambda: WATCH(TICKET, [one], indexes={"a": "b"}), "the index 'a' is 'b', but must be a function"),
        (lambda: WATCH(TICKET, [one], indexes={"a": asynchronous}), "the index 'a' is an async def"),
        (
            lambda: WATCH(TICKET, [one], indexes={"a": no_argument}),
            "the index 'a' must take one argument: an object",
        ),
        (lambda: WATCH(TICKET, [one], name=5), "name is 5, but must be text"),
        (lambda: SECONDARY("ConfigMap"), "Secondary: the kind is 'ConfigMap', which is not a Resource"),
        (lambda: SECONDARY(SITE), "Pass its attribute `resource`"),
        (
            lambda: SECONDARY(CONFIG_MAP, mapper="owner"),
            "the mapper of the Secondary of configmaps is 'owner'",
        ),
        (lambda: SECONDARY(CONFIG_MAP, indexes={"a": 5}), "the Secondary of configmaps: the index 'a' is 5"),
        (
            lambda: SECONDARY(CONFIG_MAP, selector=5),
            "the Secondary of configmaps: selector is 5, but must be text",
        ),
    ],
)
async def test_a_slip_in_a_declaration_is_refused_at_start(make: Callable[[], object], sentence: str) -> None:
    with pytest.raises(PlaybookError) as refused:
        make()
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)


async def test_the_same_task_may_be_in_two_places() -> None:
    made: Playbook[Any] = Playbook(
        Play, tasks=[one, Group("again", [one])], cleanup=[one], finalizer="a.example.com/b"
    )
    assert made.tasks[0] is made.cleanup[0]


async def test_two_watches_with_one_name_are_refused_with_file_and_line() -> None:
    other: Resource[Ticket] = Resource("other.dev", "v1", "Ticket", "tickets", Ticket)
    watches = [Watch(TICKET, [one]), Watch(other, [one])]
    with pytest.raises(PlaybookError) as refused:
        require_distinct_names(watches)
    message = str(refused.value)
    assert message.startswith(
        "two watches are named 'ticket': that of tickets.tests.dev (playbook/test_slips.py:"
    )
    assert "that of tickets.other.dev (playbook/test_slips.py:" in message
    assert message.endswith("Give one of them another name: Watch(..., name=...).")
    with pytest.raises(PlaybookError, match="two watches are named 'ticket'"):
        require_distinct_names([watches[0], watches[0]])
    require_distinct_names([watches[0], Watch(other, [one], name="others")])


async def test_values_of_a_plan_that_json_cannot_express_are_a_sentence(
    api: ModelApi, ticket: ObjectKey
) -> None:
    plan: Plan[Any] = Plan("upgrade", [one], on_change=lambda play: object())
    async with operator(api, Playbook(Play, tasks=[plan])):
        message = ready(api, ticket)[2]
        assert "`on_change` of the plan 'upgrade' returned a value that JSON cannot express" in message


@pytest.mark.parametrize(
    "words",
    [
        "an int",
        "a str",
        "an Etcd",
        "a dict",
        "a UUID",
        "an SSLContext",
        "an HTTPStatus",
        "a Uniform",
        "a User",
    ],
)
async def test_a_type_has_its_article(words: str) -> None:
    assert with_article(words.split()[1]) == words
