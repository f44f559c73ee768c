"""The names that a Kind derives from its view, and its use in a Watch."""

import re
from typing import Any

import msgspec
import pytest

from pilothouse.api import Kind, ManagedResource
from pilothouse.api.crd import crd
from pilothouse.api.kind import plural_of
from pilothouse.cli import main
from pilothouse.kube import ObjectMeta, Resource
from pilothouse.playbook import Play, Playbook, Status, Watch, task


class WebPolicySpec(msgspec.Struct, frozen=True):
    host: str = ""


class WebPolicy(msgspec.Struct, frozen=True):
    metadata: ObjectMeta = ObjectMeta()
    spec: WebPolicySpec = WebPolicySpec()
    status: Status = Status()


WEB_POLICY = Kind(WebPolicy, group="example.com", version="v1")


@task("nothing is done")
async def nothing(play: Play[WebPolicy, Status]) -> None: ...


def test_names_come_from_the_view() -> None:
    assert WEB_POLICY.resource == Resource("example.com", "v1", "WebPolicy", "webpolicies", WebPolicy)
    assert (WEB_POLICY.kind, WEB_POLICY.title) == ("WebPolicy", "WebPolicy")


def test_explicit_names_override_derived_ones() -> None:
    kind = Kind(WebPolicy, "example.com", "v1", kind="Policy", plural="rules", namespaced=False, title="A")
    assert kind.resource == Resource("example.com", "v1", "Policy", "rules", WebPolicy, namespaced=False)
    assert kind.title == "A"


def test_a_kind_without_columns_shows_whether_its_objects_are_ready() -> None:
    [version] = crd(WEB_POLICY)["spec"]["versions"]
    assert [each["name"] for each in version["additionalPrinterColumns"]] == [
        "Ready",
        "Reason",
        "Message",
        "Age",
    ]


@pytest.mark.parametrize(
    ("word", "plural"),
    [
        ("ticket", "tickets"),
        ("policy", "policies"),
        ("gateway", "gateways"),
        ("box", "boxes"),
        ("class", "classes"),
        ("batch", "batches"),
    ],
)
def test_regular_plurals(word: str, plural: str) -> None:
    assert plural_of(word) == plural


def test_a_watch_takes_a_kind_and_its_tasks() -> None:
    watch = Watch(WEB_POLICY, tasks=[nothing])
    assert watch.resource == WEB_POLICY.resource
    assert watch.name == "webpolicy"
    assert (watch.playbook.tasks, watch.playbook.cleanup) == ((nothing,), ())
    assert watch.playbook is watch.playbook


def test_a_watch_takes_a_resource_and_a_playbook() -> None:
    playbook = Playbook(Play, tasks=[nothing])
    watch = Watch(WEB_POLICY.resource, playbook)
    assert watch.resource is WEB_POLICY.resource
    assert watch.playbook is playbook


def plain(play: object) -> None: ...


@pytest.mark.parametrize(
    ("kind", "tasks", "owns", "words"),
    [
        (WebPolicy, [nothing], (), "Pass a Kind or a Resource"),
        (WEB_POLICY, nothing, (), r"Pass a list: tasks=\[...\]"),
        (WEB_POLICY, [plain], (), r"the function plain in tasks is not a task. Decorate .* @task\(\"...\"\)"),
        (WEB_POLICY, plain, (), r"tasks is the function plain, which is not a list. Pass a list"),
        (WEB_POLICY, [[nothing]], (), "is not a task"),
        (WEB_POLICY, [nothing], [WEB_POLICY], "KIND.resource"),
        (WEB_POLICY, [nothing], ["ConfigMap"], "owns has 'ConfigMap', which is not a Resource"),
    ],
)
def test_a_wrong_value_is_refused_and_named(kind: Any, tasks: Any, owns: Any, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        Watch(kind, tasks, owns=owns)


def test_one_watch_is_not_a_list_of_watches(capsys: pytest.CaptureFixture[str]) -> None:
    watches: Any = Watch(WEB_POLICY, tasks=[nothing])
    assert main("policies", watches, ["explain"]) == 1
    assert capsys.readouterr().err == "policies: the watches are a Watch. Pass a list: [Watch(...)].\n"


@pytest.mark.parametrize(
    "name", ["short_names", "categories", "columns", "rules", "selectable", "versions", "manages"]
)
def test_a_text_in_place_of_a_list_is_refused(name: str) -> None:
    class Site(msgspec.Struct):
        metadata: ObjectMeta = ObjectMeta()

    with pytest.raises(TypeError, match=rf"^Kind Site: {name} is 'ws', .*Pass a list: {name}=\[\.\.\.\]"):
        Kind(Site, "sites.example.com", "v1", **{name: "ws"})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "item"),
    [("short_names", "ws"), ("selectable", ".spec.a"), ("manages", ManagedResource("Pod", "v1"))],
)
def test_an_item_that_a_kind_has_twice_is_refused(name: str, item: object) -> None:
    words = f"Kind WebPolicy: {name} contains {item!r} twice. Name it once."
    with pytest.raises(TypeError, match=f"^{re.escape(words)}$"):
        Kind(WebPolicy, "sites.example.com", "v1", **{name: [item, item]})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["namespaces", "owns", "watches"])
def test_a_watch_refuses_one_value_in_place_of_a_list(name: str) -> None:
    kind = Kind(WebPolicy, "sites.example.com", "v1")
    with pytest.raises(
        TypeError, match=rf"^The Watch of .*: {name} is 'ws', .*Pass a list: {name}=\[\.\.\.\]"
    ):
        Watch(kind, tasks=[], **{name: "ws"})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["a/b", "Web", "a b", "\u00fc", "a" * 64])
def test_the_name_of_a_watch_fits_annotations_metrics_and_commands(name: str) -> None:
    kind = Kind(WebPolicy, "sites.example.com", "v1")
    with pytest.raises(TypeError, match=r"^The Watch of .*: name is .*Use at most 63 lower-case letters"):
        Watch(kind, tasks=[], name=name)
