"""The operator with no more rights than its manifests grant, as OLM and as kustomize would run it."""

import json
import ssl
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from booking_api.faults import Fault, Faults
from devcluster import toolchain
from devcluster.folders import CHECKOUT
from devcluster.kubectl import Kubectl
from flights_operator.__main__ import NAME
from flights_operator.types import FLIGHT_TICKET
from pilothouse.api.crd import crd
from pilothouse.kube import Client, NotFound
from pilothouse.process import Manager
from pilothouse.testing import ApiServer, eventually
from release.documents import dump, load
from release.packages import PACKAGES
from tests.airline import Airline, running_airline
from tests.api.test_flights import User, running_operator
from tests.api.versions import ON_BOTH
from tests.api.widgets import install
from tests.unit.kube.authority import Authority

pytestmark = ON_BOTH

RBAC = "/apis/rbac.authorization.k8s.io/v1"
PACKAGE = PACKAGES["pilothouse-flights"]


async def service_account(client: Client, namespace: str, name: str = NAME) -> str:
    """Makes a service account, the operator's by default, unless it is there, and returns a token of it."""
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts"
    body = {"metadata": {"name": name}}
    try:
        await client.request("GET", f"{path}/{name}")
    except NotFound:
        await client.request("POST", path, body=body)
    answer = json.loads(await client.request("POST", f"{path}/{name}/token", body={"spec": {}}))
    return str(answer["status"]["token"])


async def grant_like_olm(client: Client, namespace: str) -> None:
    """The CSV's permissions as a Role in the one namespace of an OperatorGroup."""
    csv = load(PACKAGE.bundle / "manifests" / f"{PACKAGE.name}.clusterserviceversion.yaml")
    (permissions,) = csv["spec"]["install"]["spec"]["permissions"]
    path = f"{RBAC}/namespaces/{namespace}"
    role = {"metadata": {"name": "olm"}, "rules": permissions["rules"]}
    binding = {
        "metadata": {"name": "olm"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "olm"},
        "subjects": [{"kind": "ServiceAccount", "name": NAME, "namespace": namespace}],
    }
    await client.request("POST", f"{path}/roles", body=role)
    await client.request("POST", f"{path}/rolebindings", body=binding)


async def bind(client: Client, role: str, name: str) -> None:
    """Binds a cluster role to a service account beside the operator's."""
    binding = {
        "metadata": {"name": f"{role}-{name}"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": NAME}],
    }
    await client.request("POST", f"{RBAC}/clusterrolebindings", body=binding)


def apply_plain_manifests(api_server: ApiServer, overlay: str = "") -> Kubectl:
    """`kubectl apply -k config/flights`, or an overlay of it, refused when a field is misspelt."""
    kubectl = Kubectl(toolchain.binary("kubectl"), api_server.kubeconfig())
    folder = str(CHECKOUT / "config" / "flights" / overlay)
    kubectl("apply", "--server-side", "--force-conflicts", "--validate=strict", "-k", folder)
    return kubectl


async def live_through_everything(user: User, airline: Airline, caplog: pytest.LogCaptureFixture) -> None:
    """A ticket's whole life, with an Event on the way, and nothing refused."""
    await user.create("t")
    await user.until("t", "Booked")
    airline.set_faults(Faults(drop=Fault()))
    await user.change("t", spec={"number": 4})
    await user.until("t", "Updating")
    events = f"/apis/events.k8s.io/v1/namespaces/{user.namespace}/events"

    async def told() -> bool:
        return bool(json.loads(await user.client.request("GET", events))["items"])

    await eventually(told, describe=lambda: caplog.text)
    airline.set_faults(Faults())
    await user.until("t", "Booked", within=40, booked_seats=4)
    await user.delete("t")
    await user.until_gone("t")
    assert "forbidden" not in caplog.text.lower()


async def test_rights_in_one_namespace_are_enough_for_it(
    api_server: ApiServer, client: Client, namespace: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await install(client, crd(FLIGHT_TICKET))
    token = await service_account(client, namespace)
    await grant_like_olm(client, namespace)
    variables = {"LEADER_ELECT": "true", "POD_NAMESPACE": namespace}
    async with (
        running_airline(tmp_path) as airline,
        running_operator(api_server, airline, namespace, token=token, **variables),
    ):
        await live_through_everything(User(client, namespace), airline, caplog)


async def test_the_plain_manifests_are_accepted_and_grant_enough(
    api_server: ApiServer, client: Client, namespace: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    apply_plain_manifests(api_server)
    variables = {"LEADER_ELECT": "true", "POD_NAMESPACE": NAME}
    token = await service_account(client, NAME)
    async with (
        running_airline(tmp_path) as airline,
        running_operator(api_server, airline, "", token=token, **variables),
    ):
        await live_through_everything(User(client, namespace), airline, caplog)


def test_its_pods_may_live_in_a_restricted_namespace(api_server: ApiServer) -> None:
    kubectl = apply_plain_manifests(api_server)
    deployment: dict[str, Any] = kubectl.read("deployment", NAME, "-n", NAME)
    template = deployment["spec"]["template"]
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "probe", "labels": template["metadata"]["labels"]},
        "spec": template["spec"],
    }
    words = ("create", "--dry-run=server", "-n", NAME, "-f", "-")
    assert "created" in kubectl(*words, stdin=dump(pod))


async def test_the_metrics_are_for_those_whom_the_api_server_allows(
    api_server: ApiServer, client: Client, tmp_path: Path
) -> None:
    apply_plain_manifests(api_server, "secure-metrics")
    authority = Authority(tmp_path)
    for file, name in zip(authority.issue("pilothouse"), ("tls.crt", "tls.key"), strict=True):
        file.rename(tmp_path / name)
    token = await service_account(client, NAME)
    readers = {name: await service_account(client, NAME, name) for name in ("prometheus", "anybody")}
    await bind(client, f"{NAME}-metrics-reader", "prometheus")
    variables = {"METRICS_CERT_DIR": str(tmp_path), "METRICS_AUTH": "true", "POD_NAMESPACE": NAME}
    trust = ssl.create_default_context(cafile=authority.ca_file)
    trust.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)

    async def status(manager: Manager, path: str, token: str = "") -> int:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        url = f"https://127.0.0.1:{manager.server.port}{path}"
        async with aiohttp.ClientSession() as session, session.get(url, headers=headers, ssl=trust) as answer:
            return answer.status

    async with (
        running_airline(tmp_path) as airline,
        running_operator(api_server, airline, "", token=token, **variables) as manager,
    ):

        async def told() -> dict[str, int]:
            tokens = {"nobody": "", "stranger": "made.up.token", **readers}
            return {name: await status(manager, "/metrics", token) for name, token in tokens.items()}

        async def as_bound() -> bool:
            return await told() == {"nobody": 401, "stranger": 401, "anybody": 403, "prometheus": 200}

        await eventually(lambda: manager.server.port)
        await eventually(as_bound, within=20, describe=told)
        assert await status(manager, "/healthz") == 200


async def test_the_sharded_manifests_grant_enough(
    api_server: ApiServer, client: Client, namespace: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kubectl = apply_plain_manifests(api_server, "sharded")
    container = kubectl.read("deployment", NAME, "-n", NAME)["spec"]["template"]["spec"]["containers"][0]
    shards = {each["name"]: each.get("value", "") for each in container["env"]}["SHARDS"]
    token = await service_account(client, NAME)
    variables = {"SHARDS": shards, "POD_NAMESPACE": NAME}
    async with (
        running_airline(tmp_path) as airline,
        running_operator(api_server, airline, "", token=token, **variables) as manager,
    ):
        assert manager.sharding
        sharding = manager.sharding
        await eventually(lambda: len(sharding.held) == int(shards), describe=lambda: caplog.text)
        await live_through_everything(User(client, namespace), airline, caplog)
