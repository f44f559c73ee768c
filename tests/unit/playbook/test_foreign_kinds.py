"""Kinds of other controllers, and kinds without a status: results are reported by Events."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from pilothouse.api import Kind
from pilothouse.cli.by_hand import Hand
from pilothouse.controller import EventType
from pilothouse.controller.events import EVENT
from pilothouse.kube import Condition, ObjectKey, ObjectMeta, Resource
from pilothouse.playbook import PAUSED, Play, Playbook, Status, TaskFailed, Watch, task
from pilothouse.playbook.awaited import PlaybookError
from pilothouse.playbook.watch import warn_of_foreign_statuses
from pilothouse.process import Settings
from pilothouse.testing import ModelApi
from tests.unit.operators import operating
from tests.unit.tickets import TICKET

pytestmark = pytest.mark.usefixtures("virtual_time")

FINALIZER = "tests.dev/copy"


class ConfigMap(msgspec.Struct, frozen=True):
    metadata: ObjectMeta
    data: Mapping[str, str] = {}


class PodCondition(msgspec.Struct, frozen=True):
    type: str
    status: str


class PodStatus(msgspec.Struct, frozen=True):
    phase: str = ""
    conditions: tuple[PodCondition, ...] = ()


class Pod(msgspec.Struct, frozen=True):
    metadata: ObjectMeta
    status: PodStatus = PodStatus()


class CertificateStatus(msgspec.Struct, frozen=True):
    phase: str = ""
    conditions: tuple[Condition, ...] = ()


class Certificate(msgspec.Struct, frozen=True):
    metadata: ObjectMeta
    status: CertificateStatus = CertificateStatus()


class WebSite(msgspec.Struct, frozen=True):
    metadata: ObjectMeta
    status: Status = Status()


class Stateless(msgspec.Struct, frozen=True):
    metadata: ObjectMeta


CONFIG_MAP = Resource("", "v1", "ConfigMap", "configmaps", ConfigMap)
POD = Resource("", "v1", "Pod", "pods", Pod)
CERTIFICATE = Resource("cert-manager.io", "v1", "Certificate", "certificates", Certificate)
SITE = Resource("example.com", "v1", "Site", "sites", WebSite)
APPS_SITE = replace(SITE, group="apps")
WEB_SITE = Kind(WebSite, group="example.com", version="v1")
STATELESS = Kind(Stateless, group="example.com", version="v1")
KEY = ObjectKey("default", "web")
READY = {"type": "Ready", "status": "True", "lastProbeTime": None}


class Seen:
    """A playbook that records the objects that it reconciles."""

    def __init__(self) -> None:
        self.seen: list[tuple[Any, bool]] = []
        self.cleaned: list[str] = []
        self.failure: TaskFailed | None = None

    def playbook(self, finalizer: str = "") -> Playbook[Any]:
        @task("it is seen")
        async def see(play: Play[Any, Any]) -> None:
            content = play.object.data if hasattr(play.object, "data") else play.status.phase
            self.seen.append((content, play.settled))
            if self.failure:
                raise self.failure

        @task("it is cleaned up")
        async def clean(play: Play[Any, Any]) -> None:
            self.cleaned.append(play.object.metadata.name)

        return Playbook(Play, tasks=[see], cleanup=[clean] if finalizer else [], finalizer=finalizer)


@pytest.fixture
def seen() -> Seen:
    return Seen()


def events(api: ModelApi) -> list[tuple[str, str]]:
    return [(each["type"], each["reason"]) for each in api.all(EVENT)]


async def test_by_default_the_status_is_written_for_own_kinds_only() -> None:
    def writes(kind: Kind[Any] | Resource[Any], **more: Any) -> bool | None:
        return Watch(kind, Playbook(Play, tasks=[]), **more).writes_status

    own: list[Kind[Any] | Resource[Any]] = [WEB_SITE, WEB_SITE.resource, TICKET, SITE]
    foreign: list[Kind[Any] | Resource[Any]] = [CERTIFICATE, POD, CONFIG_MAP, STATELESS, APPS_SITE]
    assert [writes(each) for each in own] == [True] * 4
    assert [writes(each) for each in foreign] == [False] * 5
    assert [writes(each, writes_status=True) for each in (WEB_SITE, SITE)] == [True] * 2
    assert [writes(each, writes_status=False) for each in (WEB_SITE, SITE)] == [False] * 2


async def test_a_certificate_of_another_project_keeps_its_conditions(api: ModelApi, seen: Seen) -> None:
    """Its view has the conditions, but not the other field that the engine writes."""
    theirs = {**READY, "reason": "Issued", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    api.put(CERTIFICATE, "web", status={"conditions": [theirs], "phase": "Issued"})
    seen.failure = TaskFailed("Down", "It is down.")
    async with operating(api, Watch(CERTIFICATE, seen.playbook(FINALIZER), resync=10)):
        await asyncio.sleep(60)
        assert api.read(CERTIFICATE, KEY)["status"] == {"conditions": [theirs], "phase": "Issued"}
        assert "status" not in {call.subresource for call in api.writes}
        assert events(api) == [("Warning", "Down")]


class Selective(Play[Any, Any]):
    """A play that leaves objects with an annotation to another operator."""

    def __init__(self, obj: Any, *, writes_status: bool = True, **engine: Any) -> None:
        ours = "tests.dev/theirs" not in obj.metadata.annotations
        super().__init__(obj, writes_status=writes_status and ours, **engine)


@pytest.mark.parametrize("failure", [None, TaskFailed("Down", "It is down.")])
async def test_a_play_may_leave_the_status_of_one_object_to_another_operator(
    api: ModelApi, failure: TaskFailed | None
) -> None:
    @task("it is seen")
    async def see(play: Play[Any, Any]) -> None:
        if failure:
            raise failure

    annotations = {"tests.dev/theirs": "true"}
    api.put(TICKET, "ours")
    api.put(TICKET, "theirs", metadata={"annotations": annotations})
    api.put(TICKET, "paused", metadata={"annotations": {**annotations, PAUSED: "true"}})
    watch = Watch(TICKET, Playbook(Selective, tasks=[see]), resync=10)
    async with operating(api, watch):
        await asyncio.sleep(60)
        checked = await Hand("tickets", Settings(), api).check(watch, ObjectKey("default", "theirs"))
    assert api.read(TICKET, ObjectKey("default", "ours"))["status"]["conditions"]
    assert {call.key.name for call in api.writes if call.subresource == "status"} == {"ours"}
    assert checked.status == {}


@pytest.mark.parametrize("resource", [CONFIG_MAP, POD, replace(POD, group="tests.dev")])
async def test_a_status_without_the_fields_that_the_engine_writes_is_refused(resource: Resource[Any]) -> None:
    with pytest.raises(PlaybookError, match=r"has no status with observed_generation.*writes_status=False"):
        Watch(resource, Playbook(Play, tasks=[]), writes_status=True)


async def test_a_pod_keeps_its_conditions_and_is_reconciled_when_its_status_changes(
    api: ModelApi, seen: Seen
) -> None:
    api.put(POD, "web", metadata={"generation": 1}, status={"phase": "Running", "conditions": [READY]})
    async with operating(api, Watch(POD, seen.playbook(), resync=10)):
        assert api.writes == []
        assert api.read(POD, KEY)["status"]["conditions"] == [READY]
        api.put(POD, "web", status={"phase": "Succeeded"})
        await asyncio.sleep(1)
        assert [content for content, _ in seen.seen] == ["Running", "Succeeded"]
        await asyncio.sleep(20)
        assert len(seen.seen) > 2
        assert api.calls == [], "a settled object costs no request"


async def test_a_config_map_is_reconciled_when_its_data_changes_and_cleaned_up(
    api: ModelApi, seen: Seen
) -> None:
    api.put(CONFIG_MAP, "web", data={"a": "1"})
    api.server.collection(CONFIG_MAP).objects[KEY]["metadata"].pop("generation", None)
    async with operating(api, Watch(CONFIG_MAP, seen.playbook(FINALIZER), resync=10)):
        assert api.read(CONFIG_MAP, KEY)["metadata"]["finalizers"] == [FINALIZER]
        await asyncio.sleep(15)
        assert seen.seen[:2] == [({"a": "1"}, False), ({"a": "1"}, True)], "known to be settled"
        api.put(CONFIG_MAP, "web", data={"a": "2"})
        await asyncio.sleep(1)
        assert seen.seen[-1] == ({"a": "2"}, False)
        api.remove(CONFIG_MAP, KEY)
        await asyncio.sleep(1)
        assert seen.cleaned == ["web"]
        assert not api.exists(CONFIG_MAP, KEY)
        assert [call.subresource for call in api.writes] == ["", ""]
        assert events(api) == []


async def test_a_failure_is_reported_by_an_event_and_logged_once(
    api: ModelApi, seen: Seen, caplog: pytest.LogCaptureFixture
) -> None:
    api.put(CONFIG_MAP, "web", data={"a": "1"})
    seen.failure = TaskFailed("Down", "It is down.")
    async with operating(api, Watch(CONFIG_MAP, seen.playbook())):
        await asyncio.sleep(60)
        assert events(api) == [("Warning", "Down")]
        assert len([each for each in caplog.records if "It is down." in each.getMessage()]) == 1
        assert not any(settled for _, settled in seen.seen)


async def test_a_pause_is_reported_by_an_event(api: ModelApi, seen: Seen) -> None:
    api.put(CONFIG_MAP, "web", metadata={"annotations": {PAUSED: "true"}})
    async with operating(api, Watch(CONFIG_MAP, seen.playbook(FINALIZER), resync=10)):
        await asyncio.sleep(1200)
        assert seen.seen == []
        assert events(api) == [("Normal", "Paused")], "recorded once"
        api.put(CONFIG_MAP, "web", metadata={"annotations": {PAUSED: "false"}})
        await asyncio.sleep(1)
        assert len(seen.seen) == 1


async def test_a_timeout_and_a_defect_are_reported_by_events(api: ModelApi) -> None:
    class Defect(Play[Any, Any]):
        def __init__(self, object: Any, **engine: Any) -> None:  # noqa: A002
            super().__init__(object, **engine)
            raise KeyError("it")

    @task("never ends")
    async def never(play: Play[Any, Any]) -> None:
        await asyncio.sleep(1e6)

    api.put(CONFIG_MAP, "web")
    async with operating(api, Watch(CONFIG_MAP, Playbook(Defect, tasks=[]))):
        await asyncio.sleep(10)
        assert events(api) == [("Warning", "UnexpectedError")]
    async with operating(api, Watch(CONFIG_MAP, Playbook(Play, tasks=[never]))):
        await asyncio.sleep(125)
        assert ("Warning", "Timeout") in events(api)


async def set_status(play: Play[Any, Any]) -> None:
    play.status = play.status


async def set_condition(play: Play[Any, Any]) -> None:
    play.condition("Copied", True, "Copied")


@pytest.mark.parametrize("function", [set_status, set_condition])
async def test_a_task_that_sets_the_status_fails_with_what_to_do(api: ModelApi, function: Any) -> None:
    api.put(CONFIG_MAP, "web")
    async with operating(api, Watch(CONFIG_MAP, Playbook(Play, tasks=[task("sets it")(function)]))):
        await asyncio.sleep(10)
        [event] = api.all(EVENT)
        assert event["reason"] == "NoStatus"
        assert "declare a Kind, or Watch(..., writes_status=True)" in event["note"]
        assert "status" not in api.read(CONFIG_MAP, KEY)


async def test_a_pod_whose_condition_the_operator_asks_to_write_gets_it(api: ModelApi) -> None:
    class OurStatus(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
        observed_generation: int = 0
        conditions: tuple[Condition, ...] = ()

    class OurPod(msgspec.Struct, frozen=True):
        metadata: ObjectMeta
        status: OurStatus = OurStatus()

    resource = Resource("", "v1", "Pod", "pods", OurPod)
    api.put(POD, "web", status={"phase": "Running"})
    async with operating(api, Watch(resource, Playbook(Play, tasks=[]), writes_status=True)):
        status = api.read(POD, KEY)["status"]
        assert status["phase"] == "Running"
        assert [each["type"] for each in status["conditions"]] == ["Ready"]


async def test_a_config_map_is_played_manually(api: ModelApi, seen: Seen) -> None:
    api.put(CONFIG_MAP, "web", data={"a": "1"})
    settings = Settings(pod_namespace="default", pod_name="pod-1", leader_elect=True)
    hand = Hand("copies", settings, api)
    watch = Watch(CONFIG_MAP, seen.playbook(FINALIZER))
    checked = await hand.check(watch, KEY)
    assert (checked.status, checked.finalizers) == ({}, [f"+{FINALIZER}"])
    played = await hand.play(watch, KEY)
    assert (played.status, played.finalizers) == ({}, [f"+{FINALIZER}"])
    api.remove(CONFIG_MAP, KEY)
    checked = await hand.check(watch, KEY)
    assert (checked.status, checked.finalizers) == ({}, [f"-{FINALIZER}"])
    assert EventType.WARNING not in [each["type"] for each in api.all(EVENT)]


async def test_a_status_that_probably_belongs_to_another_project_is_logged_at_start(
    caplog: pytest.LogCaptureFixture,
) -> None:
    theirs = replace(SITE, group="sites.dev")
    watches = [Watch(each, []) for each in (WEB_SITE, SITE, CERTIFICATE, POD, CONFIG_MAP)]
    warn_of_foreign_statuses([*watches, Watch(theirs, [])])
    [record] = caplog.records
    assert "writes the status of sites.sites.dev" in record.getMessage()
    assert "declare Watch(..., writes_status=False)" in record.getMessage()
    caplog.clear()
    warn_of_foreign_statuses([Watch(theirs, [], writes_status=chosen) for chosen in (True, False)])
    assert caplog.records == [], "the author has decided"
    warn_of_foreign_statuses([Watch(theirs, []), Watch(SITE, [])])
    assert caplog.records == [], "an operator that declares no kind declares its own as resources"
