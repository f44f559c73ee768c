"""The EtcdCluster's CRD on a real API server, over the objects that the coreos operator stored."""

import json
from typing import Any

import pytest

from etcd_operator.types import ETCD_CLUSTER, EtcdCluster
from etcd_operator.variables import BY_VALUE, GROUPS
from pilothouse.api.crd import crd
from pilothouse.kube import Client, Invalid, KubeError, NotFound, ObjectKey, PatchType
from pilothouse.testing import eventually
from tests import coreos
from tests.api.versions import ON_BOTH

pytestmark = ON_BOTH

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
NAME = f"{CRDS}/etcdclusters.{coreos.GROUP}"
CLUSTERS = ETCD_CLUSTER.resource
OURS: dict[str, Any] = crd(ETCD_CLUSTER)


def cluster(name: str, spec: dict[str, Any] | None) -> dict[str, Any]:
    head = {**coreos.SEED, "metadata": {"name": name}}
    return {**head, "spec": spec} if spec is not None else {k: v for k, v in head.items() if k != "spec"}


def without_rules(schema: Any) -> Any:
    """The OpenAPI part of a schema, which is what OLM checks stored objects against."""
    if isinstance(schema, list):
        return [without_rules(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {key: without_rules(value) for key, value in schema.items() if key != "x-kubernetes-validations"}


async def install(client: Client, body: dict[str, Any], namespace: str = "") -> None:
    """Installs or replaces the CRD, and waits until it is effective.

    A namespace: until the rules are.
    """
    try:
        present = json.loads(await client.request("GET", NAME))
    except NotFound:
        await client.request("POST", CRDS, body=body)
    else:
        metadata = {**body["metadata"], "resourceVersion": present["metadata"]["resourceVersion"]}
        await client.request("PUT", NAME, body={**body, "metadata": metadata})

    async def in_force() -> bool:
        try:
            await client.request("GET", CLUSTERS.path())
            if namespace:
                await dry_run(client, namespace, "probe", {"size": 0})
        except Invalid:
            return True
        except NotFound:
            return False
        return not namespace

    await eventually(in_force, within=90, describe=lambda: client.request("GET", NAME))


async def dry_run(client: Client, namespace: str, name: str, spec: dict[str, Any] | None) -> Any:
    body = cluster(name, spec)
    return json.loads(
        await client.request("POST", CLUSTERS.path(namespace), params={"dryRun": "All"}, body=body)
    )


@pytest.fixture(autouse=True)
async def without_the_kind(client: Client) -> None:
    """Deletes the kind with all clusters, so that each test begins without it."""

    async def gone() -> bool:
        try:
            await client.request("DELETE", NAME)
        except NotFound:
            return True
        return False

    await eventually(gone, within=90, every=0.1)


async def patch(client: Client, key: ObjectKey, body: object, subresource: str = "") -> EtcdCluster:
    return await client.patch(CLUSTERS, key, body, type=PatchType.MERGE, subresource=subresource)


async def test_the_seeds_manifest_is_stored_unchanged(client: Client, namespace: str) -> None:
    await install(client, OURS, namespace)
    path = CLUSTERS.path(namespace)
    stored = json.loads(await client.request("POST", path, body=coreos.SEED))
    assert stored["spec"] == coreos.SEED["spec"], "no defaults are added"
    params = {"fieldManager": "kubectl", "force": "true"}
    again = json.loads(
        await client.request(
            "PATCH",
            f"{path}/example-etcd-cluster",
            params=params,
            body=coreos.SEED,
            content_type=PatchType.APPLY,
        )
    )
    assert again["spec"] == coreos.SEED["spec"]


async def test_the_schema_accepts_every_object_that_the_coreos_operator_stored(
    client: Client, namespace: str
) -> None:
    """Without rules and without an earlier object, so nothing is tolerated because it has not changed."""
    await install(client, without_rules(OURS))
    for name, body in coreos.stored().items():
        created = await client.create(CLUSTERS, body, namespace=namespace)
        status = {"status": body.get("status", {})}
        written = await patch(client, created.metadata.key, status, subresource="status")
        assert len(written.status.conditions) == len(status["status"].get("conditions", ())), name


async def test_stored_objects_stay_writable(client: Client, namespace: str) -> None:
    await install(client, coreos.CRD)
    for body in coreos.stored().values():
        await client.request("POST", CLUSTERS.path(namespace), body=body)
    await install(client, OURS, namespace)
    ready = {"type": "Ready", "status": "False", "reason": "InvalidSpec", "message": "m"}
    ready["lastTransitionTime"] = "2026-01-01T00:00:00Z"
    for name, body in coreos.stored().items():
        key = ObjectKey(namespace, name)
        before = await client.get(CLUSTERS, key)
        assert before.spec.size == body.get("spec", {}).get("size", 0)
        old = [dict(each) for each in body.get("status", {}).get("conditions", ())]
        status = {"status": {"conditions": [*old, ready], "record": {"incarnation": 1}}}
        written = await patch(client, key, status, subresource="status")
        assert written.status.conditions[-1].reason == "InvalidSpec"
        raw = json.loads(await client.request("GET", CLUSTERS.path(namespace, name)))
        assert raw["status"]["conditions"] == [*old, ready]
        held = await patch(client, key, {"metadata": {"finalizers": ["example.com/held"]}})
        assert held.metadata.finalizers == ("example.com/held",)
        if "size" in body.get("spec", {}):
            paused = await patch(client, key, {"spec": {"paused": True}})
            assert paused.spec.paused, f"{name}: a mistake in one field does not lock the others"
        await client.delete(CLUSTERS, key)
        await patch(client, key, {"metadata": {"finalizers": None}})
        with pytest.raises(NotFound):
            await client.get(CLUSTERS, key)


async def test_a_cluster_can_be_scaled_like_with_kubectl(client: Client, namespace: str) -> None:
    await install(client, OURS, namespace)
    created = await client.create(CLUSTERS, coreos.SEED, namespace=namespace)
    await patch(client, created.metadata.key, {"status": {"size": 3, "selector": "a=b"}}, "status")
    path = CLUSTERS.path(namespace, created.metadata.name, "scale")
    scale = json.loads(await client.request("GET", path))
    assert (scale["spec"]["replicas"], scale["status"]) == (3, {"replicas": 3, "selector": "a=b"})
    await client.request("PUT", path, body={**scale, "spec": {"replicas": 5}})
    assert (await client.get(CLUSTERS, created.metadata.key)).spec.size == 5
    fresh = json.loads(await client.request("GET", path))
    for size in (0, 8):
        with pytest.raises(Invalid, match="use 1 to 7 members"):
            await client.request("PUT", path, body={**fresh, "spec": {"replicas": size}})


async def test_the_short_names_and_the_subresources_are_served(client: Client, namespace: str) -> None:
    await install(client, OURS, namespace)
    found = json.loads(await client.request("GET", f"/apis/{coreos.GROUP}/v1beta2"))
    kinds = {each["name"]: each for each in found["resources"]}
    assert set(kinds["etcdclusters"]["shortNames"]) == {"etcd", "etcdclus"}
    assert set(kinds) == {"etcdclusters", "etcdclusters/status", "etcdclusters/scale"}


def pod(**fields: Any) -> dict[str, Any]:
    return {"size": 3, "pod": fields}


def env(name: str) -> dict[str, Any]:
    return pod(etcdEnv=[{"name": "ETCD_HEARTBEAT_INTERVAL", "value": "100"}, {"name": name, "value": "x"}])


WRONG: tuple[tuple[dict[str, Any] | None, str, str], ...] = (
    (None, "spec", "set the desired cluster"),
    ({}, "spec.size", "set the number of members, 1 to 7"),
    ({"size": 0}, "spec.size", "use 1 to 7 members"),
    ({"size": 8}, "spec.size", "use 1 to 7 members"),
    ({"size": "3"}, "spec.size", "must be of type integer"),
    ({"size": 3, "version": "latest"}, "spec.version", "use a version of three numbers"),
    ({"size": 3, "version": "3.6"}, "spec.version", "use a version of three numbers"),
    ({"size": 3, "repository": "etcd:v3"}, "spec.repository", "without a tag"),
    ({"size": 3, "repository": "etcd@sha256:0"}, "spec.repository", "without a tag"),
    (pod(labels={"app": "x"}), "spec.pod.labels", "reserved for the operator"),
    (pod(labels={"etcd_x": "x"}), "spec.pod.labels", "reserved for the operator"),
    (pod(annotations={"etcd.pilothouse.dev/removed": "x"}), "spec.pod.annotations", "reserved"),
    *(
        (pod(ClusterDomain=domain), "spec.pod.ClusterDomain", "that begins with a dot")
        for domain in ("cluster.local", "..x", ".cluster.local.")
    ),
    *(
        (
            pod(resources={"requests": {name: asked}, "limits": {name: limit}}),
            "spec.pod.resources.requests",
            f"lower the request for {name}",
        )
        for name, asked, limit in (("cpu", "1.5", 1), ("memory", "2Gi", "1Gi"))
    ),
    (pod(resources={"limits": {"cpu": "much"}}), "spec.pod.resources.limits.cpu", "should match"),
    *(
        (env(name), "spec.pod.etcdEnv", f"remove variables that begin with {names[0]}")
        for names, _ in GROUPS
        for name in names
    ),
    *(
        (
            pod(etcdEnv=[{"name": name, "valueFrom": {"configMapKeyRef": {"name": "a", "key": "b"}}}]),
            "spec.pod.etcdEnv",
            "set value instead of valueFrom",
        )
        for name in BY_VALUE
    ),
    ({"size": 3, "TLS": {"static": {"operatorSecret": "s"}}}, "spec.TLS.static", "set both operatorSecret"),
    (
        {"size": 3, "TLS": {"static": {"member": {"serverSecret": "s"}}}},
        "spec.TLS.static",
        "set both operatorSecret",
    ),
    ({"size": 3, "storage": {"whenScaled": "Keep"}}, "spec.storage.whenScaled", 'supported values: "Retain"'),
    (
        {"size": 3, "storage": {"ephemeral": True}, "pod": {"persistentVolumeClaimSpec": {}}},
        "spec.storage.ephemeral",
        "not both",
    ),
    ({"size": 3, "autoCompaction": {"retention": "often"}}, "spec.autoCompaction.retention", "use a time"),
    (
        {"size": 3, "autoCompaction": {"mode": "revision", "retention": "1h"}},
        "spec.autoCompaction.retention",
        "use a number of revisions",
    ),
    *(
        (
            pod(persistentVolumeClaimSpec=claim),
            "spec.pod.persistentVolumeClaimSpec",
            "an empty volume of its own",
        )
        for claim in ({"volumeName": "pv"}, {"dataSource": {"kind": "VolumeSnapshot", "name": "s"}})
    ),
    (
        pod(persistentVolumeClaimSpec={"volumeMode": "Block"}),
        "spec.pod.persistentVolumeClaimSpec.volumeMode",
        "use Filesystem",
    ),
    ({"size": 3, "quotaBackendBytes": "8 GB"}, "spec.quotaBackendBytes", "should match"),
    *(
        ({"size": 3, "quotaBackendBytes": quota}, "spec.quotaBackendBytes", "use at least 16Mi")
        for quota in ("1Ki", -1, "-8Gi", 1)
    ),
    *(
        (
            pod(persistentVolumeClaimSpec={"resources": {"requests": {"storage": size}}}),
            "spec.pod.persistentVolumeClaimSpec.resources.requests",
            "request at least 128Mi",
        )
        for size in ("1Mi", 1)
    ),
    (
        pod(persistentVolumeClaimSpec={"accessModes": ["ReadOnlyMany"]}),
        "spec.pod.persistentVolumeClaimSpec.accessModes",
        "use ReadWriteOnce",
    ),
    (
        pod(etcdEnv=[{"name": name, "value": name} for name in ("A", "B", "A")]),
        "spec.pod.etcdEnv",
        "remove one of two variables with the same name",
    ),
    *(
        (
            pod(etcdEnv=[{"name": "A"}, {"name": name, "value": "$(X)"}]),
            "spec.pod.etcdEnv",
            "without references",
        )
        for name in BY_VALUE
    ),
    *(
        ({**env(name), **fields}, field, "in pod.etcdEnv, not both")
        for name, field, fields in (
            ("ETCD_QUOTA_BACKEND_BYTES", "spec.quotaBackendBytes", {"quotaBackendBytes": "8Gi"}),
            ("ETCD_AUTO_COMPACTION_MODE", "spec.autoCompaction", {"autoCompaction": {"retention": "1h"}}),
            (
                "ETCD_AUTO_COMPACTION_RETENTION",
                "spec.autoCompaction",
                {"autoCompaction": {"retention": "1h"}},
            ),
        )
    ),
)

# Next to a mistake, but none.
RIGHT: tuple[dict[str, Any], ...] = (
    {"size": 3, "pod": None, "quotaBackendBytes": "16Mi", "autoCompaction": {"retention": "1h"}},
    {"size": 3, "quotaBackendBytes": 0, "pod": {"etcdEnv": [{"name": "ETCD_QUOTA_BACKEND_BYTES"}]}},
    {"size": 3, "quotaBackendBytes": "0", "autoCompaction": {}, "TLS": {"static": None}},
    {"size": 3, "quotaBackendBytes": 2**34},
    pod(persistentVolumeClaimSpec=None, resources={}, ClusterDomain="", priorityClassName=""),
    pod(persistentVolumeClaimSpec={"accessModes": [], "resources": {"requests": {"storage": 2**30}}}),
    pod(persistentVolumeClaimSpec={"accessModes": ["ReadOnlyMany", "ReadWriteMany"], "resources": {}}),
    pod(persistentVolumeClaimSpec={"resources": {"requests": {"storage": "128Mi"}}}),
    pod(
        resources={"requests": {"cpu": 1, "memory": "1Gi"}, "limits": {"cpu": "1000m", "example.com/x": 1}},
        ClusterDomain=".cluster.local",
        priorityClassName="system-cluster-critical",
    ),
    pod(etcdEnv=[{"name": f"A{n}", "value": "$(A)"} for n in range(300)]),
    pod(etcdEnv=[]),
    # The API server must not compute these powers of ten. The operator reports them.
    {"size": 3, "quotaBackendBytes": "-.83e480314535"},
    pod(persistentVolumeClaimSpec={"resources": {"requests": {"storage": "1e-480314535"}}}),
    pod(resources={"requests": {"memory": "1e480314535"}, "limits": {"memory": "1Gi"}}),
)


async def test_valid_clusters_are_accepted(client: Client, namespace: str) -> None:
    await install(client, OURS, namespace)
    for spec in RIGHT:
        assert await dry_run(client, namespace, "right", spec)


async def test_the_refusal_of_an_invalid_cluster_names_the_field(client: Client, namespace: str) -> None:
    await install(client, OURS, namespace)
    for spec, field, message in WRONG:
        with pytest.raises(Invalid) as caught:
            await dry_run(client, namespace, "wrong", spec)
        causes = [(cause.field, cause.message) for cause in caught.value.causes]
        assert any(found == field and message in text for found, text in causes), (spec, causes)


@pytest.mark.parametrize("name", ["a.b", "1a", "a" * 53])
async def test_a_name_that_no_service_can_have_is_refused(client: Client, namespace: str, name: str) -> None:
    await install(client, OURS, namespace)
    with pytest.raises(Invalid, match="becomes the name of a Service"):
        await dry_run(client, namespace, name, {"size": 1})
    await dry_run(client, namespace, "a" * 52, {"size": 1})


async def test_every_new_field_is_stored(client: Client, namespace: str) -> None:
    await install(client, OURS, namespace)
    spec = {
        "size": 3,
        "upgradePolicy": "Automatic",
        "quotaBackendBytes": "8Gi",
        "autoCompaction": {"mode": "periodic", "retention": "1h30m"},
        "podDisruptionBudget": False,
        "clientService": {"type": "LoadBalancer", "annotations": {"a": "b"}},
        "storage": {"whenDeleted": "Delete", "whenScaled": "Delete", "ephemeral": True},
        "pod": {
            "topologySpreadConstraints": [
                {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}
            ],
            "priorityClassName": "high",
            "serviceAccountName": "etcd",
        },
    }
    assert (await dry_run(client, namespace, "new", spec))["spec"] == spec


async def test_a_spec_cannot_be_removed(client: Client, namespace: str) -> None:
    await install(client, OURS, namespace)
    created = await client.create(CLUSTERS, coreos.SEED, namespace=namespace)
    with pytest.raises(KubeError, match="set the desired cluster"):
        await patch(client, created.metadata.key, {"spec": None})


async def test_the_condition_of_an_earlier_operator_is_kept(client: Client, namespace: str) -> None:
    """The view does not have lastUpdateTime, but a write of another condition keeps it."""
    await install(client, OURS, namespace)
    created = await client.create(CLUSTERS, coreos.SEED, namespace=namespace)
    old = coreos.stored()["plain"]["status"]
    written = await patch(client, created.metadata.key, {"status": old}, "status")
    assert [each.reason for each in written.status.conditions] == ["Cluster available", "Scaling up"]
    assert written.status.members.ready == ("a-1", "a-2", "a-3")
