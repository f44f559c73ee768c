"""What the etcd operator reads from pods and volumes, also what it wrote there itself."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from etcd_operator.model import Configuration, Failure, Mark, PodPlan, PodState, Signal, VolumeState
from etcd_operator.pod_metadata import (
    INITIAL_CLUSTER,
    INITIAL_STATE,
    decorate,
    flip,
    patch_image,
    rejoin,
    serve,
    unserve,
)
from etcd_operator.pod_states import PENDING_GRACE, addressed_uids, node_signal, pod_state
from etcd_operator.pods import member_pod
from etcd_operator.views import EndpointSlice, LivePod, Node, Pod
from etcd_operator.volumes import mark, volume_claim, volume_of_claim, volume_of_pod
from pilothouse.views import PersistentVolumeClaim
from tests.unit.etcd.manifests import EPHEMERAL, UID, blueprint

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
NAMES = ("example-aaaaa", "example-bbbbb", "example-ccccc")
CLUSTER = blueprint({})
OWNER = {
    "apiVersion": "etcd.database.coreos.com/v1beta2",
    "kind": "EtcdCluster",
    "name": "example",
    "uid": UID,
}


def ago(seconds: float) -> str:
    return (NOW - timedelta(seconds=seconds)).isoformat()


def stored(
    manifest: dict[str, Any], *, status: dict[str, Any] | None = None, node: str = ""
) -> dict[str, Any]:
    """Does what the API server, the scheduler and the kubelet do."""
    return {
        **manifest,
        "metadata": {
            **manifest["metadata"],
            "uid": "the-uid",
            "creationTimestamp": ago(100),
            "ownerReferences": [{**OWNER, "controller": True}],
        },
        "spec": {**manifest["spec"], "nodeName": node},
        "status": status or {},
    }


def merged(target: Any, patch: Any) -> Any:
    """Applies a merge patch (RFC 7386)."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


def manifest(configuration: Configuration = Configuration.FOUNDING, **plan: Any) -> dict[str, Any]:
    members = CLUSTER.joining((), NAMES[0])
    planned = PodPlan(NAMES[0], "3.5.33", configuration, peers=NAMES, **plan)
    return member_pod(CLUSTER, planned, image=quay("3.5.33"), initial_cluster=members)


def read(body: dict[str, Any], **observed: Any) -> PodState:
    return pod_state(CLUSTER, msgspec.convert(body, Pod), quay, now=NOW, **observed)


def quay(version: str) -> str:
    return f"quay.io/coreos/etcd:v{version}"


@pytest.mark.parametrize(
    ("configuration", "peers"),
    [
        (Configuration.FOUNDING, frozenset(NAMES)),
        (Configuration.JOINING, frozenset(NAMES[:1])),
        (Configuration.POISONED, frozenset({""})),
    ],
)
@pytest.mark.parametrize("serving", [True, False])
def test_what_a_manifest_says_is_read_again(
    configuration: Configuration, peers: frozenset[str], serving: bool
) -> None:
    body = stored(manifest(configuration, serving=serving))
    state = read(body, addressed=True, node=Signal.UNKNOWN)
    assert state == PodState(
        name=NAMES[0],
        uid="the-uid",
        owner=UID,
        image=quay("3.5.33"),
        version="3.5.33",
        shape=body["metadata"]["annotations"]["etcd.pilothouse.dev/shape"],
        configuration=configuration,
        peers=peers,
        serving=serving,
        addressed=True,
        ran=False,
        failure=Failure.PENDING,
        failing_since=NOW - timedelta(seconds=100),
        created=NOW - timedelta(seconds=100),
        unready_since=NOW - timedelta(seconds=100),
        detail="it is not scheduled",
        node=Signal.UNKNOWN,
    )


def running(container: str) -> dict[str, Any]:
    """The status of a pod whose container runs."""
    return {"containerStatuses": [{"name": "etcd", "containerID": container, "state": {"running": {}}}]}


def test_a_patched_pod_restarts_until_the_kubelet_has_replaced_its_container() -> None:
    body = stored(manifest(), node="node", status=running("containerd://1"))
    assert not read(body).patched
    live = msgspec.convert(body, LivePod)
    body = merged(body, patch_image(CLUSTER.spec, live, "3.6.14", quay("3.6.14")))
    assert read(body).patched
    assert not read({**body, "status": running("containerd://2")}).patched
    assert not read({**body, "status": {}}).patched


@pytest.mark.parametrize(
    ("patched", "code", "failure"),
    [(True, 0, Failure.IMAGE), (True, 1, Failure.CRASH), (False, 0, Failure.CRASH)],
)
def test_etcd_does_not_crash_when_it_is_stopped_for_an_image_that_cannot_start(
    patched: bool, code: int, failure: Failure
) -> None:
    body = stored(manifest(), node="node", status=running("containerd://1"))
    live = msgspec.convert(body, LivePod)
    if patched:
        body = merged(body, patch_image(CLUSTER.spec, live, "3.6.99", quay("3.6.99")))
    container = {"name": "etcd", **BACK_OFF, "lastState": ended(code=code)}
    state = read({**body, "status": {"conditions": [UNREADY], "containerStatuses": [container]}})
    assert state.failure is failure
    if failure is Failure.IMAGE:
        assert state.detail == (
            f"the kubelet could not start the image {quay('3.6.99')}, and waits before it retries; see "
            "`kubectl describe pod`"
        )


def test_a_patch_that_does_not_change_the_image_restarts_nothing() -> None:
    """Two versions have the same image, or a webhook replaces it."""
    body = stored(manifest(), node="node", status=running("containerd://1"))
    live = msgspec.convert(body, LivePod)
    assert not read(merged(body, patch_image(CLUSTER.spec, live, "3.6.14", quay("3.5.33")))).patched


def test_another_image_for_the_version_of_a_pod_is_noticed() -> None:
    """Also if the operator has a digest, or a webhook has replaced the image in the pod."""
    body = stored(manifest(), node="node")
    assert not read(body).other_image
    body["spec"]["containers"][0]["image"] = "mirror.example.com/etcd:v3.5.33"
    assert not read(body).other_image
    pod = msgspec.convert(body, Pod)
    assert pod_state(CLUSTER, pod, lambda version: f"etcd@sha256:{version}", now=NOW).other_image
    del body["metadata"]["annotations"]["etcd.pilothouse.dev/image"]
    pod = msgspec.convert(body, Pod)
    assert not pod_state(CLUSTER, pod, lambda version: f"etcd@sha256:{version}", now=NOW).other_image


def test_the_patches_change_what_is_read() -> None:
    body = stored(manifest())
    body = merged(body, flip())
    assert read(body).configuration is Configuration.POISONED
    body = merged(body, rejoin(CLUSTER.founding(NAMES[:2])))
    assert read(body).configuration is Configuration.JOINING
    assert read(body).peers == {*NAMES[:2]}
    body = merged(body, serve())
    assert read(body).serving
    body = merged(body, unserve())
    assert not read(body).serving


@pytest.mark.parametrize(
    ("image", "version"),
    [
        ("mirror.example.com/etcd:3.5.33-0", "3.5.33"),
        ("mirror.example.com/etcd:v3.6.14-1", "3.6.14-1"),
        ("mirror.example.com/etcd@sha256:1234", "3.5.33"),
    ],
)
def test_the_tag_of_an_image_counts_only_if_the_operator_did_not_ask_for_it(image: str, version: str) -> None:
    """An image of the operator's settings may have any tag."""
    body = stored(manifest(), node="node")
    body["metadata"]["annotations"]["etcd.pilothouse.dev/image"] = "registry.example.com/etcd:3.5.33-0"
    body["spec"]["containers"][0]["image"] = image
    assert read(body).version == version


@pytest.mark.parametrize(
    "image",
    [
        "quay.io/coreos/etcd:v3.6.14",
        "localhost:5000/etcd@sha256:1234",
        "registry.example.com/etcd:3.6.14-0",
    ],
)
def test_a_patched_image_has_another_version(image: str) -> None:
    body = stored(manifest())
    body["spec"]["containers"].append({"name": "sidecar", "image": "mesh", "args": ["a"]})
    patched = merged(body, patch_image(CLUSTER.spec, msgspec.convert(body, LivePod), "3.6.14", image))
    assert read(patched).version == "3.6.14"
    before, after = (each["spec"]["containers"] for each in (body, patched))
    assert after == [{**before[0], "image": image}, before[1]]
    annotations = patched["metadata"]["annotations"]
    assert annotations["etcd.version"] == "3.6.14"
    assert annotations["etcd.pilothouse.dev/feature-gates"]
    assert annotations["etcd.pilothouse.dev/experimental-initial-corrupt-check"] == ""
    assert annotations["etcd.pilothouse.dev/snapshot-count"] == "100"
    assert annotations[INITIAL_STATE] == "new"


@pytest.mark.parametrize("missing", [(INITIAL_CLUSTER,), (INITIAL_STATE,), (INITIAL_CLUSTER, INITIAL_STATE)])
def test_missing_annotations_are_not_a_founding(missing: tuple[str, ...]) -> None:
    body = stored(manifest())
    for each in missing:
        del body["metadata"]["annotations"][each]
    assert read(body).configuration is Configuration.JOINING


def test_labels_and_annotations_follow_the_spec() -> None:
    def brought(body: dict[str, Any], pod: dict[str, Any]) -> dict[str, Any]:
        metadata = body["metadata"]
        return decorate(metadata["labels"], metadata["annotations"], blueprint({"pod": pod}).spec, own)

    body = manifest()
    own = {"app": "etcd", "etcd_cluster": "example", "etcd_node": NAMES[0]}
    assert brought(body, {}) == {}
    assert brought(merged(body, {"metadata": {"labels": {"app": None, "etcd_node": "x"}}}), {}) == {
        "metadata": {"labels": {"app": "etcd", "etcd_node": NAMES[0]}}
    }
    first = {"labels": {"team": "a", "app": "mine"}, "annotations": {"x": "1", "y": "2", "etcd.version": "0"}}
    body = merged(body, brought(body, first))
    assert body["metadata"]["labels"] == {**manifest()["metadata"]["labels"], "team": "a"}
    assert body["metadata"]["annotations"]["etcd.version"] == "3.5.33"
    assert brought(body, first) == {}
    body["metadata"]["labels"]["other"] = "of another client"
    body = merged(body, brought(body, {"annotations": {"y": "3"}}))
    assert "team" not in body["metadata"]["labels"]
    assert body["metadata"]["labels"]["other"] == "of another client"
    annotations = body["metadata"]["annotations"]
    assert (annotations.get("x"), annotations.get("y")) == (None, "3")


def test_a_pod_of_another_owner_is_foreign() -> None:
    body = stored(manifest())
    body["metadata"]["ownerReferences"] = [{**OWNER, "controller": False}]
    assert read(body).owner == ""
    body["metadata"]["ownerReferences"] = [{**OWNER, "kind": "ReplicaSet", "controller": True}]
    assert read(body).owner == ""


# What the kubelet and the scheduler report.

POISON_LOG = (
    '{"level":"fatal","caller":"etcdmain/etcd.go:183","msg":"discovery failed","error":"couldn\'t find local '
    'name \\"example-aaaaa\\" in the initial cluster configuration","stacktrace":"..."}'
)
UNSCHEDULED = {
    "type": "PodScheduled",
    "status": "False",
    "message": "no nodes",
    "lastTransitionTime": ago(60),
}
UNREADY = {"type": "Ready", "status": "False", "lastTransitionTime": ago(60)}
READY = {"type": "Ready", "status": "True", "lastTransitionTime": ago(60)}
CREATING = {"state": {"waiting": {"reason": "ContainerCreating"}}}
RUNNING = {"state": {"running": {"startedAt": ago(5)}}, "containerID": "containerd://1"}


def ended(message: str = "", code: int = 1) -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "reason": "Error", "message": message}}


def observed(container: dict[str, Any] | None, *conditions: dict[str, Any], **status: Any) -> PodState:
    statuses = [{"name": "etcd", **container}] if container else []
    reported = {"conditions": [*conditions], "containerStatuses": statuses, **status}
    node = "" if UNSCHEDULED in conditions else "node"
    return read(stored(manifest(), status=reported, node=node))


BACK_OFF = {"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "containerID": "containerd://1"}


@pytest.mark.parametrize(
    ("container", "conditions", "failure", "ran"),
    [
        (None, [UNSCHEDULED], Failure.PENDING, False),
        (CREATING, [UNREADY], Failure.PENDING, False),
        (RUNNING, [READY], None, True),
        (RUNNING, [UNREADY], None, True),
        (
            {"state": {"waiting": {"reason": "ErrImagePull", "message": "404"}}},
            [UNREADY],
            Failure.IMAGE,
            False,
        ),
        ({"state": {"waiting": {"reason": "InvalidImageName"}}}, [UNREADY], Failure.IMAGE, False),
        (
            {"state": {"waiting": {"reason": "CreateContainerConfigError", "message": "no Secret"}}},
            [UNREADY],
            Failure.CONTAINER,
            False,
        ),
        ({"state": {"waiting": {"reason": "CreateContainerError"}}}, [UNREADY], Failure.CONTAINER, False),
        (
            {"state": {"waiting": {"reason": "ImagePullBackOff"}}, "lastState": ended(), "restartCount": 1},
            [UNREADY],
            Failure.IMAGE,
            True,
        ),
        ({**BACK_OFF, "lastState": ended()}, [UNREADY], Failure.CRASH, True),
        ({"state": ended(), "restartCount": 2}, [UNREADY], Failure.CRASH, True),
        ({"state": ended(), "restartCount": 0}, [UNREADY], None, True),
        ({**RUNNING, "lastState": ended(), "restartCount": 4}, [UNREADY], Failure.CRASH, True),
        ({**RUNNING, "lastState": ended(), "restartCount": 4}, [READY], None, True),
        (
            {"state": {"running": {"startedAt": ago(90)}}, "lastState": ended(), "restartCount": 4},
            [UNREADY],
            None,
            True,
        ),
        ({"state": ended(POISON_LOG)}, [UNREADY], Failure.REFUSED_EMPTY, True),
        ({**BACK_OFF, "lastState": ended(POISON_LOG)}, [UNREADY], Failure.REFUSED_EMPTY, True),
        ({**RUNNING, "lastState": ended(POISON_LOG)}, [UNREADY], Failure.REFUSED_EMPTY, True),
        ({**RUNNING, "lastState": ended(POISON_LOG)}, [READY], None, True),
    ],
)
def test_why_a_pod_does_not_run_etcd(
    container: dict[str, Any] | None, conditions: list[dict[str, Any]], failure: Failure | None, ran: bool
) -> None:
    state = observed(container, *conditions)
    assert (state.failure, state.ran) == (failure, ran)
    assert (state.failing_since is not None) == (failure is not None)
    assert (state.unready_since is None) == state.ready
    if failure:
        assert state.failing_since == NOW - timedelta(seconds=100 if container is CREATING else 60)
        assert state.detail


def test_a_pod_is_new_to_the_other_members_until_its_container_restarts() -> None:
    assert observed(CREATING, UNREADY).first_start is None
    assert observed(RUNNING, UNREADY).first_start == NOW - timedelta(seconds=5)
    assert observed(RUNNING, READY).first_start == NOW - timedelta(seconds=5)
    assert observed({**RUNNING, "lastState": ended(), "restartCount": 1}, READY).first_start is None


@pytest.mark.parametrize(
    ("message", "unlisted"),
    [
        ("error validating peerURLs {ClusterID:1 Members:[]}: member count is unequal", True),
        ("error validating peerURLs {}: PeerURLs: no match found for existing member (1, [])", True),
        ("cannot fetch cluster info from peer urls: could not retrieve cluster information", False),
    ],
)
def test_a_learner_s_pod_that_the_kubelet_starts_later(message: str, unlisted: bool) -> None:
    last = {"lastState": ended(message), "restartCount": 2}
    assert observed({**BACK_OFF, **last}, UNREADY).unlisted == unlisted
    for starting in ({"state": ended(message)}, {**RUNNING, **last}):
        assert not observed(starting, UNREADY).unlisted


def test_the_details_are_for_users() -> None:
    assert observed(None, UNSCHEDULED).detail == "no nodes"
    pulling = {"reason": "ErrImagePull", "message": "x: not found"}
    waiting = {
        "reason": "ImagePullBackOff",
        "message": 'Back-off pulling image "etcd:v3.6.99": ErrImagePull: x: not found',
    }
    details = {observed({"state": {"waiting": each}}, UNREADY).detail for each in (pulling, waiting)}
    assert details == {"ImagePullBackOff: x: not found"}
    crashing = {
        observed({**each, "restartCount": 3}, UNREADY).detail
        for each in ({"state": ended("secret")}, {**BACK_OFF, "lastState": ended("secret")})
    }
    assert crashing == {
        "etcd exits with code 1 (Error); its log: kubectl logs -n default example-aaaaa --previous"
    }


@pytest.mark.parametrize("phase", ["Failed", "Succeeded"])
@pytest.mark.parametrize("conditions", [(), (UNREADY,), (READY,)], ids=["none", "unready", "ready"])
def test_a_pod_that_has_ended_does_not_crash(phase: str, conditions: tuple[dict[str, Any], ...]) -> None:
    message = "The node was low on resource: ephemeral-storage. "
    evicted = observed(None, *conditions, phase=phase, reason="Evicted", message=message)
    assert evicted.failure is Failure.ENDED
    assert evicted.detail == "Evicted: The node was low on resource: ephemeral-storage"
    assert evicted.created == NOW - timedelta(seconds=100)
    assert observed(None, *conditions, phase=phase).detail == f"its phase is {phase}"


def test_a_new_pod_is_not_pending_yet() -> None:
    body = stored(manifest())
    body["metadata"]["creationTimestamp"] = ago(PENDING_GRACE.total_seconds() - 1)
    assert read(body).failure is None


def test_a_terminating_pod_has_no_failure() -> None:
    body = stored(manifest(), status={"phase": "Failed"}, node="node")
    body["metadata"]["deletionTimestamp"] = ago(1)
    assert (read(body).failure, read(body).deleting) == (None, True)


def test_a_pod_that_no_kubelet_has_reported_may_have_run() -> None:
    assert read(stored(manifest(), node="node")).ran


@pytest.mark.parametrize(
    ("status", "signal"),
    [
        ("True", Signal.HEALTHY),
        ("False", Signal.UNHEALTHY),
        ("Unknown", Signal.UNKNOWN),
        ("", Signal.UNKNOWN),
    ],
)
def test_nodes(status: str, signal: Signal) -> None:
    conditions = [{"type": "Ready", "status": status}]
    assert node_signal(msgspec.convert({"status": {"conditions": conditions}}, Node)) is signal
    assert node_signal(None) is Signal.UNKNOWN


def test_the_addressed_pods() -> None:
    slices = [
        {"endpoints": None},
        {
            "endpoints": [
                {"addresses": ["10.0.0.1"], "targetRef": {"kind": "Pod", "name": "a", "uid": "1"}},
                {"addresses": [], "targetRef": {"kind": "Pod", "name": "b", "uid": "2"}},
                {"addresses": ["10.0.0.3"]},
            ]
        },
    ]
    assert addressed_uids(msgspec.convert(slices, list[EndpointSlice])) == {"1"}


@pytest.mark.parametrize(
    ("phase", "node", "seconds", "held"),
    [
        ("Failed", "node-1", 10, True),
        ("Succeeded", "node-1", 10, True),
        ("Pending", "", 10, True),
        ("Failed", "node-1", 9, False),
        ("Running", "node-1", 600, False),
    ],
)
def test_finalizers_hold_a_pod_whose_containers_have_ended(
    phase: str, node: str, seconds: float, held: bool
) -> None:
    ready = {"type": "Ready", "status": "False", "lastTransitionTime": ago(seconds)}
    body = stored(manifest(), status={"phase": phase, "conditions": [ready]}, node=node)
    patch = {"finalizers": ["example.com/mine"], "deletionTimestamp": ago(0)}
    assert read(merged(body, {"metadata": patch})).held == (("example.com/mine",) if held else ())
    assert read(merged(body, {"metadata": {**patch, "deletionTimestamp": None}})).held == ()


def test_finalizers_of_others_hold_a_claim() -> None:
    both = ["kubernetes.io/pvc-protection", "example.com/mine"]
    body = volume_claim(CLUSTER, NAMES[0])
    assert claim(merged(body, {"metadata": {"finalizers": both}})).held == ()
    patch = {"metadata": {"finalizers": both, "deletionTimestamp": ago(1)}}
    assert claim(merged(body, patch)).held == ("example.com/mine",)


MARK = Mark(
    "example-aaaaa", started=True, member_id=0xAB, version="3.6.14", voters=NAMES, epoch=7, removed=True
)


def claim(body: dict[str, Any], phase: str = "Bound") -> VolumeState:
    status = {"phase": phase}
    return volume_of_claim(msgspec.convert({**stored(body), "status": status}, PersistentVolumeClaim))


def test_what_is_marked_on_a_volume_is_read_again() -> None:
    body = volume_claim(CLUSTER, NAMES[0])
    new = VolumeState(
        name=NAMES[0],
        uid="the-uid",
        owner=UID,
        incarnation=1,
        domain="",
        service=CLUSTER.service,
        bound=True,
        labelled=NAMES[0],
    )
    assert claim(body) == new
    body["metadata"]["annotations"] = dict.fromkeys(body["metadata"]["annotations"], "mistyped")
    resumed = msgspec.structs.replace(CLUSTER, uid="another")
    body = merged(body, mark(msgspec.structs.replace(MARK, domain=""), resumed, 0xCD))
    marked = VolumeState(
        name=NAMES[0],
        uid="the-uid",
        owner="another",
        incarnation=1,
        started=True,
        member_id=0xAB,
        cluster_id=0xCD,
        version="3.6.14",
        voters=NAMES,
        epoch=7,
        removed=True,
        domain="",
        service=CLUSTER.service,
        bound=True,
        labelled=NAMES[0],
    )
    assert claim(body) == marked
    cleared = merged(body, mark(Mark(NAMES[0], False, 0, ""), CLUSTER, 0))
    assert claim(cleared) == new


def test_the_state_of_a_claim() -> None:
    body = volume_claim(CLUSTER, NAMES[0])
    assert claim(body, phase="Lost").lost
    assert not claim(body, phase="Pending").lost
    phases = ("", "Pending", "Bound", "Lost")
    assert [claim(body, phase=each).bound for each in phases] == [False, False, True, True]
    deleting = merged(stored(body), {"metadata": {"deletionTimestamp": ago(1)}})
    assert volume_of_claim(msgspec.convert(deleting, PersistentVolumeClaim)).deleting


def test_a_volume_without_annotations_is_foreign() -> None:
    body = volume_claim(CLUSTER, NAMES[0])
    body["metadata"]["annotations"] = {}
    assert claim(body) == VolumeState(name=NAMES[0], uid="the-uid", bound=True, labelled=NAMES[0])


@pytest.mark.parametrize(
    ("key", "text", "shown"),
    [
        ("member-id", "xyz", {"member_id": 0}),
        ("cluster-id", "xyz", {"cluster_id": 0}),
        ("incarnation", "", {"incarnation": 0}),
        ("voters", "1000=a", {"voters": (), "epoch": 0}),
        ("voters", "1000", {"voters": (), "epoch": 0}),
        ("voters", "a:b", {"voters": (), "epoch": 0}),
        ("started", "True", {"started": False}),
        ("removed", "yes", {"removed": False}),
        ("version", "36.14", {"version": ""}),
        ("scheme", "htps/http", {"scheme": "http/http"}),
    ],
)
def test_an_annotation_that_cannot_be_read_is_named_and_the_others_are_read(
    key: str, text: str, shown: dict[str, Any]
) -> None:
    body = merged(volume_claim(CLUSTER, NAMES[0]), mark(MARK, CLUSTER, 0xCD))
    right = claim(body)
    assert right.unreadable == ""
    body["metadata"]["annotations"][f"etcd.pilothouse.dev/{key}"] = text
    wrong = msgspec.structs.replace(right, unreadable=f"etcd.pilothouse.dev/{key}", **shown)
    assert claim(body) == wrong


def test_a_flag_that_a_user_has_set_to_false_is_not_set() -> None:
    body = volume_claim(CLUSTER, NAMES[0])
    body["metadata"]["annotations"]["etcd.pilothouse.dev/removed"] = "false"
    assert not claim(body).removed
    assert not claim(body).unreadable


@pytest.mark.parametrize(
    ("words", "damaged"),
    [
        ('"msg":"discovery failed","error":"walpb: crc mismatch"', True),
        ("panic: cannot use none as id\n\ngoroutine 1 [running]:", True),
        (
            "panic: runtime error: invalid memory address or nil pointer dereference\n[signal SIGSEGV]\n\n"
            "goroutine 1 [running]:\ngo.etcd.io/etcd/server/v3/etcdserver.bootstrap({{0x1, 0x7}, ...})",
            True,
        ),
        ("go.etcd.io/bbolt.(*Tx).page(0x18?, 0x1ba34a0?)", True),
        ("panic: failed to recover v3 backend from snapshot", True),
        ('"msg":"discovery failed","error":"member 1 has already been bootstrapped"', False),
        ("panic: unmarshal should never fail\ngo.etcd.io/etcd/server/v3/etcdserver.bootstrap(", False),
        ("--election-timeout[10ms] should be at least as 5 times as --heartbeat-interval[100ms]", False),
        ("", False),
    ],
)
def test_a_pod_that_crashes_because_of_its_data(words: str, damaged: bool) -> None:
    found = observed({**BACK_OFF, "lastState": ended(words, 2)}, UNREADY)
    assert (found.failure, found.damaged) == (Failure.CRASH, damaged)


def test_the_pod_is_the_volume_of_an_ephemeral_member() -> None:
    cluster = blueprint(EPHEMERAL)
    plan = PodPlan(NAMES[0], "3.6.14", Configuration.FOUNDING, peers=NAMES)
    body = stored(member_pod(cluster, plan, image="etcd"))
    state = volume_of_pod(msgspec.convert(body, Pod))
    assert (state.uid, state.owner, state.incarnation, state.started) == ("the-uid", UID, 1, False)
    marked = merged(body, mark(MARK, CLUSTER, 0xCD))
    assert volume_of_pod(msgspec.convert(marked, Pod)).member_id == 0xAB
    for phase, lost in (("Running", False), ("Failed", True), ("Succeeded", True)):
        assert volume_of_pod(msgspec.convert({**body, "status": {"phase": phase}}, Pod)).lost == lost
