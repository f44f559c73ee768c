"""What a real API server says of Secrets reaches people without a value of theirs."""

import json
import logging
from typing import Any

import pytest

from pilothouse.controller.events import EVENT
from pilothouse.kube import Client, ObjectKey, PatchType, Resource
from pilothouse.playbook import Playbook, Watch, add_watch
from pilothouse.process import Manager, Settings
from pilothouse.testing import ApiServer, eventually
from tests.api.tickets import CRD
from tests.api.versions import ON_BOTH
from tests.api.widgets import install
from tests.running import running
from tests.unit.playbook.configured import DEPLOYMENT, OWNS, SECRET, TicketPlay, playbook
from tests.unit.tickets import TICKET

pytestmark = ON_BOTH

VALUES = ("hunter2", "8675309", "aHVudGVyMg")
POLICIES = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolic"

SECRETS: dict[str, Any] = {
    "number": {"stringData": {"pin": 8675309}},
    "list": {"stringData": {"pin": ["hunter2-in-a-list"]}},
    "text": {"stringData": "hunter2"},
    "data-number": {"data": {"pin": 8675309}},
    "data-list": {"data": {"pin": ["hunter2-in-a-list"]}},
    "data-text": {"data": "hunter2"},
    "no-base64": {"data": {"password": "hunter2 is not base64!"}},
    "key": {"stringData": {"bad key hunter2": "x"}},
    "type": {"type": "kubernetes.io/dockerconfigjson", "stringData": {".dockerconfigjson": "{hunter2"}},
    "tls": {"type": "kubernetes.io/tls", "stringData": {"tls.crt": "hunter2"}},
    "unknown": {"stringData": {"a": "hunter2"}, "hunter2": "x"},
}


@pytest.fixture(autouse=True)
async def kind(client: Client) -> None:
    await install(client, CRD)


async def ticket(client: Client, namespace: str, name: str) -> ObjectKey:
    body = {"apiVersion": TICKET.api_version, "kind": TICKET.kind, "metadata": {"name": name}}
    return (await client.create(TICKET, {**body, "spec": {"seats": 1}}, namespace=namespace)).metadata.key


async def raw(client: Client, resource: Resource[Any], key: ObjectKey) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(await client.request("GET", resource.path(*key)))
    return found


async def play(
    api_server: ApiServer, client: Client, keys: list[ObjectKey], book: Playbook[Any]
) -> dict[str, str]:
    """Plays tickets until each has failed; returns what their conditions say."""

    async def refusals() -> dict[str, str]:
        found: dict[str, str] = {}
        for key in keys:
            conditions = (await raw(client, TICKET, key)).get("status", {}).get("conditions", [])
            for ready in (each for each in conditions if each["type"] == "Ready"):
                found[key.name] = ready["message"]
        return found if len(found) == len(keys) else {}

    namespace = keys[0].namespace

    async def events() -> bytes:
        found = await client.request("GET", EVENT.path(namespace))
        return found if found.count(b'"regarding"') >= len(keys) else b""

    async with Client(api_server.config(), user_agent="tickets/test") as own:
        settings = Settings(watch_namespaces=(namespace,), health_host="127.0.0.1", health_port=0)
        manager = Manager("tickets", settings, own)
        add_watch(manager, Watch(TICKET, book, owns=OWNS))
        async with running(manager):
            said: dict[str, str] = await eventually(refusals, within=60)
            written: bytes = await eventually(events, within=60)
    for value in VALUES:
        assert value.encode() not in written
        assert value not in str(said)
    return said


async def test_a_refused_secret(
    api_server: ApiServer, client: Client, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    async def apply(ticket: TicketPlay) -> None:
        await ticket.apply(SECRET, SECRETS[ticket.object.metadata.name])

    keys = [await ticket(client, namespace, name) for name in SECRETS]
    said = await play(api_server, client, keys, playbook(apply))
    for value in VALUES:
        assert value not in caplog.text
    assert "tls.key" in said["tls"], "fields and reasons are kept"
    assert "illegal base64 data" in said["no-base64"]
    assert "a value in stringData has the type int" in said["number"]


async def test_a_policy_that_quotes_a_value(
    api_server: ApiServer, client: Client, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    name = f"no-hunter.{namespace}"
    policy = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": name},
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {
                "resourceRules": [
                    {"apiGroups": [""], "apiVersions": ["*"], "operations": ["*"], "resources": ["secrets"]}
                ]
            },
            "validations": [{"expression": "false", "messageExpression": "'no: ' + string(object.data.a)"}],
        },
    }
    binding = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": name},
        "spec": {
            "policyName": name,
            "validationActions": ["Deny"],
            "matchResources": {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
            },
        },
    }
    await client.request("POST", f"{POLICIES}ies", body=policy)
    await client.request("POST", f"{POLICIES}ybindings", body=binding)
    probe = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "probe"}, "data": {"a": "YQ=="}}

    async def enforced() -> bool:
        try:
            await client.patch(
                SECRET, ObjectKey(namespace, "probe"), probe, type=PatchType.APPLY, dry_run=True
            )
        except Exception as error:
            return "denied request" in str(error)
        return False

    try:
        await eventually(enforced, within=60)

        async def apply(ticket: TicketPlay) -> None:
            await ticket.apply(SECRET, {"stringData": {"a": "hunter2"}})

        said = await play(api_server, client, [await ticket(client, namespace, "web")], playbook(apply))
    finally:
        await client.request("DELETE", f"{POLICIES}ybindings/{name}")
        await client.request("DELETE", f"{POLICIES}ies/{name}")
    assert f"ValidatingAdmissionPolicy '{name}'" in said["web"]
    assert "(hidden)" in said["web"]
    for value in VALUES:
        assert value not in caplog.text


async def test_a_refusal_of_another_object_that_has_the_value(
    api_server: ApiServer, client: Client, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    async def apply(ticket: TicketPlay) -> None:
        await ticket.apply(SECRET, {"stringData": {"a": "hunter2"}})
        # Each is quoted: a label's value that is none, and a list where a text is due.
        labels = (
            {"metadata": {"labels": {"password": "hunter2 "}}} if ticket.object.metadata.name == "a" else {}
        )
        await ticket.apply(DEPLOYMENT, {**labels, "spec": {"paused": ["hunter2"]} if not labels else {}})

    keys = [await ticket(client, namespace, name) for name in "ab"]
    said = await play(api_server, client, keys, playbook(apply))
    assert "(hidden)" in str(said)
    for value in VALUES:
        assert value not in caplog.text
