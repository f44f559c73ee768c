"""The value of a Secret never appears in a condition, Event, log line, diff, report or metric."""

import asyncio
import base64
import logging
from collections.abc import Callable, Iterator
from typing import Any, cast

import msgspec
import pytest

from pilothouse.cli import report
from pilothouse.cli.by_hand import Hand
from pilothouse.controller import EventType, Fence, FencedApi
from pilothouse.controller.events import EVENT
from pilothouse.kube import (
    Forbidden,
    Invalid,
    ObjectKey,
    ObjectMeta,
    Resource,
    ServerError,
    Unreachable,
)
from pilothouse.playbook import Group, Play, Playbook, Secondary, Stores, TaskFailed, Watch
from pilothouse.playbook.tasks import Waiting
from pilothouse.process import Settings
from pilothouse.telemetry import forget_defects, metrics, object_context, redacted
from pilothouse.telemetry.logs import JsonFormatter
from pilothouse.testing import Call, Json, ModelApi
from tests.running import running
from tests.unit.operators import manager_of
from tests.unit.playbook.configured import (
    CONFIG_MAP,
    DEPLOYMENT,
    OWNS,
    SECRET,
    TicketPlay,
    named,
    operator,
    playbook,
    ready,
)
from tests.unit.tickets import TICKET

pytestmark = pytest.mark.usefixtures("virtual_time")

VALUE = "hunter2-hunter3"
ENCODED = base64.b64encode(VALUE.encode()).decode()


class FullSecret(msgspec.Struct, frozen=True, gc=False):
    metadata: ObjectMeta
    data: dict[str, str] = {}


FULL_SECRET: Resource[FullSecret] = Resource("", "v1", "Secret", "secrets", FullSecret)

FORMS = [{"stringData": {"password": VALUE}}, {"data": {"password": ENCODED}}]


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """The log at every level: as the process writes it, and as other handlers receive it."""
    caplog.set_level(logging.DEBUG)
    written: list[str] = []

    class Writer(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            written.append(self.format(record))
            if record.name != Play.log.name:
                # The runtime's own records hide it from the handlers of other libraries, too.
                written.append(record.getMessage())

    writer = Writer()
    writer.setFormatter(JsonFormatter())
    logging.getLogger().addHandler(writer)
    yield written
    logging.getLogger().removeHandler(writer)


def require_hidden(api: ModelApi, key: ObjectKey, lines: list[str]) -> None:
    shown = [str(api.read(TICKET, key)), str(api.all(EVENT)), *lines, metrics.render().decode()]
    for text in shown:
        assert VALUE not in text
        assert ENCODED.rstrip("=") not in text


WITH_PASSWORD: Json = {"spec": {"template": {"spec": {"containers": [{"name": "web", "args": [VALUE]}]}}}}


def refusing(resource: Resource[Any], error: Callable[[str], Exception]) -> Callable[[Call], Any]:
    async def refuse(call: Call) -> None:
        if call.resource == str(resource) and call.writes:
            raise error(f"cannot store {call.body}: {VALUE} in {ENCODED}")

    return refuse


@pytest.mark.parametrize("stated", FORMS)
@pytest.mark.parametrize("resource", [SECRET, DEPLOYMENT])
@pytest.mark.parametrize(
    "error",
    [
        lambda text: Invalid(422, "Invalid", text),
        lambda text: Forbidden(403, "Forbidden", text),
        lambda text: ServerError(500, "InternalError", text),
        lambda text: Unreachable(text, maybe_sent=False),
        KeyError,
    ],
)
async def test_a_refusal(
    api: ModelApi,
    ticket: ObjectKey,
    lines: list[str],
    stated: Json,
    resource: Resource[Any],
    error: Callable[[str], Exception],
) -> None:
    async def state(play: TicketPlay) -> None:
        await play.apply(SECRET, stated)
        await play.apply(DEPLOYMENT, WITH_PASSWORD)

    forget_defects()
    api.before = refusing(resource, error)
    async with operator(api, playbook(state)):
        await asyncio.sleep(60)
        assert ready(api, ticket)[0] == "False"
        require_hidden(api, ticket, lines)


async def say(play: TicketPlay) -> None:
    play.event(EventType.WARNING, "Odd", f"the password is {VALUE}")
    play.condition("Odd", True, "Odd", f"the password is {VALUE}")
    play.log.warning("the password is %s", VALUE, extra={"password": VALUE})
    play.changed(f"set {VALUE}", diff=f"password: {VALUE} -> {ENCODED}")
    play.ready_message = f"the password is {VALUE}"


def failing(error: Callable[[], Exception]) -> Callable[[TicketPlay], Any]:
    async def fail(play: TicketPlay) -> None:
        raise error()

    return fail


@pytest.mark.parametrize(
    "end",
    [
        say,
        failing(lambda: TaskFailed("Odd", f"the password {VALUE} is odd")),
        failing(lambda: TaskFailed("Odd", f"the password {VALUE} is odd", permanent=True)),
        failing(lambda: Waiting("Odd", f"Waiting until {VALUE} is accepted.", fallback=10)),
        failing(lambda: ValueError(VALUE)),
    ],
)
@pytest.mark.parametrize("parallel", [False, True])
async def test_the_messages_of_an_author(
    api: ModelApi,
    ticket: ObjectKey,
    lines: list[str],
    parallel: bool,
    end: Callable[[TicketPlay], Any],
) -> None:
    async def state(play: TicketPlay) -> None:
        await play.apply(SECRET, FORMS[0])

    async def then(play: TicketPlay) -> None:
        await asyncio.sleep(0.1)
        await end(play)

    forget_defects()
    book = Playbook(Play, tasks=[Group("all", [named(state), named(then)], parallel=parallel)])
    async with operator(api, book):
        await asyncio.sleep(30)
        # The second reconcile sends no request, because the object matches, and hides the value nevertheless.
        api.put(TICKET, ticket.name, spec={"seats": 4})
        await asyncio.sleep(30)
        require_hidden(api, ticket, lines)


@pytest.mark.parametrize("how", ["get", "owned", "hide"])
async def test_a_value_that_is_read_or_named(
    api: ModelApi, ticket: ObjectKey, lines: list[str], how: str
) -> None:
    async def state(play: TicketPlay) -> None:
        if how == "get":
            play.get(FULL_SECRET, "login")
        elif how == "owned":
            play.owned(FULL_SECRET)
        else:
            play.hide(VALUE)
        await say(play)

    uid = api.read(TICKET, ticket)["metadata"]["uid"]
    owner = {"apiVersion": "tests.dev/v1", "kind": "Ticket", "name": "x", "uid": uid, "controller": True}
    api.put(FULL_SECRET, "login", metadata={"ownerReferences": [owner]}, data={"a": ENCODED})
    async with running(manager_of(api, Watch(TICKET, playbook(state), owns=[FULL_SECRET]))):
        await asyncio.sleep(10)
        assert "(hidden)" in str(api.all(EVENT))
        require_hidden(api, ticket, lines)


@pytest.mark.parametrize("check", [True, False])
async def test_a_diff_and_a_report(api: ModelApi, ticket: ObjectKey, lines: list[str], check: bool) -> None:
    long = VALUE + "k" * 200

    async def before(play: TicketPlay) -> None:
        # The value is known only after this task.
        await play.apply(CONFIG_MAP, {"data": {"copy": VALUE}})

    async def state(play: TicketPlay) -> None:
        await play.apply(SECRET, {"stringData": {"password": VALUE, "long": long}})
        await play.apply(DEPLOYMENT, {"spec": {"replicas": 1, "password": VALUE, "long": long}})

    watch = Watch(TICKET, playbook(before, state), owns=OWNS)
    settings = Settings(leader_elect=True, pod_namespace="operators", pod_name="by-hand")
    hand = Hand("tickets", settings, api)
    played = await (hand.check(watch, ticket) if check else hand.play(watch, ticket))
    text = report.as_text(played, diff=True) + report.as_json(played)
    assert "(hidden)" in text
    assert "spec.replicas: 1" in text
    assert VALUE not in text
    assert ENCODED not in text
    assert "kkk" not in text
    require_hidden(api, ticket, lines)


def failing_on(obj: FullSecret) -> Any:
    raise KeyError(base64.b64decode(obj.data["password"]).decode())


def failing_on_another(obj: FullSecret, stores: Stores) -> Any:
    """A mapper whose error quotes another Secret than the changed one."""
    found = stores.get(FULL_SECRET, "login", namespace="default")
    (listed,) = stores.list(FULL_SECRET, "name", "login")
    assert found == listed
    failing_on(listed)


@pytest.mark.parametrize(
    "calls",
    [
        {"transform": failing_on},
        {"indexes": {"password": failing_on}},
        {"predicate": lambda old, new: failing_on(new)},
        {"mapper": lambda obj, stores: failing_on(obj)},
        {"mapper": failing_on_another, "indexes": {"name": lambda obj: [obj.metadata.name]}},
    ],
    ids=["transform", "index", "predicate", "mapper", "mapper of another"],
)
@pytest.mark.parametrize("late", [False, True])
async def test_an_error_outside_of_a_reconcile(
    api: ModelApi, ticket: ObjectKey, lines: list[str], calls: dict[str, Any], late: bool
) -> None:
    forget_defects()
    if not late:
        api.put(FULL_SECRET, "login", data={"password": ENCODED})
    watch = Watch(TICKET, playbook(), watches=[Secondary(FULL_SECRET, **calls)])
    async with running(manager_of(api, watch)):
        await asyncio.sleep(10)
        if late:
            api.put(FULL_SECRET, "login", data={"password": ENCODED})
            await asyncio.sleep(10)
        assert any("KeyError: '(hidden)'" in line for line in lines)
        require_hidden(api, ticket, lines)


@pytest.mark.parametrize("where", ["predicate", "index", "task", "waiting", "refusal", "defect", "cleanup"])
async def test_a_reconciled_secret(api: ModelApi, ticket: ObjectKey, lines: list[str], where: str) -> None:
    async def use(play: Play[FullSecret, Any]) -> None:
        value = base64.b64decode(play.object.data["password"]).decode()
        play.log.warning("using %s", value)
        play.event(EventType.WARNING, "Odd", f"the password {value} is odd")
        if where == "waiting":
            play.wait_for(f"{value} is accepted", False, within=5)
        if where == "refusal":
            await play.apply(CONFIG_MAP, {"data": {"copy": value}})
        if where == "defect":
            raise KeyError(value)
        raise TaskFailed("Odd", f"the password {value} is odd")

    forget_defects()
    api.before = refusing(CONFIG_MAP, lambda text: Invalid(422, "Invalid", text))
    api.put(FULL_SECRET, "login", data={"password": ENCODED})
    calls: dict[str, Any] = {}
    if where == "predicate":
        calls = {"predicate": lambda old, new: failing_on(new)}
    if where == "index":
        calls = {"indexes": {"password": failing_on}}
    book: Playbook[Any]
    if where == "cleanup":
        book = Playbook(Play, tasks=[], cleanup=[named(cast("Any", use))], finalizer="tests.dev/secret")
    else:
        book = Playbook(Play, tasks=[named(cast("Any", use))])
    async with running(manager_of(api, Watch(FULL_SECRET, book, owns=[CONFIG_MAP], **calls))):
        await asyncio.sleep(10)
        if where == "cleanup":
            api.remove(FULL_SECRET, ObjectKey("default", "login"))
        await asyncio.sleep(30)
        assert "(hidden)" in str(api.all(EVENT))
        assert "(hidden)" in str(lines)
        require_hidden(api, ticket, lines)


@pytest.mark.parametrize("how", ["get", "pages", "request", "list"])
async def test_a_secret_that_is_read_from_the_api_server(how: str) -> None:
    api = ModelApi()
    api.put(FULL_SECRET, "login", data={"password": ENCODED})
    stored: Json = api.read(FULL_SECRET, ObjectKey("default", "login"))

    async def request(method: str, path: str, **options: Any) -> bytes:
        return msgspec.json.encode(stored if path.endswith("/login") else {"items": [stored]})

    api.request = request  # type: ignore[method-assign]
    fenced = FencedApi(api, Fence())
    with object_context("Ticket", "default", "my-ticket"):
        if how == "get":
            await fenced.get(FULL_SECRET, ObjectKey("default", "login"))
        elif how == "pages":
            assert [len(page.items) async for page in fenced.pages(FULL_SECRET)] == [1]
        else:
            await fenced.request("GET", FULL_SECRET.path("default", "login" if how == "request" else ""))
        assert redacted(VALUE) == "(hidden)"


@pytest.mark.parametrize("fails", [True, False])
async def test_a_value_that_is_used_as_a_reason(api: ModelApi, ticket: ObjectKey, fails: bool) -> None:
    async def misuse(play: TicketPlay) -> None:
        await play.apply(SECRET, {"stringData": {"password": "Hunter2Hunter3"}})
        play.event(EventType.WARNING, "Hunter2Hunter3", "It is.")
        play.condition("Other", True, "Hunter2Hunter3")
        play.ready_reason = "Hunter2Hunter3"
        if fails:
            raise TaskFailed("Hunter2Hunter3", "It failed.")

    async with operator(api, playbook(misuse)):
        await asyncio.sleep(5)
        assert ready(api, ticket)[1] == "Hidden"
        assert "Hunter2Hunter3" not in str([api.all(EVENT), api.all(TICKET)])
        written = [call for call in api.writes if call.subresource == "status"]
        assert len(written) == 1, "the status settles"
