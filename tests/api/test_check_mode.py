"""Check mode against a real API server: it tries the creation of objects, and changes nothing."""

from collections.abc import Sequence

import pytest

from pilothouse.cli.by_hand import Hand
from pilothouse.kube import Client, ObjectKey
from pilothouse.playbook import State, TaskResult, Watch
from pilothouse.process import Settings
from pilothouse.testing import ApiServer
from tests.api.test_permissions import RBAC, service_account
from tests.api.tickets import CRD
from tests.api.versions import ON_BOTH
from tests.api.widgets import install
from tests.unit.playbook.configured import CONFIG_MAP, DEPLOYMENT, Function, TicketPlay, playbook
from tests.unit.tickets import TICKET

pytestmark = ON_BOTH


@pytest.fixture
async def ticket(client: Client, namespace: str) -> ObjectKey:
    await install(client, CRD)
    body = {
        "apiVersion": TICKET.api_version,
        "kind": TICKET.kind,
        "metadata": {"name": "t"},
        "spec": {"seats": 1},
    }
    return (await client.create(TICKET, body, namespace=namespace)).metadata.key


async def checked(api: Client, ticket: ObjectKey, *functions: Function) -> Sequence[TaskResult]:
    watch = Watch(TICKET, playbook(*functions), owns=[CONFIG_MAP, DEPLOYMENT])
    settings = Settings(watch_namespaces=(ticket.namespace,))
    return (await Hand("tickets", settings, api).check(watch, ticket)).recap.results


async def deployments(client: Client, namespace: str) -> list[str]:
    pages = [page async for page in client.pages(DEPLOYMENT, namespace=namespace)]
    return [each.metadata.name for page in pages for each in page.items]


def deployment(**container: object) -> dict[str, object]:
    labels = {"app": "web"}
    template = {
        "metadata": {"labels": labels},
        "spec": {"containers": [{"name": "web", "image": "web:1", **container}]},
    }
    return {"spec": {"selector": {"matchLabels": labels}, "template": template}}


@pytest.mark.parametrize("module", ["apply", "create"])
async def test_the_server_sets_defaults_and_stores_nothing(
    client: Client, ticket: ObjectKey, module: str
) -> None:
    seen: list[object] = []

    async def deploy(play: TicketPlay) -> None:
        made = await getattr(play, module)(DEPLOYMENT, deployment())
        seen.append(made.spec["strategy"]["type"])

    before = await deployments(client, ticket.namespace)
    [result] = await checked(client, ticket, deploy)
    assert (result.state, result.message) == (State.CHANGED, "create Deployment t")
    assert seen == ["RollingUpdate"], "the default of the API server"
    assert await deployments(client, ticket.namespace) == before


@pytest.mark.parametrize("module", ["apply", "create"])
async def test_what_the_server_refuses_is_a_failure(client: Client, ticket: ObjectKey, module: str) -> None:
    async def deploy(play: TicketPlay) -> None:
        await getattr(play, module)(DEPLOYMENT, deployment(imagePullPolicy="Sometimes"))

    [result] = await checked(client, ticket, deploy)
    assert result.state is State.FAILED
    assert 'imagePullPolicy: Unsupported value: "Sometimes"' in result.message


@pytest.mark.parametrize("module", ["apply", "create"])
async def test_a_missing_namespace_is_reported(client: Client, ticket: ObjectKey, module: str) -> None:
    async def keep(play: TicketPlay) -> None:
        body = {"metadata": {"name": "web", "namespace": "nowhere"}, "data": {"a": "1"}}
        await getattr(play, module)(CONFIG_MAP, body, owned=False)

    watch = Watch(TICKET, playbook(keep), owns=[CONFIG_MAP])
    [result] = (await Hand("tickets", Settings(), client).check(watch, ticket)).recap.results
    assert (result.state, result.diff) == (State.CHANGED, ("+ data.a: 1",))
    assert "has not checked it: the namespace nowhere does not exist." in result.message


@pytest.mark.parametrize("module", ["apply", "create"])
async def test_a_missing_right_is_reported(
    api_server: ApiServer, client: Client, ticket: ObjectKey, module: str
) -> None:
    namespace = ticket.namespace
    token = await service_account(client, namespace, "reader")
    rule = {"apiGroups": ["*"], "resources": ["*"], "verbs": ["get", "list", "watch"]}
    binding = {
        "metadata": {"name": "reader"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"},
        "subjects": [{"kind": "ServiceAccount", "name": "reader", "namespace": namespace}],
    }
    path = f"{RBAC}/namespaces/{namespace}"
    await client.request("POST", f"{path}/roles", body={"metadata": {"name": "reader"}, "rules": [rule]})
    await client.request("POST", f"{path}/rolebindings", body=binding)

    async def keep(play: TicketPlay) -> None:
        await getattr(play, module)(CONFIG_MAP, {"data": {"a": "1"}})

    async with Client(api_server.config(token), user_agent="tickets/1") as reader:
        [result] = await checked(reader, ticket, keep)
    assert (result.state, result.diff) == (State.CHANGED, ("+ data.a: 1",))
    assert 'cannot patch resource "configmaps"' in result.message
    assert "Grant this permission" in result.message
