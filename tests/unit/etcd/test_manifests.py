"""The manifests of the etcd operator."""

from typing import Any

import pytest
from msgspec.structs import replace

from etcd_operator.blueprint import SERVING
from etcd_operator.etcd import Member
from etcd_operator.model import Configuration, PodPlan
from etcd_operator.options import option_annotations, variable
from etcd_operator.pods import arguments, member_pod
from etcd_operator.services import disruption_budget
from etcd_operator.shape import shape
from etcd_operator.volumes import claim_spec, grow, storage
from tests.unit.etcd.manifests import CASES, GOLDEN, SECURE, blueprint, written

PLAN = PodPlan("example-aaaaa", "3.6.14", Configuration.POISONED)


@pytest.mark.parametrize("name", CASES)
def test_the_manifests_are_those_that_were_reviewed(name: str) -> None:
    assert written(CASES[name]()) == (GOLDEN / f"{name}.yaml").read_text(), (
        "review the change, and write the files again: python -m tests.unit.etcd.manifests"
    )


def test_there_is_no_other_golden_file() -> None:
    assert sorted(each.stem for each in GOLDEN.iterdir()) == sorted(CASES)


@pytest.mark.parametrize("name", CASES)
def test_no_variable_repeats_a_flag(name: str) -> None:
    """With both, etcd refuses to start."""
    container = CASES[name]()[-1]["spec"]["containers"][0]
    flags = {variable(each[2:].partition("=")[0]) for each in container["args"]}
    names = [each["name"] for each in container["env"]]
    assert not flags & set(names)
    assert len(names) == len(set(names))


@pytest.mark.parametrize("configuration", Configuration)
def test_state_and_initial_cluster_are_arguments(configuration: Configuration) -> None:
    args = arguments(blueprint({}), PodPlan("example-aaaaa", "3.6.14", configuration))
    found = {each.partition("=")[0]: each.partition("=")[2] for each in args}
    if configuration is Configuration.POISONED:
        assert found["--initial-cluster-state"] == "existing"
        assert "example-aaaaa" not in found["--initial-cluster"]
    else:
        assert found["--initial-cluster-state"].startswith("$(PILOTHOUSE_")
        assert found["--initial-cluster"].startswith("$(PILOTHOUSE_")


@pytest.mark.parametrize(
    "name", ["PILOTHOUSE_INITIAL_CLUSTER", "PILOTHOUSE_INITIAL_STATE", "ETCD_INITIAL_CLUSTER", "ETCD_NAME"]
)
def test_a_user_cannot_replace_what_protects_the_data(name: str) -> None:
    cluster = blueprint({"pod": {"etcdEnv": [{"name": name, "value": "mine"}]}})
    env = member_pod(cluster, PLAN, image="etcd")["spec"]["containers"][0]["env"]
    assert {"name": name, "value": "mine"} not in env


def test_the_token_differs_between_objects_and_incarnations() -> None:
    first = blueprint({})
    others = replace(first, uid="other"), replace(first, incarnation=2)
    assert len({each.token for each in (first, *others)}) == 3


def test_peer_urls_are_under_the_headless_service() -> None:
    for domain in ("", ".cluster.local"):
        cluster = blueprint({"pod": {"ClusterDomain": domain}})
        url = cluster.peer_url("example-aaaaa")
        assert url == f"http://example-aaaaa.example.default.svc{domain}:2380"
        assert cluster.seat(url) == "example-aaaaa"
    for stranger in ("http://10.0.0.7:2380", "http://a.other.default.svc:2380", "http://[", "", "poison"):
        assert cluster.seat(stranger) == ""


def test_the_initial_cluster_of_a_learner_has_every_peer_url_once() -> None:
    cluster = blueprint({})
    listed = [
        Member(1, "example-aaaaa", (cluster.peer_url("example-aaaaa"),), (), is_learner=False),
        Member(2, "", (cluster.peer_url("example-bbbbb"),), (), is_learner=True),
        Member(0x2F, "", ("http://10.0.0.7:2380", "http://10.0.0.8:2380"), (), is_learner=False),
    ]
    expected = (
        ("example-aaaaa", cluster.peer_url("example-aaaaa")),
        ("member-2f", "http://10.0.0.7:2380"),
        ("member-2f", "http://10.0.0.8:2380"),
        ("example-bbbbb", cluster.peer_url("example-bbbbb")),
    )
    assert cluster.joining(listed, "example-bbbbb") == expected
    assert cluster.joining((listed[0], listed[2]), "example-bbbbb") == expected


@pytest.mark.parametrize(
    ("voters", "minimum"), [(0, None), (1, None), (2, None), (3, 2), (4, 3), (5, 3), (7, 4)]
)
def test_the_budget_keeps_a_quorum_from_three_voters_up(voters: int, minimum: int | None) -> None:
    found = disruption_budget(blueprint({}), voters)
    assert (found["spec"]["minAvailable"] if found else None) == minimum
    assert disruption_budget(blueprint({"podDisruptionBudget": False}), voters) is None


@pytest.mark.parametrize(("voters", "strangers", "minimum"), [(2, 1, None), (3, 1, 3), (3, 4, 3), (5, 1, 4)])
def test_the_budget_does_not_rely_on_voters_of_a_user(
    voters: int, strangers: int, minimum: int | None
) -> None:
    found = disruption_budget(blueprint({}), voters, strangers)
    assert (found["spec"]["minAvailable"] if found else None) == minimum


def test_only_serving_pods_have_the_label() -> None:
    cluster = blueprint({"pod": {"labels": {SERVING: "true"}}})
    assert SERVING not in member_pod(cluster, PLAN, image="etcd")["metadata"]["labels"]
    serving = member_pod(cluster, replace(PLAN, serving=True), image="etcd")
    assert serving["metadata"]["labels"][SERVING] == "true"


SHAPED: dict[str, Any] = {
    "repository": "registry.example.com/etcd",
    "TLS": {"static": {"member": {"peerSecret": "peers"}}},
    "quotaBackendBytes": "1Gi",
    "autoCompaction": {"retention": "8h"},
    **{
        f"pod.{key}": value
        for key, value in SECURE["pod"].items()
        if key not in ("labels", "annotations", "persistentVolumeClaimSpec")
    },
    "pod.affinity": {},
    "pod.securityContext": {"runAsUser": 1},
}


def spec_with(path: str, value: Any) -> dict[str, Any]:
    parent, _, key = path.rpartition(".")
    return {parent: {key: value}} if parent else {key: value}


@pytest.mark.parametrize("path", SHAPED)
def test_what_shapes_a_pod_changes_the_shape(path: str) -> None:
    changed = blueprint(spec_with(path, SHAPED[path])).spec
    assert shape(changed) != shape(blueprint({}).spec)


@pytest.mark.parametrize(
    "spec",
    [
        {"size": 5},
        {"version": "3.6.14"},
        {"paused": True},
        {"pod": {}},
        {"pod": None},
        {"pod": {"labels": {"a": "b"}, "annotations": {"c": "d"}, "busyboxImage": "busybox"}},
        {"pod": {"persistentVolumeClaimSpec": {"resources": {"requests": {"storage": "2Gi"}}}}},
        {"TLS": None},
        {"TLS": {"static": {}}},
        {"repository": "quay.io/coreos/etcd"},
        {"quotaBackendBytes": "0"},
        {"clientService": {"type": "NodePort"}},
        {"storage": {"whenScaled": "Delete"}, "upgradePolicy": "Automatic", "podDisruptionBudget": False},
    ],
)
def test_other_fields_do_not_change_the_shape(spec: dict[str, Any]) -> None:
    """The hashes are constants: if they change, an upgrade of the operator restarts every member."""
    assert shape(blueprint(spec).spec) == "93d5d9e7d4a11acf"
    assert shape(blueprint(SECURE).spec) == "29054e6776114379"


def test_the_order_of_keys_and_the_unit_do_not_matter() -> None:
    one = blueprint({"quotaBackendBytes": "2Gi", "pod": {"nodeSelector": {"a": "1", "b": "2"}}})
    two = blueprint({"quotaBackendBytes": 2 << 30, "pod": {"nodeSelector": {"b": "2", "a": "1"}}})
    assert shape(one.spec) == shape(two.spec)


@pytest.mark.parametrize(
    ("claim", "expected"),
    [
        (None, {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}),
        (
            {"resources": {"requests": {"storage": "5Gi"}}, "storageClassName": "", "selector": None},
            {
                "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "5Gi"}},
                "storageClassName": "",
            },
        ),
        (
            {"accessModes": ["ReadWriteOncePod"], "resources": {"limits": {"storage": "9Gi"}}},
            {
                "accessModes": ["ReadWriteOncePod"],
                "resources": {"limits": {"storage": "9Gi"}, "requests": {"storage": "1Gi"}},
            },
        ),
    ],
)
def test_claims_have_defaults(claim: dict[str, Any] | None, expected: dict[str, Any]) -> None:
    spec = blueprint({"pod": {"persistentVolumeClaimSpec": claim}}).spec
    assert claim_spec(spec) == expected
    assert grow(spec) == {"spec": {"resources": {"requests": expected["resources"]["requests"]}}}


def test_the_storage_names_what_cannot_change() -> None:
    def of(claim: dict[str, Any]) -> str:
        return storage(blueprint({"pod": {"persistentVolumeClaimSpec": claim}}).spec)

    assert storage(blueprint({}).spec) == of({}) == of({"storageClassName": None}) == "default"
    assert of({"resources": {"requests": {"storage": "2Gi"}}}) == "default"
    assert of({"storageClassName": ""}) == "class:"
    assert of({"storageClassName": "fast"}) == "class:fast"
    assert storage(blueprint({"storage": {"ephemeral": True}}).spec) == "ephemeral"


@pytest.mark.parametrize(("version", "expected"), [("3.5.33", ""), ("3.6.14", "100"), ("3.7.1", "")])
def test_members_of_3_6_take_snapshots_often(version: str, expected: str) -> None:
    for env in ([], [{"name": "ETCD_SNAPSHOT_COUNT", "value": "500"}]):
        spec = blueprint({"pod": {"etcdEnv": env}}).spec
        found = option_annotations(spec, version)["etcd.pilothouse.dev/snapshot-count"]
        assert found == (expected or ("500" if env else ""))


@pytest.mark.parametrize(
    ("version", "value", "merged"),
    [
        ("3.6.14", "", "InitialCorruptCheck=true,CompactHashCheck=true"),
        ("3.6.14", "A=true", "InitialCorruptCheck=true,CompactHashCheck=true,A=true"),
        ("3.7.3", "CompactHashCheck=false, A=true", "InitialCorruptCheck=true,CompactHashCheck=false,A=true"),
        ("3.7.3", " A=true,,A = false", "InitialCorruptCheck=true,CompactHashCheck=true,A = false"),
        ("3.5.33", "A=true", "A=true"),
    ],
)
def test_feature_gates_of_the_user_are_merged_with_those_of_the_operator(
    version: str, value: str, merged: str
) -> None:
    env = [{"name": "ETCD_FEATURE_GATES", "value": value}]
    spec = blueprint({"pod": {"etcdEnv": env}}).spec
    assert option_annotations(spec, version)["etcd.pilothouse.dev/feature-gates"] == merged
