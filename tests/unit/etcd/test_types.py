"""The EtcdCluster's CRD: it keeps every field of the coreos operator and accepts its objects."""

from typing import Any

import msgspec
import pytest

from etcd_operator.types import ETCD_CLUSTER, EtcdCluster, Retention, ServiceType, UpgradePolicy
from pilothouse.api.crd import crd
from tests import coreos

CRD: Any = crd(ETCD_CLUSTER)
VERSION = CRD["spec"]["versions"][0]
SCHEMA = VERSION["schema"]["openAPIV3Schema"]

# The fields of pkg/apis/etcd/v1beta2 of the coreos operator.
SPEC = ("size", "repository", "version", "paused", "pod", "TLS")
POD = (
    *("labels", "nodeSelector", "affinity", "antiAffinity", "resources", "tolerations", "etcdEnv"),
    *("persistentVolumeClaimSpec", "annotations", "busyboxImage", "securityContext"),
    *("DNSTimeoutInSecond", "ClusterDomain"),
)
STATUS = (
    *("phase", "reason", "controlPaused", "conditions", "size", "serviceName", "clientPort", "members"),
    *("currentVersion", "targetVersion"),
)


def properties(*path: str) -> dict[str, Any]:
    schema = SCHEMA
    for name in path:
        schema = schema["properties"][name]
    found: dict[str, Any] = schema["properties"]
    return found


def test_keeps_the_names_of_the_coreos_operator() -> None:
    theirs = coreos.CRD["spec"]
    assert CRD["metadata"]["name"] == coreos.CRD["metadata"]["name"]
    assert CRD["spec"]["scope"] == theirs["scope"]
    ours = CRD["spec"]["names"]
    assert {**ours, "shortNames": sorted(ours["shortNames"])} == {
        **theirs["names"],
        "shortNames": sorted(theirs["names"]["shortNames"]),
    }
    assert VERSION["name"] == "v1beta2"


def test_keeps_every_field_of_the_coreos_operator() -> None:
    assert set(SPEC) <= properties("spec").keys()
    assert set(POD) <= properties("spec", "pod").keys()
    assert set(STATUS) <= properties("status").keys()
    assert properties("spec", "TLS", "static").keys() == {"member", "operatorSecret"}
    assert properties("spec", "TLS", "static", "member").keys() == {"peerSecret", "serverSecret"}
    assert properties("status", "members").keys() == {"ready", "unready"}
    conditions = properties("status")["conditions"]["items"]
    assert {"type", "status", "lastUpdateTime", "lastTransitionTime", "reason", "message"} <= conditions[
        "properties"
    ].keys()
    assert set(conditions["required"]) == {"type", "status"}


def test_old_fields_have_no_bounds_outside_of_rules() -> None:
    bounds = {"minimum", "maximum", "minLength", "maxLength", "pattern", "enum", "maxItems", "required"}
    for schema in (
        *(properties("spec")[name] for name in SPEC if name not in ("pod", "TLS")),
        *(properties("status")[name] for name in STATUS),
    ):
        assert not bounds & schema.keys()
    assert "required" not in SCHEMA
    assert "required" not in SCHEMA["properties"]["spec"]


@pytest.mark.parametrize(("name", "stored"), coreos.stored().items(), ids=coreos.stored())
def test_decodes_every_object_of_the_coreos_operator(name: str, stored: dict[str, Any]) -> None:
    found = msgspec.json.decode(msgspec.json.encode(stored), type=EtcdCluster)
    spec = stored.get("spec", {})
    assert found.spec.size == spec.get("size", 0)
    assert found.spec.version == spec.get("version", "")
    assert len(found.status.conditions) == len(stored.get("status", {}).get("conditions", ()))


def test_decodes_values_of_other_releases() -> None:
    spec = {
        "upgradePolicy": "Later",
        "storage": {"whenDeleted": "Keep"},
        "clientService": {"type": "ExternalName"},
        "autoCompaction": {"mode": "weekly"},
    }
    found = msgspec.json.decode(msgspec.json.encode({"spec": spec}), type=EtcdCluster).spec
    assert found.upgrade_policy is UpgradePolicy.ONE_MINOR
    assert found.storage.when_deleted is Retention.RETAIN
    assert found.client_service.type is ServiceType.CLUSTER_IP
    assert found.auto_compaction.mode == "periodic"


def test_a_spec_is_encoded_as_the_user_wrote_it() -> None:
    spec = coreos.stored()["pod"]["spec"]
    found = msgspec.json.decode(msgspec.json.encode(coreos.stored()["pod"]), type=EtcdCluster).spec
    assert msgspec.json.decode(msgspec.json.encode(found)) == spec


def test_has_the_columns_that_users_need() -> None:
    columns = VERSION["additionalPrinterColumns"]
    shown = [column["name"] for column in columns if not column.get("priority")]
    assert shown == ["Size", "Ready", "Version", "Phase", "Leader", "Age"]
    assert [column["name"] for column in columns if column.get("priority")] == ["DB size", "Message"]
    assert VERSION["subresources"]["scale"] == {
        "specReplicasPath": ".spec.size",
        "statusReplicasPath": ".status.size",
        "labelSelectorPath": ".status.selector",
    }
