"""The shipped views: decoding of objects from the API server, and the reasons why pods do not run."""

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse import views
from pilothouse.kube import ObjectMeta, OwnerReference, Resource
from pilothouse.kube.codec import codec, encode
from pilothouse.views import (
    CONFIG_MAP,
    DEPLOYMENT,
    JOB,
    PERSISTENT_VOLUME_CLAIM,
    POD,
    SECRET,
    SERVICE,
    STATEFUL_SET,
    Deployment,
    PersistentVolumeClaim,
    Pod,
    Rollout,
    StatefulSet,
)

RESOURCES: list[Resource[Any]] = [
    getattr(views, name) for name in views.__all__ if isinstance(getattr(views, name), Resource)
]
NEW = datetime(2026, 1, 2, tzinfo=UTC)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=5,
)


def read(resource: Resource[Any], obj: object) -> Any:
    view: Any = resource.view
    return codec(view).object(encode(obj))


def test_every_view_is_exported_with_its_resource() -> None:
    assert {each.kind for each in RESOURCES} == {
        "ConfigMap",
        "Deployment",
        "Job",
        "PersistentVolumeClaim",
        "Pod",
        "Secret",
        "Service",
        "StatefulSet",
    }


@pytest.mark.parametrize("resource", RESOURCES, ids=str)
@given(data=st.data())
def test_fields_that_a_view_does_not_name_are_ignored(resource: Resource[Any], data: st.DataObject) -> None:
    known = {"metadata", "spec", "status", "type", "data"}
    more = data.draw(st.dictionaries(st.text(max_size=8).filter(lambda name: name not in known), JSON))
    obj = {"metadata": {"name": "a", "managedFields": [more]}, **more}
    assert read(resource, obj) == read(resource, {"metadata": {"name": "a"}})


@pytest.mark.parametrize("resource", RESOURCES, ids=str)
def test_an_object_may_have_nothing_but_metadata(resource: Resource[Any]) -> None:
    view = read(resource, {"metadata": {"name": "a", "namespace": "n"}})
    assert str(view.metadata.key) == "n/a"
    assert resource.view() == resource.view(metadata=ObjectMeta())


@pytest.mark.parametrize("resource", RESOURCES, ids=str)
def test_all_structs_of_a_view_are_frozen_and_untracked(resource: Resource[Any]) -> None:
    """Stores return objects by reference, and the garbage collector does not track them."""
    seen = [resource.view]
    for cls in seen:
        assert cls.__struct_config__.frozen, cls
        assert not cls.__struct_config__.gc, cls
        for field in msgspec.inspect.type_info(cls).fields:  # type: ignore[attr-defined]
            for part in _structs(field.type):
                if part not in seen:
                    seen.append(part)


def _structs(of: msgspec.inspect.Type) -> list[Any]:
    match of:
        case msgspec.inspect.StructType(cls=cls):
            return [cls]
        case msgspec.inspect.UnionType(types=types):
            return [each for part in types for each in _structs(part)]
        case msgspec.inspect.VarTupleType(item_type=item):
            return _structs(item)
    return []


def test_a_secret_hides_its_values() -> None:
    secret = read(
        SECRET,
        {
            "metadata": {
                "name": "db",
                "namespace": "n",
                "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "czNjcjN0"},
            },
            "type": "Opaque",
            "data": {"password": "czNjcjN0", "empty": ""},
        },
    )
    assert secret.data == {"password": b"s3cr3t", "empty": b""}
    shown = f"{secret!r} {secret}"
    assert "czNjcjN0" not in shown
    assert "s3cr3t" not in shown
    assert "password" in shown


def test_views_of_other_kinds() -> None:
    config_map = read(CONFIG_MAP, {"metadata": {}, "data": {"a": "b"}})
    assert config_map.data == {"a": "b"}
    service = read(
        SERVICE,
        {
            "spec": {
                "type": "LoadBalancer",
                "clusterIP": "10.0.0.1",
                "selector": {"app": "web"},
                "ports": [
                    {"name": "http", "port": 80, "nodePort": 30080, "protocol": "TCP", "targetPort": 8080}
                ],
            },
            "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1", "ipMode": "VIP"}]}},
        },
    )
    assert (service.spec.cluster_ip, service.spec.ports[0].node_port) == ("10.0.0.1", 30080)
    assert service.status.load_balancer.ingress[0].ip == "192.0.2.1"
    claim = read(
        PERSISTENT_VOLUME_CLAIM,
        {
            "spec": {
                "storageClassName": "fast",
                "volumeName": "pv-1",
                "resources": {"requests": {"storage": "1Gi"}},
            },
            "status": {"phase": "Bound", "capacity": {"storage": "1Gi"}},
        },
    )
    assert (claim.spec.storage_class_name, claim.spec.volume_name) == ("fast", "pv-1")
    assert (claim.status.phase, claim.status.capacity["storage"]) == ("Bound", "1Gi")
    done = {"type": "Complete", "status": "True", "lastProbeTime": "2026-01-01T00:00:00Z"}
    job = read(JOB, {"status": {"succeeded": 1, "conditions": [done], "ready": 0}})
    assert job.status.succeeded == 1
    assert job.status.ended("Complete")
    assert not job.status.ended("Failed")


def deployment(spec: dict[str, Any] | None = None, *, generation: int = 2, **status: Any) -> Deployment:
    found: Deployment = read(
        DEPLOYMENT,
        {
            "metadata": {"name": "web", "namespace": "n", "generation": generation},
            "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}}, **(spec or {})},
            "status": {
                "observedGeneration": 2,
                "replicas": 3,
                "updatedReplicas": 3,
                "readyReplicas": 3,
                "availableReplicas": 3,
                **status,
            },
        },
    )
    return found


def pod(name: str = "web-5d-x", *, owner: str = "web-5d", **fields: Any) -> Pod:
    created = fields.pop("created", NEW)
    volumes = fields.pop("volumes", ())
    found: Pod = read(
        POD,
        {
            "metadata": {
                "name": name,
                "namespace": "n",
                "creationTimestamp": created,
                "ownerReferences": [OwnerReference("apps/v1", "ReplicaSet", owner, "u", controller=True)],
            },
            "spec": {"volumes": volumes},
            "status": {"phase": "Pending", **fields},
        },
    )
    return found


def container(state: dict[str, Any], **more: Any) -> list[dict[str, Any]]:
    return [{"name": "app", "image": "nginx:nope", "ready": False, "restartCount": 0, "state": state, **more}]


def test_a_deployment_is_rolled_out() -> None:
    rollout = deployment().rolled_out()
    assert rollout
    assert rollout == Rollout(True, False, "RolledOut", "Deployment web is rolled out.")
    assert deployment({"replicas": 0}, replicas=0, updatedReplicas=0, availableReplicas=0).rolled_out()


@pytest.mark.parametrize(
    ("status", "missing"),
    [
        ({"generation": 3}, "The controller has not seen the current spec yet."),
        ({"updatedReplicas": 1}, "1 of 3 pods are updated."),
        ({"replicas": 4}, "Old pods still running: 1."),
        ({"availableReplicas": 2}, "2 of 3 updated pods are available."),
    ],
)
def test_a_deployment_is_not_rolled_out_yet(status: dict[str, Any], missing: str) -> None:
    """The rules of kubectl (pkg/polymorphichelpers/rollout_status.go)."""
    rollout = deployment(**status).rolled_out()
    assert not rollout
    assert (rollout.failed, rollout.reason) == (False, "RollingOut")
    assert rollout.message == f"Deployment web: {missing}"


LATE = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "m"}
QUOTA = 'pods "web-5d-" is forbidden: exceeded quota: small, requested: pods=1, used: pods=2, limited: pods=2'


def test_an_exceeded_deadline_fails_the_rollout_and_pods_give_the_reason() -> None:
    late = deployment(availableReplicas=2, conditions=[LATE])
    rollout = late.rolled_out()
    assert (rollout.failed, rollout.reason) == (True, "ProgressDeadlineExceeded")
    crash = container(
        {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 5m0s"}},
        restartCount=7,
        lastState={"terminated": {"exitCode": 137, "reason": "OOMKilled", "startedAt": None}},
    )
    rollout = late.rolled_out([pod(containerStatuses=crash)])
    assert (rollout.failed, rollout.reason) == (True, "CrashLoopBackOff")
    assert rollout.message == (
        "Deployment web: 2 of 3 updated pods are available. Container app of Pod web-5d-x keeps exiting: "
        "exit code 137 (OOMKilled); its log: kubectl logs -n n web-5d-x -c app --previous. "
        "The rollout exceeded its progress deadline."
    )


def test_conditions_of_an_earlier_spec_do_not_count() -> None:
    assert not deployment(generation=3, conditions=[LATE]).rolled_out().failed


def test_an_exceeded_quota_is_the_reason_why_pods_are_not_created() -> None:
    failure = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": QUOTA}
    rollout = deployment(availableReplicas=2, conditions=[failure]).rolled_out()
    assert (rollout.failed, rollout.reason) == (False, "QuotaExceeded")
    assert "exceeded quota: small, requested: pods=1" in rollout.message


def test_a_paused_deployment_is_reported() -> None:
    rollout = deployment({"paused": True}, updatedReplicas=1).rolled_out()
    assert rollout.reason == "DeploymentPaused"
    assert "spec.paused" in rollout.message


PULL = {"reason": "ErrImagePull", "message": "manifest unknown"}
BACK_OFF = {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "nginx:nope"'}
UNSCHEDULABLE = {
    "type": "PodScheduled",
    "status": "False",
    "reason": "Unschedulable",
    "message": "0/3 nodes are available: 3 Insufficient cpu.",
    "lastProbeTime": None,
}


@pytest.mark.parametrize(
    ("status", "reason", "words"),
    [
        ({"containerStatuses": container({"waiting": PULL})}, "ImagePullBackOff", "manifest unknown"),
        ({"containerStatuses": container({"waiting": BACK_OFF})}, "ImagePullBackOff", "image nginx:nope"),
        ({"initContainerStatuses": container({"waiting": PULL})}, "ImagePullBackOff", "container app of"),
        ({"conditions": [UNSCHEDULABLE]}, "Unschedulable", "3 Insufficient cpu."),
        (
            {
                "containerStatuses": container(
                    {"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "a" not found'}}
                )
            },
            "CreateContainerConfigError",
            'cannot start: secret "a" not found',
        ),
        (
            # Between two crashes.
            {
                "containerStatuses": container(
                    {"running": {"startedAt": "2026-01-02T00:00:00Z"}},
                    restartCount=2,
                    lastState={"terminated": {"exitCode": 1, "reason": "Error"}},
                )
            },
            "CrashLoopBackOff",
            "exit code 1 (Error)",
        ),
        ({"containerStatuses": container({"terminated": {"exitCode": 2}})}, "Error", "exit code 2"),
        ({"phase": "Failed", "reason": "Evicted", "message": "low on memory."}, "Evicted", "low on memory"),
    ],
)
def test_why_a_pod_does_not_run(status: dict[str, Any], reason: str, words: str) -> None:
    problem = pod(**status).problem()
    assert problem
    assert problem.reason == reason
    assert words in problem.message
    rollout = deployment(availableReplicas=0).rolled_out([pod(**status)])
    assert rollout.reason == reason
    assert rollout.message.endswith(".")
    assert ".." not in rollout.message


@pytest.mark.parametrize(
    "status",
    [
        {},
        {"containerStatuses": container({"waiting": {"reason": "ContainerCreating"}})},
        {"containerStatuses": container({"waiting": {"reason": "PodInitializing"}})},
        {"containerStatuses": container({"running": {}})},
        {"phase": "Succeeded", "containerStatuses": container({"terminated": {"exitCode": 0}})},
        {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": container(
                {"running": {}}, restartCount=9, lastState={"terminated": {"exitCode": 1}}
            ),
        },
    ],
)
def test_a_pod_that_runs_or_starts_is_no_problem(status: dict[str, Any]) -> None:
    assert pod(**status).problem() is None


def test_the_termination_message_of_a_container_is_not_shown() -> None:
    last = {"terminated": {"exitCode": 1, "reason": "Error", "message": "password=s3cr3t"}}
    statuses = container({"waiting": {"reason": "CrashLoopBackOff"}}, restartCount=4, lastState=last)
    problem = pod(containerStatuses=statuses).problem()
    assert problem
    assert "s3cr3t" not in problem.message


def test_a_reason_that_is_invalid_in_a_condition_is_not_used() -> None:
    statuses = container({"waiting": {"reason": "odd reason", "message": "m"}})
    rollout = deployment(availableReplicas=0).rolled_out([pod(containerStatuses=statuses)])
    assert rollout.reason == "RollingOut"
    assert "cannot start: m" in rollout.message


def test_an_unbound_claim_is_named() -> None:
    volumes = [
        {"name": "data", "persistentVolumeClaim": {"claimName": "data-0"}},
        {"name": "tmp", "emptyDir": {}},
    ]
    waiting = pod(volumes=volumes, conditions=[UNSCHEDULABLE])
    assert waiting.claims == ("data-0",)
    claim: PersistentVolumeClaim = read(
        PERSISTENT_VOLUME_CLAIM,
        {
            "metadata": {"name": "data-0"},
            "spec": {"storageClassName": "fast"},
            "status": {"phase": "Pending"},
        },
    )
    late = deployment(availableReplicas=0)
    rollout = late.rolled_out([waiting], [claim])
    assert rollout.reason == "VolumePending"
    assert rollout.message.endswith("PersistentVolumeClaim data-0 of StorageClass fast is not bound yet.")
    assert late.rolled_out([waiting], []).message.endswith("PersistentVolumeClaim data-0 does not exist.")
    assert late.rolled_out([waiting]).reason == "Unschedulable"


def test_the_newest_pod_of_the_workload_gives_the_reason() -> None:
    old = pod("web-5d-a", created=NEW - timedelta(hours=1), containerStatuses=container({"waiting": PULL}))
    other = pod("web-api-5d-a", owner="web-api-5d", conditions=[UNSCHEDULABLE])
    new = pod("web-6f-b", owner="web-6f", containerStatuses=container({"terminated": {"exitCode": 2}}))
    late = deployment(availableReplicas=0)
    assert late.rolled_out([old, other, new]).reason == "Error"
    assert late.rolled_out([old, other]).reason == "ImagePullBackOff"
    assert late.rolled_out([other]).reason == "RollingOut"


def stateful_set(
    strategy: dict[str, Any] | None = None, *, generation: int = 2, **status: Any
) -> StatefulSet:
    found: StatefulSet = read(
        STATEFUL_SET,
        {
            "metadata": {"name": "db", "namespace": "n", "uid": "u", "generation": generation},
            "spec": {"replicas": 3, "updateStrategy": strategy or {"type": "RollingUpdate"}},
            "status": {
                "observedGeneration": 2,
                "replicas": 3,
                "readyReplicas": 3,
                "updatedReplicas": 3,
                **status,
            },
        },
    )
    return found


PARTITION = {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}


@pytest.mark.parametrize(
    ("found", "missing"),
    [
        (stateful_set(), ""),
        (stateful_set(generation=3), "The controller has not seen the current spec yet."),
        (stateful_set(observedGeneration=0), "The controller has not seen the current spec yet."),
        (stateful_set(readyReplicas=1), "1 of 3 pods are ready."),
        (stateful_set(updatedReplicas=1), "1 of 3 pods are updated."),
        (stateful_set(PARTITION, updatedReplicas=1), ""),
        (stateful_set(PARTITION, updatedReplicas=0), "0 of 1 pods are updated."),
        (stateful_set({"type": "OnDelete"}, updatedReplicas=0), ""),
    ],
)
def test_when_a_stateful_set_is_rolled_out(found: StatefulSet, missing: str) -> None:
    rollout = found.rolled_out()
    assert rollout.done == (missing == "")
    if missing:
        assert rollout.message == f"StatefulSet db: {missing}"


def test_a_stateful_set_identifies_its_pods_by_uid() -> None:
    broken = pod("db-0", owner="db", containerStatuses=container({"waiting": PULL}))
    assert stateful_set(readyReplicas=0).rolled_out([broken]).reason == "ImagePullBackOff"
    assert not stateful_set().owns(read(POD, {"metadata": {"name": "db-0"}}))


def test_the_text_of_a_selector_fits_requests() -> None:
    selector = deployment(
        {
            "selector": {
                "matchLabels": {"app": "web", "tier": "front"},
                "matchExpressions": [
                    {"key": "env", "operator": "In", "values": ["a", "b"]},
                    {"key": "env", "operator": "NotIn", "values": ["c"]},
                    {"key": "x", "operator": "Exists"},
                    {"key": "y", "operator": "DoesNotExist"},
                ],
            }
        }
    ).spec.selector
    assert str(selector) == "app=web,tier=front,env in (a,b),env notin (c),x,!y"


def test_a_rollout_is_immutable() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        deployment().rolled_out().done = False  # type: ignore[misc]
