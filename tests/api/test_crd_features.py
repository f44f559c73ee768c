"""All generated CRDs on a real API server, and the effect of each part of a declaration."""

import json
from typing import Any

import msgspec
import pytest

from devcluster import toolchain
from pilothouse.api import Kind, core_types
from pilothouse.api.crd import crd
from pilothouse.kube import Client, Invalid, KubeError, PatchType
from pilothouse.testing import ApiServer, eventually
from release.packages import PACKAGES
from tests.api.versions import ON_BOTH
from tests.api.widgets import CRDS, install
from tests.unit.api.howto import WEB_SITE
from tests.unit.api.kitchen_sink import GROUP, KITCHEN_SINK, Sink

pytestmark = ON_BOTH

SINKS = KITCHEN_SINK.resource
KINDS: list[Kind[Any]] = [
    KITCHEN_SINK,
    WEB_SITE,
    *(kind for package in PACKAGES.values() for kind in package.kinds),
]


@pytest.fixture
async def sinks(client: Client, namespace: str) -> str:
    await install(client, crd(KITCHEN_SINK))
    return namespace


async def create(client: Client, namespace: str, **spec: Any) -> Sink:
    body = {"apiVersion": SINKS.api_version, "kind": "Sink", "metadata": {"generateName": "s-"}, "spec": spec}
    return await client.create(SINKS, body, namespace=namespace)


async def raw(client: Client, namespace: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(await client.request("GET", SINKS.path(namespace, name)))
    return found


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.resource.kind)
async def test_the_server_accepts_every_whole_crd(client: Client, kind: Kind[Any]) -> None:
    ours: dict[str, Any] = crd(kind)
    await install(client, ours)

    async def established() -> dict[str, Any] | None:
        found: dict[str, Any] = json.loads(await client.request("GET", f"{CRDS}/{ours['metadata']['name']}"))
        conditions = {each["type"]: each["status"] for each in found["status"]["conditions"]}
        assert conditions.get("NonStructuralSchema", "False") == "False"
        return found if conditions["Established"] == "True" else None

    stored = await eventually(established)
    # No field was dropped as unknown.
    assert stored["spec"]["versions"] == ours["spec"]["versions"]
    assert stored["spec"]["names"] == ours["spec"]["names"]
    # All accepted names are served. A short name of another kind would be missing.
    assert stored["status"]["acceptedNames"] == ours["spec"]["names"]


async def test_absent_fields_get_their_defaults(client: Client, sinks: str) -> None:
    body = {"apiVersion": SINKS.api_version, "kind": "Sink", "metadata": {"name": "empty"}}
    assert (await client.create(SINKS, body, namespace=sinks)).spec == Sink().spec
    spec = (await raw(client, sinks, "empty"))["spec"]
    assert spec == {
        "colour": "Blue",
        "size": 3,
        "enabled": True,
        "storage": "1Gi",
        "timeout": "1h30m",
        "pod": {},
    }


WRONG = (
    ({"size": 10}, "spec.size", "less than or equal to 9"),
    ({"size": 9, "enabled": False}, "spec.size", "enable it, or ask for fewer than 9"),
    ({"colour": "Green"}, "spec.colour", 'supported values: "Red", "Blue"'),
    ({"storage": "1 Gi"}, "spec.storage", "should match"),
    ({"timeout": "1d"}, "spec.timeout", "should match"),
    ({"unavailable": True}, "spec.unavailable", "must be of type integer,string"),
    ({"hosts": ["a", "a"]}, "spec.hosts[1]", "Duplicate value"),
    ({"ports": [{"name": "a"}, {"name": "a", "number": 2}]}, "spec.ports[1]", "Duplicate value"),
    ({"ports": [{"number": 2}]}, "spec.ports[0].name", "Required value"),
    ({"pod": {"tolerations": [{"tolerationSeconds": "long"}]}}, "spec.pod.tolerations[0]", "type integer"),
    ({"pod": {"env": [{"value": "nameless"}]}}, "spec.pod.env[0].name", "Required value"),
    ({"pod": {"resources": {"limits": {"cpu": "much"}}}}, "spec.pod.resources.limits.cpu", "should match"),
)


@pytest.mark.parametrize(("spec", "field", "message"), WRONG, ids=[field for _, field, _ in WRONG])
async def test_the_refusal_of_an_invalid_object_names_the_field(
    client: Client, sinks: str, spec: dict[str, Any], field: str, message: str
) -> None:
    with pytest.raises(Invalid) as caught:
        await create(client, sinks, **spec)
    causes = [(cause.field, cause.message) for cause in caught.value.causes]
    assert any(found.startswith(field) and message in text for found, text in causes), causes


async def test_core_types_are_stored_unchanged_and_without_defaults(client: Client, sinks: str) -> None:
    pod = {
        "affinity": {
            "podAntiAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": [
                    {"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": "a"}}}
                ]
            }
        },
        "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
        "resources": {"limits": {"cpu": 2, "memory": "1Gi"}},
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "tolerations": [{"key": "a", "operator": "Exists", "effect": "NoSchedule"}],
        "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "5Mi"}}],
        "claim": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
        "template": {
            "metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 1}]}]},
        },
    }
    created = await create(client, sinks, pod=pod)
    stored = (await raw(client, sinks, created.metadata.name))["spec"]["pod"]
    # The key of a list item needs a value.
    pod["template"]["spec"]["containers"][0]["ports"][0]["protocol"] = "TCP"  # type: ignore[index]
    assert stored == pod
    assert json.loads(msgspec.json.encode(created.spec.pod)) == pod


async def test_lists_and_watches_can_select_by_selectable_fields(client: Client, sinks: str) -> None:
    red = await create(client, sinks, colour="Red", size=4)
    await create(client, sinks, colour="Blue")
    for selector in ("spec.colour=Red", "spec.size=4", "spec.colour!=Blue"):
        found = json.loads(await client.request("GET", SINKS.path(sinks), params={"fieldSelector": selector}))
        assert [each["metadata"]["name"] for each in found["items"]] == [red.metadata.name], selector


async def test_objects_can_be_scaled_like_with_kubectl(client: Client, sinks: str) -> None:
    created = await create(client, sinks, size=4)
    path = SINKS.path(sinks, created.metadata.name, "scale")
    scale = json.loads(await client.request("GET", path))
    assert scale["spec"]["replicas"] == 4
    await client.request("PUT", path, body={**scale, "spec": {"replicas": 5}})
    assert (await client.get(SINKS, created.metadata.key)).spec.size == 5


async def test_an_older_version_serves_the_same_objects_and_a_patch_keeps_other_fields(
    client: Client, sinks: str
) -> None:
    created = await create(client, sinks, size=4, word="on")
    path = f"/apis/{GROUP}/v1/namespaces/{sinks}/sinks/{created.metadata.name}"
    old = json.loads(await client.request("GET", path))
    assert (old["apiVersion"], old["spec"]["size"]) == (f"{GROUP}/v1", 4)
    await client.request("PATCH", path, body={"spec": {"size": 5}}, content_type=PatchType.MERGE)
    spec = (await client.get(SINKS, created.metadata.key)).spec
    assert (spec.size, spec.word) == (5, "on")


async def test_a_rule_for_the_whole_object(client: Client, sinks: str) -> None:
    body = {"apiVersion": SINKS.api_version, "kind": "Sink", "metadata": {"name": "forbidden"}}
    with pytest.raises(KubeError, match="take another name"):
        await client.create(SINKS, body, namespace=sinks)


async def test_the_howtos_rules_say_what_to_write_instead(client: Client, namespace: str) -> None:
    sites = WEB_SITE.resource
    await install(client, crd(WEB_SITE))

    async def create(name: str, **spec: Any) -> Any:
        body = {"apiVersion": sites.api_version, "kind": "WebSite", "metadata": {"name": name}} | spec
        return await client.create(sites, body, namespace=namespace)

    with pytest.raises(Invalid, match="set spec, for example to"):
        await create("a")
    with pytest.raises(Invalid, match="set host, for example to"):
        await create("a", spec={})
    with pytest.raises(Invalid, match="/admin is reserved for the operator"):
        await create("a", spec={"host": "a.example.com", "pages": [{"path": "/admin"}]})
    site = await create("a", spec={"host": "a.example.com", "pages": [{"path": "/"}]})
    assert (site.spec.size, site.spec.theme, site.spec.cache) == (2, "Light", "64Mi")
    with pytest.raises(Invalid, match="host cannot be changed"):
        await client.patch(
            sites, site.metadata.key, {"spec": {"host": "b.example.com"}}, type=PatchType.MERGE
        )
    chosen = {"fieldSelector": "spec.theme=Light"}
    found = json.loads(await client.request("GET", sites.path(namespace), params=chosen))
    assert [each["metadata"]["name"] for each in found["items"]] == ["a"]


@pytest.mark.parametrize("since", ["0000-01-01T00:00:00Z", "2026-01-01T00:00:00+99:99"])
async def test_a_time_that_cannot_be_decoded_is_refused(client: Client, sinks: str, since: str) -> None:
    with pytest.raises(Invalid, match=r"spec\.since"):
        await create(client, sinks, since=since)


async def test_the_core_types_are_those_of_the_newest_kubernetes(
    api_server: ApiServer, client: Client
) -> None:
    newest = toolchain.TOOLS["kubernetes"].version
    if json.loads(await client.request("GET", "/version"))["gitVersion"] != newest:
        pytest.skip(f"the core types are written from Kubernetes {newest}")
    document = json.loads(await client.request("GET", "/openapi/v3/api/v1"))
    assert core_types.text(document) == core_types.FILE.read_text(), "run ./inv core-types"
