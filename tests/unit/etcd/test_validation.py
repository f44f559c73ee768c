"""Which spec of an EtcdCluster is in force, and what is wrong with the others."""

import re
from typing import Any

import msgspec
import pytest

from devcluster.folders import CHECKOUT
from etcd_operator.model import Desired, Record
from etcd_operator.shape import shape
from etcd_operator.types import EtcdCluster, EtcdClusterSpec
from etcd_operator.validation import Verdict, judge
from etcd_operator.volumes import storage

NEW = Record()
FOUNDED = Record(incarnation=1, founded=True)


def cluster(
    spec: dict[str, Any], *, before: dict[str, Any] | None = None, runs: str = "", name: str = "a"
) -> EtcdCluster:
    status = {"lastValidSpec": before or {}, "currentVersion": runs}
    return msgspec.convert({"metadata": {"name": name}, "spec": spec, "status": status}, EtcdCluster)


def verdict(spec: dict[str, Any], record: Record = NEW, **known: Any) -> Verdict:
    return judge(cluster(spec, **known), record)


def texts(found: Verdict) -> list[str]:
    return [str(each) for each in found.mistakes]


def in_force(found: Verdict) -> Desired:
    assert found.mistakes == ()
    assert found.desired is not None
    return found.desired


def env(*names: str) -> dict[str, Any]:
    return {"size": 3, "pod": {"etcdEnv": [{"name": name, "value": "x"} for name in names]}}


FROM_CONFIG_MAP = {"configMapKeyRef": {"name": "a", "key": "b"}}


def pod(**fields: Any) -> dict[str, Any]:
    return {"size": 3, "pod": fields}


def claim(**fields: Any) -> dict[str, Any]:
    return pod(persistentVolumeClaimSpec=fields)


def storage_of(size: str) -> dict[str, Any]:
    return claim(resources={"requests": {"storage": size}})


def tls(operator: str = "", server: str = "", peer: str = "") -> dict[str, Any]:
    member = {"serverSecret": server, "peerSecret": peer}
    return {"size": 3, "TLS": {"static": {"operatorSecret": operator, "member": member}}}


def test_the_seeds_spec_is_in_force_with_a_warning() -> None:
    found = verdict({"size": 3, "version": "3.5.0"})
    desired = in_force(found)
    assert (desired.size, desired.version, desired.pinned) == (3, "3.5.0", True)
    assert desired.image == "quay.io/coreos/etcd:v3.5.0"
    assert (desired.scheme, desired.ephemeral, desired.delete_scaled) == ("http/http", False, False)
    assert not desired.automatic
    (warning,) = found.warnings
    assert warning.reason == "KnownDefect"
    assert "Set spec.version to 3.5.33" in warning.message
    assert found.last_valid_spec == {"size": 3, "version": "3.5.0"}


# The field, its value and the remedy, as a user reads them.
WRONG = [
    ({"size": 0}, "spec.size is 0: use 1 to 7 members"),
    ({"size": 8}, "spec.size is 8: use 1 to 7 members"),
    ({"size": -1}, "spec.size is -1: use 1 to 7 members"),
    ({}, "spec.size is 0: use 1 to 7 members"),
    ({"size": 3, "version": "latest"}, "spec.version is 'latest': use a version of three numbers"),
    ({"size": 3, "version": "3.4.45"}, "upgrade it one minor release at a time to 3.5.33 first"),
    ({"size": 3, "version": "3.2.13"}, "spec.version is '3.2.13': the oldest supported version is 3.5"),
    ({"size": 3, "version": "3.8.0"}, "use 3.7.3, or upgrade the operator"),
    (
        {"size": 3, "repository": "etcd:v3"},
        "spec.repository is 'etcd:v3': use the name of an image without a tag",
    ),
    ({"size": 3, "repository": "etcd:3"}, "without a tag"),
    ({"size": 3, "repository": "a@sha256:0"}, "without a tag"),
    ({"size": 3, "repository": "a b"}, "without a tag"),
    ({"size": 3, "repository": "https://a/b"}, "without a tag"),
    (pod(labels={"app": "x"}), "spec.pod.labels[app] is 'x': remove it"),
    (pod(labels={"etcd_node": "x"}), "spec.pod.labels[etcd_node] is 'x': remove it"),
    (pod(labels={"etcd.pilothouse.dev/serving": "true"}), "the label is reserved"),
    (pod(annotations={"etcd.version": "x"}), "the annotation is reserved"),
    (pod(annotations={"etcd.pilothouse.dev/removed": "x"}), "the annotation is reserved"),
    (pod(labels={"a b": "x"}), "spec.pod.labels is 'a b': use a key such as example.com/team"),
    (pod(labels={"a": "b c"}), "spec.pod.labels[a] is 'b c': use at most 63 letters"),
    (pod(nodeSelector={"a": "b" * 64}), "spec.pod.nodeSelector[a] is"),
    (pod(annotations={"/a": "any text"}), "spec.pod.annotations is '/a': use a key"),
    ({"size": 3, "version": "3.6.14+a"}, "use a version of three numbers"),
    ({"size": 3, "version": "3.6.14-" + "a" * 65}, "use a version of three numbers"),
    (pod(ClusterDomain="cluster.local"), "a leading dot, for example .cluster.local"),
    (pod(ClusterDomain=".cluster.local."), "a leading dot, for example .cluster.local"),
    (pod(priorityClassName="High!"), "use the name of a PriorityClass"),
    (pod(serviceAccountName="A"), "use the name of a ServiceAccount"),
    (
        pod(resources={"limits": {"memory": "1Gi"}, "requests": {"memory": "2Gi"}}),
        "spec.pod.resources.requests[memory] is '2Gi': it is above the limit of 1Gi",
    ),
    (
        pod(resources={"limits": {"memory": "-1"}, "requests": {"memory": "64Mi"}}),
        "spec.pod.resources.limits[memory] is '-1': use 0 or more",
    ),
    (
        pod(resources={"requests": {"cpu": "-100m"}}),
        "spec.pod.resources.requests[cpu] is '-100m': use 0 or more",
    ),
    *(
        (env(f"ETCD_{name}"), f"spec.pod.etcdEnv[0].name is 'ETCD_{name}': remove it")
        for name in (
            *("FORCE_NEW_CLUSTER", "CONFIG_FILE", "DATA_DIR", "WAL_DIR", "NAME", "INITIAL_CLUSTER"),
            *(
                "INITIAL_CLUSTER_STATE",
                "INITIAL_CLUSTER_TOKEN",
                "INITIAL_ADVERTISE_PEER_URLS",
                "UNSAFE_NO_FSYNC",
            ),
            *("STRICT_RECONFIG_CHECK", "LISTEN_PEER_URLS", "LISTEN_CLIENT_URLS", "LISTEN_METRICS_URLS"),
            *("ADVERTISE_CLIENT_URLS", "DISCOVERY", "DISCOVERY_SRV", "PROXY", "CERT_FILE", "KEY_FILE"),
            *("TRUSTED_CA_FILE", "CLIENT_CERT_AUTH", "AUTO_TLS", "PEER_CERT_FILE", "PEER_KEY_FILE"),
            *("PEER_TRUSTED_CA_FILE", "PEER_CLIENT_CERT_AUTH", "PEER_AUTO_TLS", "LOG_OUTPUTS", "ENABLE_V2"),
            "EXPERIMENTAL_INITIAL_CORRUPT_CHECK",
        )
    ),
    (env("PILOTHOUSE_INITIAL_STATE"), "remove it"),
    *(
        (pod(etcdEnv=[{"name": "A"}, {"name": name, "valueFrom": FROM_CONFIG_MAP}]), text)
        for name, text in (
            ("ETCD_SNAPSHOT_COUNT", "spec.pod.etcdEnv[1].valueFrom is {'configMapKeyRef': "),
            ("ETCD_FEATURE_GATES", "remove it, and set value: the operator passes ETCD_FEATURE_GATES on"),
        )
    ),
    (
        pod(etcdEnv=[{"name": "ETCD_SNAPSHOT_COUNT", "value": "$(A)"}]),
        "spec.pod.etcdEnv[0].value is '$(A)': write the value without references",
    ),
    (env(""), "spec.pod.etcdEnv[0].name is '': use the name of an environment variable"),
    (env("A=B"), "use the name of an environment variable"),
    (env("ETCD_ELECTION_TIMEOUT", "ETCD_ELECTION_TIMEOUT"), "spec.pod.etcdEnv[1].name"),
    (
        {**env("ETCD_QUOTA_BACKEND_BYTES"), "quotaBackendBytes": "4Gi"},
        "remove it, or remove spec.quotaBackendBytes",
    ),
    (
        {**env("ETCD_AUTO_COMPACTION_MODE"), "autoCompaction": {"retention": "1h"}},
        "remove it, or remove spec.autoCompaction",
    ),
    (claim(volumeName="pv"), "persistentVolumeClaimSpec.volumeName is 'pv': remove it"),
    (claim(dataSource={"kind": "VolumeSnapshot", "name": "s"}), "needs an empty volume of its own"),
    (claim(volumeMode="Block"), "volumeMode is 'Block': use Filesystem"),
    (claim(accessModes=["ReadOnlyMany"]), "use ReadWriteOnce"),
    (storage_of("0"), "resources.requests.storage is '0': use at least 128Mi"),
    (storage_of("much"), "resources.requests.storage is 'much': use at least 128Mi"),
    ({**storage_of("1Gi"), "storage": {"ephemeral": True}}, "spec.storage.ephemeral is 'true': remove it"),
    (tls(operator="op"), "spec.TLS.static.member.serverSecret is not set: set it, because"),
    ({"size": 3, "TLS": {"static": {"operatorSecret": "op"}}}, "serverSecret is not set"),
    (tls(server="server"), "spec.TLS.static.operatorSecret is not set: set it, because"),
    (tls(peer="Peer"), "use the name of a Secret"),
    ({"size": 3, "quotaBackendBytes": "8 GB"}, "spec.quotaBackendBytes is '8 GB': use at least 16Mi"),
    ({"size": 3, "quotaBackendBytes": -1}, "spec.quotaBackendBytes is -1: use at least 16Mi"),
    ({"size": 3, "quotaBackendBytes": 8}, "spec.quotaBackendBytes is 8: use at least 16Mi"),
    ({"size": 3, "autoCompaction": {"retention": "often"}}, "use a time, for example 30m or 8h"),
    (
        {"size": 3, "autoCompaction": {"mode": "revision", "retention": "1h"}},
        "use a number of revisions, for example 1000",
    ),
]


@pytest.mark.parametrize(("spec", "text"), WRONG, ids=[text for _, text in WRONG])
def test_a_mistake_names_the_field_its_value_and_the_remedy(spec: dict[str, Any], text: str) -> None:
    found = verdict(spec)
    assert any(text in each for each in texts(found)), texts(found)
    assert (found.desired, found.spec, found.warnings, found.last_valid_spec) == (None, None, (), {})


@pytest.mark.parametrize("name", ["a.b", "1a", "a" * 53, "-a", "a-"])
def test_a_name_that_no_service_can_have_is_a_mistake(name: str) -> None:
    (found,) = texts(verdict({"size": 3}, name=name))
    assert found.startswith(f"metadata.name is '{name}': create the cluster with a name of at most 52")


VALID = [
    {"size": 1},
    {"size": 7, "version": "v3.6.14", "repository": "registry.example:5000/a/etcd"},
    {"size": 3, "version": "3.6.14-0", "repository": "[::1]:5000/etcd"},
    {"size": 3, "version": "3.6.99"},
    {"size": 3, "pod": None, "TLS": None},
    {"size": 3, "TLS": {"static": None}, "pod": {"affinity": None}},
    pod(
        labels={"team": "a", "x.example/Y_1": ""}, annotations={"note": "b c"}, ClusterDomain=".cluster.local"
    ),
    pod(nodeSelector={"kubernetes.io/os": "linux"}),
    pod(resources={"limits": {"cpu": "1"}, "requests": {"cpu": "500m", "memory": "1Gi"}}),
    env(
        "ETCD_HEARTBEAT_INTERVAL", "ETCD_QUOTA_BACKEND_BYTES", "ETCD_AUTO_COMPACTION_RETENTION", "GOMAXPROCS"
    ),
    {**env("ETCD_ENABLE_V2"), "version": "3.5.33"},
    # The operator does not judge these values.
    pod(
        etcdEnv=[
            {"name": name, "valueFrom": FROM_CONFIG_MAP}
            for name in ("ETCD_HEARTBEAT_INTERVAL", "ETCD_QUOTA_BACKEND_BYTES", "GOMAXPROCS")
        ]
    ),
    # 3.7 has the user's value, and 3.6 has the operator's own.
    {**pod(etcdEnv=[{"name": "ETCD_SNAPSHOT_COUNT", "value": "500"}]), "version": "3.7.3"},
    {**pod(etcdEnv=[{"name": "ETCD_SNAPSHOT_COUNT", "value": "100"}]), "version": "3.6.14"},
    claim(accessModes=["ReadWriteOnce"], storageClassName="fast", resources={"requests": {"storage": "8Gi"}}),
    tls("op", "server", "peer"),
    tls(peer="peer"),
    {"size": 3, "quotaBackendBytes": "512Mi", "autoCompaction": {"retention": "1h30m"}},
    {"size": 3, "autoCompaction": {"mode": "revision", "retention": "1000"}},
    {"size": 3, "autoCompaction": {"retention": "8"}},
]


@pytest.mark.parametrize("spec", VALID, ids=str)
def test_a_valid_spec_is_in_force(spec: dict[str, Any]) -> None:
    found = verdict(spec)
    assert texts(found) == []
    assert found.warnings == ()
    stored = msgspec.json.decode(msgspec.json.encode(found.last_valid_spec))
    assert found.last_valid_spec == stored, "it equals what is read from the status: no write per reconcile"
    assert judge(cluster(spec, before=stored, runs=in_force(found).version), FOUNDED).desired == found.desired


RUNS_3 = {"size": 3, "version": "3.5.33"}

# A spec that is in force, the version that runs, another spec, and the mistake in the change.
CHANGES = [
    (RUNS_3, "3.5.33", {**RUNS_3, "version": "3.5.32"}, "the cluster runs 3.5.33, and a downgrade"),
    (
        {"size": 3, "version": "3.6.14"},
        "3.6.14",
        {"size": 3, "version": "3.6.14-rc.0"},
        "the cluster runs 3.6.14, and a downgrade",
    ),
    ({"size": 3, "version": "3.6.14"}, "3.6.14", RUNS_3, "Set it to 3.6.14. To go back, restore a backup"),
    (
        RUNS_3,
        "3.5.33",
        {**RUNS_3, "version": "3.7.1"},
        "must not skip a minor release. Set it to 3.6.14 first",
    ),
    (
        RUNS_3,
        "3.5.33",
        {**RUNS_3, "version": "3.8.0"},
        "this release of the operator supports etcd 3.5 to 3.7",
    ),
    (
        storage_of("8Gi"),
        "3.7.1",
        storage_of("4Gi"),
        "storage is '4Gi': a volume cannot shrink. Set it to at least 8Gi",
    ),
    ({"size": 3}, "3.7.1", storage_of("512Mi"), "Set it to at least 1Gi"),
    (storage_of("2Gi"), "3.7.1", {"size": 3}, "is '1Gi': a volume cannot shrink"),
    (claim(storageClassName="a"), "3.7.1", claim(storageClassName="b"), "Set it to 'a' again"),
    (claim(storageClassName="a"), "3.7.1", claim(), "storageClassName is not set"),
    ({"size": 3}, "3.7.1", claim(storageClassName="b"), "existing volumes cannot be changed. Remove it"),
    ({"size": 3}, "3.7.1", {"size": 3, "storage": {"ephemeral": True}}, "spec.storage.ephemeral is 'true'"),
    ({"size": 3, "storage": {"ephemeral": True}}, "3.7.1", {"size": 3}, "spec.storage.ephemeral is 'false'"),
    ({"size": 3}, "3.7.1", tls("op", "server"), "clients cannot be turned on while the cluster runs"),
    (
        tls("op", "server"),
        "3.7.1",
        {"size": 3},
        "is not set: TLS for the connections of clients cannot be turned off",
    ),
    (tls(peer="p"), "3.7.1", {"size": 3}, "Set it to 'p' again"),
    ({"size": 3}, "3.7.1", tls(peer="p"), "between members cannot be turned on"),
    ({"size": 3}, "3.7.1", pod(ClusterDomain=".a"), "spec.pod.ClusterDomain is '.a': it cannot be changed"),
]


@pytest.mark.parametrize(("before", "runs", "spec", "text"), CHANGES, ids=[each[3] for each in CHANGES])
def test_the_last_valid_spec_stays_in_force(
    before: dict[str, Any], runs: str, spec: dict[str, Any], text: str
) -> None:
    valid = in_force(judge(cluster(before, runs=runs), FOUNDED))
    found = judge(cluster(spec, before=before, runs=runs), FOUNDED)
    assert any(text in each for each in texts(found)), texts(found)
    assert found.desired == valid
    assert found.last_valid_spec == before
    assert found.spec is not None
    assert found.spec.version == before.get("version", "")


@pytest.mark.parametrize(("before", "runs", "spec", "text"), CHANGES, ids=[each[3] for each in CHANGES])
def test_before_the_founding_every_valid_spec_is_accepted(
    before: dict[str, Any], runs: str, spec: dict[str, Any], text: str
) -> None:
    found = judge(cluster(spec, before=before), Record(incarnation=1))
    if "supports etcd" in text:
        assert texts(found)
    else:
        assert in_force(found).size == spec["size"]


ALLOWED = [
    (RUNS_3, "3.5.33", {"size": 5, "version": "3.6.14"}),
    (RUNS_3, "3.5.33", {**RUNS_3, "version": "3.7.1", "upgradePolicy": "Automatic"}),
    (RUNS_3, "3.5.33", {**RUNS_3, "version": "3.5.33-0"}),
    # The upgrade has not reached all members: going back is allowed.
    ({**RUNS_3, "version": "3.6.14"}, "3.5.33", RUNS_3),
    ({**RUNS_3, "version": "3.6.99"}, "3.5.33", {**RUNS_3, "version": "3.6.14"}),
    (storage_of("1Gi"), "3.7.1", storage_of("8Gi")),
    (claim(), "3.7.1", {"size": 3}),
    (tls("op", "server", "p"), "3.7.1", tls("op2", "server2", "p2")),
    (pod(labels={"a": "b"}), "3.7.1", pod(labels={"a": "c"})),
]


@pytest.mark.parametrize(("before", "runs", "spec"), ALLOWED, ids=str)
def test_a_change_that_is_possible_is_in_force(
    before: dict[str, Any], runs: str, spec: dict[str, Any]
) -> None:
    found = judge(cluster(spec, before=before, runs=runs), FOUNDED)
    assert in_force(found).size == spec["size"]
    assert found.last_valid_spec == spec


def test_all_mistakes_are_reported_together() -> None:
    found = texts(verdict({"size": 9, "version": "x", "repository": "a b"}))
    assert [each.split(" is ")[0] for each in found] == ["spec.size", "spec.version", "spec.repository"]


def test_an_invalid_spec_can_still_pause_the_cluster() -> None:
    found = judge(cluster({"size": 9, "paused": True}, before=RUNS_3, runs="3.5.33"), FOUNDED)
    assert texts(found)
    assert found.desired is not None
    assert (found.desired.paused, found.desired.size) == (True, 3)
    assert found.last_valid_spec == RUNS_3


@pytest.mark.parametrize(
    "stored",
    [
        *({"size": "three"}, {"size": 0}, {"version": "x", "size": 3}, {"pod": 1}, storage_of("much")),
        {"size": 3, "quotaBackendBytes": "much"},
    ],
)
def test_a_last_valid_spec_that_was_edited_is_not_in_force(stored: dict[str, Any]) -> None:
    found = judge(cluster({"size": 9}, before=stored), FOUNDED)
    assert (found.desired, found.last_valid_spec) == (None, stored)


def test_a_spec_stays_in_force_although_a_release_no_longer_accepts_it() -> None:
    """Otherwise an upgrade of the operator would leave the cluster without anyone who heals it."""
    before = {"size": 3, "version": "3.4.45"}
    found = judge(cluster(before, before=before, runs="3.4.45"), FOUNDED)
    assert "the oldest supported version is 3.5" in texts(found)[0]
    assert found.desired is not None
    assert found.desired.version == "3.4.45"


@pytest.mark.parametrize(
    ("record", "runs", "version"),
    [
        (Record(), "", "3.7.3"),
        (Record(incarnation=1, version="3.6.14"), "", "3.6.14"),
        (Record(incarnation=1, version="3.6.14", founded=True), "3.6.14", "3.6.14"),
        # The version was pinned for an upgrade, and is not pinned any more.
        (Record(incarnation=1, version="3.6.14", founded=True), "3.7.0", "3.7.0"),
        (FOUNDED, "3.5.33", "3.5.33"),
        # The suffix that runs is neither the higher nor the lower one.
        (Record(incarnation=1, version="3.6.14-1", founded=True), "3.6.14-0", "3.6.14-0"),
        (Record(incarnation=1, version="3.6.14-0", founded=True), "3.6.14-1", "3.6.14-1"),
        (Record(incarnation=1, version="3.6.14-0", founded=True), "", "3.6.14-0"),
        # A status of the coreos operator means nothing before the founding.
        (Record(), "3.2.13", "3.7.3"),
    ],
)
def test_a_spec_without_a_version_never_upgrades_a_cluster(record: Record, runs: str, version: str) -> None:
    desired = in_force(judge(cluster({"size": 3}, runs=runs), record))
    assert (desired.version, desired.pinned) == (version, False)


WARNED = [
    ({"size": 2}, "EvenSize", "no more failures than with 1. Set it to 1 or 3."),
    ({"size": 6}, "EvenSize", "Set it to 5 or 7."),
    ({"size": 3, "version": "3.6.3"}, "KnownDefect", "Set spec.version to 3.6.14."),
    ({"size": 3, "storage": {"ephemeral": True}}, "EphemeralStorage", "lost with a majority of its pods"),
    ({**storage_of("64Gi"), "quotaBackendBytes": "16Gi"}, "LargeQuota", "up to 8Gi"),
    ({"size": 3, "quotaBackendBytes": "2Gi"}, "QuotaExceedsVolume", "each volume requests only 1Gi"),
    (env("ETCD_EXPERIMENTAL_COMPACTION_BATCH_LIMIT"), "IgnoredVariable", "which etcd 3.7.3 ignores"),
    (
        {**pod(etcdEnv=[{"name": "ETCD_SNAPSHOT_COUNT", "value": "500"}]), "version": "3.6.14"},
        "OverriddenVariable",
        "sets ETCD_SNAPSHOT_COUNT to 500, but the members use 100 while they run etcd 3.6",
    ),
]


@pytest.mark.parametrize(("spec", "reason", "text"), WARNED, ids=[each[1] for each in WARNED])
def test_a_warning_names_the_remedy(spec: dict[str, Any], reason: str, text: str) -> None:
    found = verdict(spec)
    assert in_force(found)
    (warning,) = found.warnings
    assert warning.reason == reason
    assert text in warning.message


def test_the_hashes_are_those_of_the_manifests() -> None:
    """The plan compares them with the annotations of pods."""
    spec = msgspec.convert(storage_of("8Gi"), EtcdClusterSpec)
    desired = in_force(verdict(storage_of("8Gi")))
    assert (desired.shape, desired.storage) == (shape(spec), storage(spec))


def test_the_howto_explains_every_warning_and_quotes_a_message() -> None:
    page = (CHECKOUT / "docs" / "howto" / "etcd" / "spec.md").read_text()
    warnings = page.partition("## Warnings")[2].partition("\n## ")[0]
    # Not about the spec alone: see `surroundings`.
    documented = {*re.findall(r"^\| `(\w+)` ", warnings, re.MULTILINE)} - {
        "AuthoritiesChanged",
        "CertificateExpires",
    }
    assert {reason for _, reason, _ in WARNED} == documented
    (mistake,) = texts(judge(cluster({**RUNS_3, "version": "3.7.3"}, before=RUNS_3, runs="3.5.33"), FOUNDED))
    assert mistake in page


@pytest.mark.parametrize("field", ["whenDeleted", "whenScaled"])
def test_retain_is_taken_from_a_spec_with_a_mistake_and_delete_is_not(field: str) -> None:
    def judged(before: str, now: str) -> tuple[str, str]:
        valid = {"size": 3, "storage": {field: before}}
        found = judge(cluster({"size": 9, "storage": {field: now}}, before=valid, runs="3.5.33"), FOUNDED)
        assert found.mistakes
        assert found.spec
        storage = found.spec.storage
        in_force = storage.when_deleted if field == "whenDeleted" else storage.when_scaled
        return in_force.value, found.last_valid_spec.get("storage", {}).get(field, "Retain")

    assert judged("Delete", "Retain") == ("Retain", "Retain")
    assert judged("Retain", "Delete") == ("Retain", "Retain")
    assert judged("Delete", "Delete") == ("Delete", "Delete")
