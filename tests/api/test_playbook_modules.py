"""The modules against a real API server: what server-side apply owns, merges and refuses."""

import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from pilothouse.cli.by_hand import Hand
from pilothouse.kube import Client, NotFound, ObjectKey, ObjectMeta, PatchType, Resource
from pilothouse.playbook import RECONCILE, Playbook, Watch, add_watch, task
from pilothouse.playbook.ownership import OWNER_UID
from pilothouse.process import Manager, Settings
from pilothouse.testing import ApiServer, eventually
from pilothouse.views import JOB
from tests.api.tickets import CRD
from tests.api.versions import ON_BOTH
from tests.api.widgets import install
from tests.running import running
from tests.unit.playbook.configured import (
    CONFIG_MAP,
    DEPLOYMENT,
    OWNS,
    SECRET,
    SERVICE,
    Function,
    TicketPlay,
    playbook,
)
from tests.unit.tickets import TICKET

pytestmark = ON_BOTH

MERGE = PatchType.MERGE


class Thing(msgspec.Struct, frozen=True, gc=False):
    """A view of objects that are only applied."""

    metadata: ObjectMeta


ROLE = Resource("rbac.authorization.k8s.io", "v1", "Role", "roles", Thing)
POD = Resource("", "v1", "Pod", "pods", Thing)
POLICY = Resource("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies", Thing)


class CountingClient(Client):
    """Counts an operator's requests for objects other than tickets."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self.counts: Counter[str] = Counter()

    async def get(self, resource: Any, key: ObjectKey, **options: Any) -> Any:
        self.counts[f"get {resource.plural}"] += 1
        return await super().get(resource, key, **options)

    async def patch(self, resource: Any, key: ObjectKey, body: object, **options: Any) -> Any:
        if resource is not TICKET:
            self.counts[f"patch {resource.plural}"] += 1
        return await super().patch(resource, key, body, **options)


@pytest.fixture(autouse=True)
async def kind(client: Client) -> None:
    await install(client, CRD)


@pytest.fixture
async def ticket(client: Client, namespace: str) -> ObjectKey:
    body = {
        "apiVersion": TICKET.api_version,
        "kind": TICKET.kind,
        "metadata": {"name": "t"},
        "spec": {"seats": 1},
    }
    return (await client.create(TICKET, body, namespace=namespace)).metadata.key


@asynccontextmanager
async def operator(
    api_server: ApiServer,
    key: ObjectKey,
    book: Playbook[Any],
    *,
    owns: Sequence[Resource[Any]] = OWNS,
    client_type: type[CountingClient] = CountingClient,
) -> AsyncIterator[CountingClient]:
    async with client_type(api_server.config(), user_agent="tickets/test") as client:
        settings = Settings(watch_namespaces=(key.namespace,), health_host="127.0.0.1", health_port=0)
        manager = Manager("tickets", settings, client)
        add_watch(manager, Watch(TICKET, book, owns=owns))
        async with running(manager):
            yield client


class Plays:
    """Reconciles a ticket on request, and records what each reconcile changed."""

    def __init__(self, client: Client, key: ObjectKey, function: Function) -> None:
        self._client = client
        self._key = key
        self._function = function
        self._asked = 0
        self._seen = ""
        self.diffs: list[str] = []

    async def play(self, play: TicketPlay) -> None:
        try:
            await self._function(play)
        finally:
            self.diffs.extend(play.task_result.diff)
            self._seen = play.object.metadata.annotations.get(RECONCILE, "")

    @property
    def playbook(self) -> Playbook[Any]:
        return playbook(self.play)

    async def another(self) -> None:
        """Requests another reconcile of the ticket and waits for it."""
        self._asked += 1
        body = {"metadata": {"annotations": {RECONCILE: str(self._asked)}}}
        await self._client.patch(TICKET, self._key, body, type=MERGE)
        await eventually(lambda: self._seen == str(self._asked))

    async def ready(self, reason: str, text: str = "") -> str:
        """Waits until Ready has the reason and its message contains the text, and returns the message."""

        async def message() -> str:
            conditions = (await raw(self._client, TICKET, self._key)).get("status", {}).get("conditions", [])
            messages = [each["message"] for each in conditions if each["reason"] == reason]
            return next((each for each in messages if text in each), "")

        found: str = await eventually(message)
        return found


async def raw(client: Client, resource: Resource[Any], key: ObjectKey) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(await client.request("GET", resource.path(*key)))
    return found


def deployment(image: str = "web:1", **env: str) -> dict[str, Any]:
    """A Deployment that the API server writes in another form: quantities, defaults, lists with keys."""
    container = {
        "name": "web",
        "image": image,
        "ports": [{"containerPort": 8080}],
        "env": [{"name": name, "value": value} for name, value in env.items()],
        "resources": {"requests": {"cpu": "0.5", "memory": "1024Mi"}},
    }
    labels = {"app": "web"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    return {"spec": {"selector": {"matchLabels": labels}, "template": template}}


def atomic_parts(*, extra: bool, image: str = "web:1") -> dict[Resource[Any], dict[str, Any]]:
    """Objects with parts that the API server treats as one value. `extra` adds something to each."""

    def more(**fields: Any) -> dict[str, Any]:
        return fields if extra else {}

    port = {"port": 80, "targetPort": 8080}
    service = {"selector": {"app": "web", **more(tier="front")}, "ports": [port]}
    rule = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"], **more(resourceNames=["a"])}
    ingress = {"ports": [{"port": 80}], **more(**{"from": [{"podSelector": {}}]})}
    toleration = {"key": "a", "operator": "Exists", "effect": "NoExecute", **more(tolerationSeconds=5)}
    deployed = deployment(image)
    pod = deployed["spec"]["template"]["spec"]
    pod["nodeSelector"] = {"disk": "ssd", **more(zone="b")}
    pod["tolerations"] = [toleration]
    return {
        SERVICE: {"spec": service},
        ROLE: {"rules": [rule]},
        POLICY: {"spec": {"podSelector": {}, "ingress": [ingress]}},
        DEPLOYMENT: deployed,
    }


@pytest.mark.parametrize("owned", [True, False])
async def test_an_object_that_another_client_creates_between_read_and_apply_is_not_changed(
    client: Client, api_server: ApiServer, ticket: ObjectKey, *, owned: bool
) -> None:
    made: dict[str, Any] = {}

    class Slow(CountingClient):
        async def patch(self, resource: Any, key: ObjectKey, body: object, **options: Any) -> Any:
            if resource.kind == CONFIG_MAP.kind and not made:
                named = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": key.name}}
                await client.create(CONFIG_MAP, {**named, "data": {"theirs": "1"}}, namespace=key.namespace)
                made.update(await raw(client, CONFIG_MAP, key))
            return await super().patch(resource, key, body, **options)

    async def note(play: TicketPlay) -> None:
        await play.apply(CONFIG_MAP, {"data": {"ours": "1"}}, owned=owned)

    plays = Plays(client, ticket, note)
    async with operator(api_server, ticket, plays.playbook, client_type=Slow):
        await plays.ready("NameTaken")
        assert (await raw(client, CONFIG_MAP, ticket)) == made
    assert plays.diffs == []


async def test_a_settled_deployment_costs_nothing_and_a_restart_one_read_and_no_change(
    api_server: ApiServer, client: Client, ticket: ObjectKey
) -> None:
    async def deploy(play: TicketPlay) -> None:
        await play.apply(DEPLOYMENT, deployment(COLOR="blue"))

    plays = Plays(client, ticket, deploy)
    async with operator(api_server, ticket, plays.playbook) as own:
        await plays.ready("Reconciled")
        for _ in range(3):
            await plays.another()
        assert own.counts == {"get deployments": 1, "patch deployments": 1}
        made = await raw(client, DEPLOYMENT, ticket)
    plays.diffs.clear()
    async with operator(api_server, ticket, plays.playbook) as own:
        for _ in range(3):
            await plays.another()
        # The API server writes 0.5 as 500m, so one apply is sent, which changes nothing.
        assert own.counts == {"get deployments": 1, "patch deployments": 1}
        assert (await raw(client, DEPLOYMENT, ticket)) == made
    assert plays.diffs == []


async def test_a_settled_config_map_is_read_once_after_a_restart_and_not_written(
    api_server: ApiServer, client: Client, ticket: ObjectKey
) -> None:
    async def configure(play: TicketPlay) -> None:
        await play.apply(CONFIG_MAP, {"metadata": {"labels": {"app": "web"}}, "data": {"a": "1"}})

    plays = Plays(client, ticket, configure)
    async with operator(api_server, ticket, plays.playbook):
        await plays.ready("Reconciled")
    async with operator(api_server, ticket, plays.playbook) as own:
        for _ in range(3):
            await plays.another()
        assert own.counts == {"get configmaps": 1}


async def test_a_part_dropped_from_an_atomic_value_is_removed(
    api_server: ApiServer, client: Client, ticket: ObjectKey
) -> None:
    """A rule or an access that is dropped from a manifest must not stay."""
    stated = atomic_parts(extra=True)

    async def state(play: TicketPlay) -> None:
        for resource, body in stated.items():
            await play.apply(resource, body)

    plays = Plays(client, ticket, state)
    async with operator(api_server, ticket, plays.playbook, owns=(*OWNS, SERVICE, ROLE, POLICY)) as own:
        await plays.ready("Reconciled")
        stated = atomic_parts(extra=False)
        plays.diffs.clear()
        await plays.another()
        diffs = list(plays.diffs)
        asked = dict(own.counts)
        await plays.another()
        assert own.counts == asked, "all objects are known to match"
    service, role, policy, deployed = [await raw(client, each, ticket) for each in stated]
    assert service["spec"]["selector"] == {"app": "web"}
    assert "resourceNames" not in role["rules"][0]
    assert "from" not in policy["spec"]["ingress"][0]
    pod = deployed["spec"]["template"]["spec"]
    assert pod["nodeSelector"] == {"disk": "ssd"}
    assert pod["tolerations"] == [{"key": "a", "operator": "Exists", "effect": "NoExecute"}]
    assert diffs == [
        "- spec.selector.tier: front",
        '- rules[0].resourceNames: ["a"]',
        '- spec.ingress[0].from: [{"podSelector":{}}]',
        "- spec.template.spec.nodeSelector.zone: b",
        "- spec.template.spec.tolerations[0].tolerationSeconds: 5",
    ]


async def test_additions_of_others_to_an_atomic_value_are_removed(
    api_server: ApiServer, client: Client, ticket: ObjectKey
) -> None:
    async def serve(play: TicketPlay) -> None:
        await play.apply(SERVICE, atomic_parts(extra=False)[SERVICE])

    plays = Plays(client, ticket, serve)
    async with operator(api_server, ticket, plays.playbook, owns=(*OWNS, SERVICE)):
        await plays.ready("Reconciled")
        await client.patch(SERVICE, ticket, {"spec": {"selector": {"evil": "yes"}}}, type=MERGE)

        async def put_right() -> bool:
            return bool((await raw(client, SERVICE, ticket))["spec"]["selector"] == {"app": "web"})

        await eventually(put_right)


async def test_check_mode_reports_no_change_if_an_apply_makes_none(
    api_server: ApiServer, client: Client, ticket: ObjectKey
) -> None:
    """Quantities, defaults in atomic lists, and a Secret's stringData are read back in another form."""
    password, image = "hunter2", "web:1"

    async def state(play: TicketPlay) -> None:
        for resource, body in atomic_parts(extra=True, image=image).items():
            await play.apply(resource, body)
        await play.apply(SECRET, {"stringData": {"password": password}})

    plays = Plays(client, ticket, state)
    owns = (*OWNS, SERVICE, ROLE, POLICY)
    watch = Watch(TICKET, plays.playbook, owns=owns)

    async def checked() -> list[str]:
        plays.diffs.clear()
        await Hand("tickets", Settings(), client).check(watch, ticket)
        return plays.diffs

    async with operator(api_server, ticket, plays.playbook, owns=owns):
        await plays.ready("Reconciled")
    made = [await raw(client, each, ticket) for each in (*owns[1:3], SERVICE, ROLE, POLICY)]
    assert await checked() == []
    async with operator(api_server, ticket, plays.playbook, owns=owns) as own:
        plays.diffs.clear()
        await plays.another()
        asked = dict(own.counts)
        await plays.another()
        assert plays.diffs == []
        assert own.counts == asked
        assert max(asked.values()) == 1
    password, image = "other", "web:2"
    assert await checked() == [
        "spec.template.spec.containers[web].image: web:1 -> web:2",
        "data.password: (hidden) -> (hidden)",
    ]
    assert [await raw(client, each, ticket) for each in (*owns[1:3], SERVICE, ROLE, POLICY)] == made


async def test_a_key_dropped_from_string_data_is_removed(
    api_server: ApiServer, client: Client, ticket: ObjectKey
) -> None:
    stated = {"stringData": {"a": "1", "b": "2"}, "data": {"b": "b2xk", "c": "Yw=="}}

    async def state(play: TicketPlay) -> None:
        await play.apply(SECRET, stated)

    plays = Plays(client, ticket, state)
    async with operator(api_server, ticket, plays.playbook):
        await plays.ready("Reconciled")
        assert (await raw(client, SECRET, ticket))["data"] == {"a": "MQ==", "b": "Mg==", "c": "Yw=="}
        stated = {"stringData": {"a": "3"}}
        await plays.another()
        assert (await raw(client, SECRET, ticket))["data"] == {"a": "Mw=="}
        await client.patch(SECRET, ticket, {"data": {"a": "ZXZpbA=="}}, type=MERGE)

        async def restored() -> bool:
            return bool((await raw(client, SECRET, ticket))["data"] == {"a": "Mw=="})

        await eventually(restored)


async def test_changes_of_others_are_corrected_and_their_own_fields_stay(
    api_server: ApiServer, client: Client, ticket: ObjectKey
) -> None:
    env = {"COLOR": "blue", "SIZE": "big"}

    async def deploy(play: TicketPlay) -> None:
        await play.apply(DEPLOYMENT, deployment(**env))

    async def live_env() -> dict[str, str]:
        [container] = (await raw(client, DEPLOYMENT, ticket))["spec"]["template"]["spec"]["containers"]
        return {each["name"]: each["value"] for each in container["env"]}

    plays = Plays(client, ticket, deploy)
    async with operator(api_server, ticket, plays.playbook):
        await plays.ready("Reconciled")
        others = deployment(image="evil:1", COLOR="red", THEIRS="stays")
        del others["spec"]["template"]["spec"]["containers"][0]["resources"]
        others |= {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": ticket.name}}
        plays.diffs.clear()
        await client.patch(
            DEPLOYMENT, ticket, others, type=PatchType.APPLY, field_manager="another", force=True
        )

        async def put_right() -> bool:
            as_it_should = (await live_env()) == {"COLOR": "blue", "SIZE": "big", "THEIRS": "stays"}
            return as_it_should and bool(plays.diffs)

        await eventually(put_right)
        path = "spec.template.spec.containers[web]"
        assert f"{path}.image: evil:1 -> web:1" in plays.diffs
        assert f"{path}.env[COLOR].value: red -> blue" in plays.diffs
        del env["SIZE"]
        plays.diffs.clear()
        await plays.another()
        assert await live_env() == {"COLOR": "blue", "THEIRS": "stays"}
        assert any(line.startswith(f"- {path}.env[SIZE]") for line in plays.diffs)


async def test_without_force_the_other_manager_is_named(
    api_server: ApiServer, client: Client, ticket: ObjectKey
) -> None:
    async def polite(play: TicketPlay) -> None:
        await play.apply(CONFIG_MAP, {"data": {"a": "ours"}}, adopt=True, force=False)

    body = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": ticket.name},
        "data": {"a": "theirs"},
    }
    await client.patch(CONFIG_MAP, ticket, body, type=PatchType.APPLY, field_manager="another")
    plays = Plays(client, ticket, polite)
    async with operator(api_server, ticket, plays.playbook):
        message = await plays.ready("FieldConflict")
        assert "another" in message
        assert ".data.a" in message


async def test_an_apply_to_a_deleted_object_does_not_create_it_again(
    api_server: ApiServer, client: Client, ticket: ObjectKey
) -> None:
    """The API server refuses an apply with a UID if the object is another one or does not exist."""
    data = {"a": "1"}

    async def configure(play: TicketPlay) -> None:
        await play.apply(CONFIG_MAP, {"data": dict(data)})

    plays = Plays(client, ticket, configure)
    async with operator(api_server, ticket, plays.playbook) as own:
        await plays.ready("Reconciled")
        read = own.get

        async def vanish(resource: Any, key: ObjectKey, **options: Any) -> Any:
            found = await read(resource, key, **options)
            if resource.plural == "configmaps" and data["a"] == "2" and own.counts["vanished"] == 0:
                own.counts["vanished"] += 1
                await client.delete(CONFIG_MAP, key)
            return found

        own.get = vanish  # type: ignore[method-assign]
        first = (await raw(client, CONFIG_MAP, ticket))["metadata"]["uid"]
        data["a"] = "2"
        await plays.another()

        async def created_again() -> bool:
            found = (await raw(client, CONFIG_MAP, ticket)) if own.counts["vanished"] else {}
            return bool(found) and found["metadata"]["uid"] != first and found["data"] == {"a": "2"}

        await eventually(created_again)
        assert own.counts["patch configmaps"] == 3, "created, refused, created again"


async def test_a_secret_is_applied_and_deleted(
    api_server: ApiServer, client: Client, ticket: ObjectKey
) -> None:
    wanted = True

    async def keep(play: TicketPlay) -> None:
        if wanted:
            await play.apply(SECRET, {"data": {"password": "aHVudGVyMg=="}})
        else:
            await play.delete(SECRET, ticket.name)

    plays = Plays(client, ticket, keep)
    async with operator(api_server, ticket, plays.playbook):
        await plays.ready("Reconciled")
        assert (await raw(client, SECRET, ticket))["data"] == {"password": "aHVudGVyMg=="}
        wanted = False
        await plays.another()

        async def gone() -> bool:
            path = SECRET.path(ticket.namespace)
            return not json.loads(await client.request("GET", path))["items"]

        await eventually(gone)
    assert "hunter" not in str(plays.diffs)
    assert "aHVudGVyMg" not in str(plays.diffs)


async def test_a_job_is_waited_for_through_the_watch(
    api_server: ApiServer, client: Client, ticket: ObjectKey
) -> None:
    container = {"name": "work", "image": "work:1"}
    spec = {"template": {"spec": {"restartPolicy": "Never", "containers": [container]}}}

    async def work(play: TicketPlay) -> None:
        await play.run_job({"spec": spec})

    plays = Plays(client, ticket, work)
    async with operator(api_server, ticket, plays.playbook):
        message = await plays.ready("JobRunning")
        name = message.split()[3]
        failed = {
            "type": "Failed",
            "status": "True",
            "reason": "BackoffLimitExceeded",
            "message": "It failed",
        }
        times = {"lastTransitionTime": "2026-01-01T00:00:00Z", "lastProbeTime": "2026-01-01T00:00:00Z"}
        target = {"type": "FailureTarget", **{key: failed[key] for key in ("status", "reason", "message")}}
        status = {
            "startTime": "2026-01-01T00:00:00Z",
            "failed": 1,
            "conditions": [target | times, failed | times],
        }
        key = ObjectKey(ticket.namespace, name)
        await client.patch(JOB, key, {"status": status}, type=MERGE, subresource="status")
        assert f"Job {name} failed (BackoffLimitExceeded)" in await plays.ready("JobFailed")


# Ownership.


async def test_objects_of_others_are_neither_deleted_nor_scaled_nor_patched(
    api_server: ApiServer, client: Client, ticket: ObjectKey
) -> None:
    modules: list[str] = ["delete"]

    async def act(play: TicketPlay) -> None:
        if modules[0] == "delete":
            await play.delete(CONFIG_MAP, "theirs")
        elif modules[0] == "scale":
            await play.scale(DEPLOYMENT, "theirs", 5)
        else:
            await play.patch(CONFIG_MAP, "theirs", {"data": {"a": "ours"}})

    theirs = ObjectKey(ticket.namespace, "theirs")
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "theirs"}, "data": {"a": "theirs"}}
    await client.create(CONFIG_MAP, body, namespace=ticket.namespace)
    deployed = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "theirs"}, **deployment()}
    await client.create(DEPLOYMENT, deployed, namespace=ticket.namespace)
    before = [await raw(client, each, theirs) for each in (CONFIG_MAP, DEPLOYMENT)]
    plays = Plays(client, ticket, act)
    async with operator(api_server, ticket, plays.playbook):
        for module in ("delete", "scale", "patch"):
            modules[0] = module
            await plays.another()
            await plays.ready("NotOwned", f"Cannot {module}")
    assert [await raw(client, each, theirs) for each in (CONFIG_MAP, DEPLOYMENT)] == before


async def test_an_object_of_another_controller_is_taken_over_on_purpose(
    api_server: ApiServer, client: Client, ticket: ObjectKey
) -> None:
    """The API server accepts only one controller, so that of others is removed first."""
    reference = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "name": "theirs",
        "uid": "12345678-1234-1234-1234-123456789012",
        "controller": True,
    }
    body = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": ticket.name, "ownerReferences": [reference]},
        "data": {"theirs": "stays"},
    }
    await client.create(CONFIG_MAP, body, namespace=ticket.namespace)
    adopt = True

    async def keep(play: TicketPlay) -> None:
        await play.apply(CONFIG_MAP, {"data": {"a": "ours"}}, adopt=adopt)

    plays = Plays(client, ticket, keep)
    watch = Watch(TICKET, plays.playbook, owns=OWNS)
    assert (await Hand("tickets", Settings(), client).check(watch, ticket)).recap.failure is None
    assert plays.diffs == ["+ data.a: ours", "metadata.ownerReferences: Deployment theirs -> Ticket t"]
    adopt = False
    async with operator(api_server, ticket, plays.playbook):
        assert "is controlled by Deployment theirs" in await plays.ready("NameTaken")
        adopt = True
        await plays.another()
        await plays.ready("Reconciled")
        made = await raw(client, CONFIG_MAP, ticket)
        uid = (await raw(client, TICKET, ticket))["metadata"]["uid"]
        assert [each["uid"] for each in made["metadata"]["ownerReferences"]] == [uid]
        assert made["data"] == {"theirs": "stays", "a": "ours"}


async def test_what_outlives_its_owner_is_found_and_its_change_causes_a_play(
    api_server: ApiServer, client: Client, ticket: ObjectKey
) -> None:
    found: list[str] = []

    async def keep(play: TicketPlay) -> None:
        await play.apply(CONFIG_MAP, {"data": {"a": "1"}}, owned=False)
        found[:] = [each.metadata.name for each in play.owned(CONFIG_MAP)]

    plays = Plays(client, ticket, keep)
    async with operator(api_server, ticket, plays.playbook):
        await plays.ready("Reconciled")
        uid = (await raw(client, TICKET, ticket))["metadata"]["uid"]
        metadata = (await raw(client, CONFIG_MAP, ticket))["metadata"]
        assert metadata["annotations"] == {OWNER_UID: uid}
        assert "ownerReferences" not in metadata
        assert found == [ticket.name]
        await client.patch(CONFIG_MAP, ticket, {"data": {"a": "2"}}, type=MERGE)

        async def put_right() -> bool:
            return bool((await raw(client, CONFIG_MAP, ticket))["data"] == {"a": "1"})

        await eventually(put_right)


# Pods.


def pod(image: str = "etcd:1", **env: str) -> dict[str, Any]:
    """A Pod to which the server and admission add defaults and tolerations."""
    container = {
        "name": "etcd",
        "image": image,
        "env": [{"name": name, "value": value} for name, value in env.items()],
        "resources": {"requests": {"cpu": "0.5"}},
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
        "readinessProbe": {"httpGet": {"path": "/health", "port": 2379}},
    }
    claim = {"name": "data", "persistentVolumeClaim": {"claimName": "data"}}
    tolerations = [{"key": "dedicated", "operator": "Exists"}]
    return {"spec": {"containers": [container], "volumes": [claim], "tolerations": tolerations}}


@pytest.mark.parametrize("made_by", ["apply", "create"])
async def test_a_pod_is_changed_in_place_or_the_fields_that_cannot_change_are_named(
    api_server: ApiServer, client: Client, ticket: ObjectKey, made_by: str
) -> None:
    body = pod(PASSWORD="hunter1")  # noqa: S106 - not a secret of anyone

    async def run(play: TicketPlay) -> None:
        if made_by == "create" and play.get(POD, play.object.metadata.name) is None:
            await play.create(POD, body)
        else:
            await play.apply(POD, body)

    plays = Plays(client, ticket, run)
    watch = Watch(TICKET, plays.playbook, owns=[*OWNS, POD], name="checked")
    async with operator(api_server, ticket, plays.playbook, owns=(*OWNS, POD)) as own:
        await plays.ready("Reconciled")
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": ticket.name},
            "target": {"kind": "Node", "name": "node-1"},
        }
        await client.request("POST", POD.path(*ticket, "binding"), body=binding)
        made = await raw(client, POD, ticket)
        for _ in range(2):
            await plays.another()
        asked = dict(own.counts)
        plays.diffs.clear()
        await plays.another()
        assert (own.counts, plays.diffs) == (asked, [])
        assert (await raw(client, POD, ticket))["spec"] == made["spec"]

        body = pod("etcd:2", PASSWORD="hunter1") | {"metadata": {"labels": {"version": "2"}}}  # noqa: S106
        await plays.another()
        changed = await raw(client, POD, ticket)
        assert changed["spec"]["containers"][0]["image"] == "etcd:2"
        assert changed["metadata"]["labels"] == {"version": "2"}
        assert changed["metadata"]["uid"] == made["metadata"]["uid"]
        assert "spec.containers[etcd].image: etcd:1 -> etcd:2" in plays.diffs

        body = pod("etcd:3", PASSWORD="hunter2", MORE="x")  # noqa: S106
        await plays.another()
        message = await plays.ready("Immutable")
        env = "spec.containers[etcd].env"
        assert message.startswith(
            f"Cannot change {env}[PASSWORD].value, {env}[MORE] of Pod {ticket}: the API server does not"
        )
        failure = (await Hand("tickets", Settings(), client).check(watch, ticket)).recap.failure
        assert failure is not None
        assert failure.message == message
        assert "hunter" not in json.dumps(await raw(client, TICKET, ticket))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"tolerations": []}, "spec.tolerations"),
        ({"restartPolicy": "Never"}, "spec.restartPolicy"),
        ({"terminationGracePeriodSeconds": 5}, "spec.terminationGracePeriodSeconds"),
        ({"containers": [*pod()["spec"]["containers"], {"name": "b", "image": "b"}]}, "spec.containers"),
        ({"volumes": [{"name": "data", "emptyDir": {}}]}, "spec.volumes[data]"),
    ],
)
async def test_each_field_of_a_pod_that_cannot_change_is_named(
    api_server: ApiServer, client: Client, ticket: ObjectKey, change: dict[str, Any], named: str
) -> None:
    body = pod()

    async def run(play: TicketPlay) -> None:
        await play.apply(POD, body)

    plays = Plays(client, ticket, run)
    async with operator(api_server, ticket, plays.playbook, owns=(*OWNS, POD)):
        await plays.ready("Reconciled")
        body = {"spec": {**body["spec"], **change}}
        await plays.another()
        await plays.ready("Immutable", f"Cannot change {named}")


# Creation, patches, reads, records.


async def test_an_object_is_created_by_a_post_that_no_restart_repeats(
    api_server: ApiServer, client: Client, ticket: ObjectKey
) -> None:
    data = {"a": "1"}

    async def make(play: TicketPlay) -> None:
        await play.create(CONFIG_MAP, {"data": dict(data)})

    plays = Plays(client, ticket, make)
    for _ in range(2):
        async with operator(api_server, ticket, plays.playbook) as own:
            await plays.another()
            assert own.counts["get configmaps"] == 0
    assert plays.diffs == ["+ data.a: 1"]
    made = await raw(client, CONFIG_MAP, ticket)
    data["a"] = "2"
    async with operator(api_server, ticket, plays.playbook):
        await plays.another()
        message = await plays.ready("AlreadyExists")
        assert "it already exists and was not created from this manifest" in message
    assert await raw(client, CONFIG_MAP, ticket) == made


async def test_a_field_of_a_creation_is_removed_by_a_later_apply_without_it(
    api_server: ApiServer, client: Client, ticket: ObjectKey
) -> None:
    stated: dict[str, dict[str, str]] = {"data": {"a": "1", "b": "1"}}

    async def both(play: TicketPlay) -> None:
        await play.create(CONFIG_MAP, {"data": {"a": "1", "b": "1"}})
        await play.apply(CONFIG_MAP, dict(stated))

    plays = Plays(client, ticket, both)
    async with operator(api_server, ticket, plays.playbook) as own:
        await plays.ready("Reconciled")
        made = await raw(client, CONFIG_MAP, ticket)
        managers = {(each["manager"], each["operation"]) for each in made["metadata"]["managedFields"]}
        assert managers == {("tickets", "Apply")}
        stated = {"data": {"a": "2"}}
        await plays.another()
        changed = await raw(client, CONFIG_MAP, ticket)
        assert changed["data"] == {"a": "2"}
        assert changed["metadata"]["uid"] == made["metadata"]["uid"]
        assert changed["metadata"]["annotations"] == made["metadata"]["annotations"], "still recognized"
        asked = dict(own.counts)
        await plays.another()
        assert own.counts == asked


async def test_slips_that_the_server_would_refuse_or_accept_silently_send_no_request(
    api_server: ApiServer, client: Client, ticket: ObjectKey
) -> None:
    slips: list[Callable[[Any], Awaitable[object]]] = [
        lambda play: play.apply(CONFIG_MAP, {"kind": "Secret"}),
        lambda play: play.apply(CONFIG_MAP, {"data": {"a": float("nan")}}),
        lambda play: play.apply(CONFIG_MAP, {"metadata": {"generateName": "a"}}),
    ]

    async def slip(play: TicketPlay) -> None:
        await slips[0](play)

    plays = Plays(client, ticket, slip)
    async with operator(api_server, ticket, plays.playbook) as own:
        for sentence in ("kind is 'Secret'", "data.a is nan", "metadata.generateName would create"):
            assert sentence in await plays.ready("UnexpectedError", sentence)
            slips.pop(0)
            if slips:
                await plays.another()
        assert own.counts.keys() <= {"patch events"}


async def test_a_patch_reports_its_changes_and_is_refused_for_another_version(
    api_server: ApiServer, client: Client, ticket: ObjectKey
) -> None:
    patched: list[str] = []

    async def label(play: TicketPlay) -> None:
        await play.apply(CONFIG_MAP, {"data": {"a": "1"}})
        found = await play.read(CONFIG_MAP, play.object.metadata.name)
        assert found is not None
        assert await play.read(CONFIG_MAP, "none") is None
        body = {"metadata": {"annotations": {"note": str(play.object.spec.seats)}}}
        obj = await play.patch(CONFIG_MAP, play.object.metadata.name, body)
        patched.append(obj.metadata.annotations["note"])

    plays = Plays(client, ticket, label)
    async with operator(api_server, ticket, plays.playbook) as own:
        await plays.ready("Reconciled")
        assert plays.diffs == ["+ data.a: 1", "+ metadata.annotations.note: 1"]
        await plays.another()
        writes = own.counts["patch configmaps"]
        await plays.another()
        assert own.counts["patch configmaps"] == writes == 2
        # Another client changes the object before the patch, which the API server then refuses.
        await client.patch(TICKET, ticket, {"spec": {"seats": 2}}, type=MERGE)
        await client.patch(CONFIG_MAP, ticket, {"data": {"theirs": "x"}}, type=MERGE)

        async def noted() -> bool:
            made = await raw(client, CONFIG_MAP, ticket)
            return bool(made["metadata"]["annotations"]["note"] == "2")

        await eventually(noted)
        assert (await raw(client, CONFIG_MAP, ticket))["data"] == {"a": "1", "theirs": "x"}


async def test_a_claim_is_stored_before_the_effect_and_causes_no_reconcile(
    api_server: ApiServer, client: Client, ticket: ObjectKey
) -> None:
    seen: list[dict[str, Any]] = []

    async def claim(play: TicketPlay) -> None:
        await play.record(msgspec.structs.replace(play.status, booking="claimed"))
        stored = await raw(client, TICKET, ticket)
        seen.append(stored["status"])
        assert play.object.metadata.resource_version == stored["metadata"]["resourceVersion"]

    plays = Plays(client, ticket, claim)
    async with operator(api_server, ticket, plays.playbook):
        await plays.ready("Reconciled")
        await plays.another()
    assert seen[0] == {"booking": "claimed"}
    assert len(seen) == 2


async def test_a_cleanup_in_a_namespace_that_is_being_deleted_ends(
    api_server: ApiServer, client: Client, ticket: ObjectKey, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing removes the namespace here: that is done by a controller of a whole cluster."""

    @task("the last backup is stored")
    async def store(play: TicketPlay) -> None:
        await play.create(CONFIG_MAP, {"data": {"a": "1"}})

    namespaces: Resource[Thing] = Resource("", "v1", "Namespace", "namespaces", Thing, namespaced=False)
    book = Playbook(TicketPlay, tasks=[], cleanup=[store], finalizer="tests.dev/cleanup")

    async def held() -> bool:
        return bool((await raw(client, TICKET, ticket))["metadata"].get("finalizers"))

    async def gone() -> bool:
        try:
            await client.get(TICKET, ticket)
        except NotFound:
            return True
        return False

    async with operator(api_server, ticket, book):
        await eventually(held)
        await client.delete(namespaces, ObjectKey("", ticket.namespace))
        await client.delete(TICKET, ticket)
        await eventually(gone)
    assert f"the namespace {ticket.namespace} is being deleted" in caplog.text
