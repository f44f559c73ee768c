"""The pods of the etcd operator: the API server accepts them, and etcd of all versions understands them."""

import json
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from etcd_operator.blueprint import Blueprint
from etcd_operator.certificates import PEER, SERVER
from etcd_operator.client import ConnectionPool
from etcd_operator.errors import EtcdError
from etcd_operator.etcd import Credentials, Etcd, Member
from etcd_operator.model import Configuration, Failure, PodPlan
from etcd_operator.old_logs import renew_logs
from etcd_operator.pod_metadata import INITIAL_CLUSTER, INITIAL_STATE, flip, patch_image
from etcd_operator.pod_states import pod_state
from etcd_operator.pods import member_pod
from etcd_operator.versions import Minor, Version
from etcd_operator.views import LIVE_POD, POD, POD_DISRUPTION_BUDGET, LivePod, Pod
from pilothouse.kube import Client, ObjectKey, PatchType, Resource
from pilothouse.testing import eventually
from pilothouse.views import PERSISTENT_VOLUME_CLAIM, SERVICE
from tests.api.etcd_members import CLUSTER
from tests.api.etcd_pods import BINARIES, PodNetwork, PodProcess
from tests.api.versions import ON_BOTH
from tests.unit.etcd.manifests import CASES, blueprint
from tests.unit.etcd.test_states import NOW, ago, merged, stored
from tests.unit.kube.authority import Authority

ON_ALL = pytest.mark.parametrize("version", BINARIES)
# Seconds. No test waits for it where all is well.
PATIENT = 60.0
NAMES = ("example-aaaaa", "example-bbbbb", "example-ccccc")
NEW = "example-ddddd"
Start = Callable[..., PodProcess]
RESOURCES: dict[str, Resource[Any]] = {
    each.kind: each for each in (POD, PERSISTENT_VOLUME_CLAIM, SERVICE, POD_DISRUPTION_BUDGET)
}


@pytest.fixture
def cluster() -> Blueprint:
    # A test reaches this quota soon.
    return blueprint({"quotaBackendBytes": "100Ki"})


@pytest.fixture
def new_pod(tmp_path: Path, cluster: Blueprint, version: str) -> Iterator[Start]:
    """Returns a function that starts the pod of a plan. All are stopped after the test."""
    network = PodNetwork(cluster, (*NAMES, NEW))
    pods: list[PodProcess] = []

    def start(name: str, configuration: Configuration, **further: Any) -> PodProcess:
        peers, chosen = further.pop("peers", ()), further.pop("version", version)
        plan = PodPlan(name, chosen, configuration, peers=peers)
        manifest = member_pod(cluster, plan, image=f"etcd:v{chosen}", **further)
        pods.append(PodProcess(tmp_path, network, manifest, chosen))
        pods[-1].start()
        return pods[-1]

    yield start
    for pod in pods:
        pod.stop()


@pytest.fixture
async def connections() -> AsyncIterator[ConnectionPool]:
    async with ConnectionPool() as pool:
        yield pool


async def served(*pods: PodProcess) -> None:
    for pod in pods:
        await eventually(pod.serves, within=PATIENT, describe=partial(end_of_log, pod))


def end_of_log(pod: PodProcess) -> str:
    return pod.log[-3000:]


async def single(new_pod: Start) -> PodProcess:
    """Founds a cluster of one member that holds a key."""
    pod = new_pod(NAMES[0], Configuration.FOUNDING, peers=NAMES[:1])
    await served(pod)
    pod.etcdctl("put", "key", "value")
    return pod


async def trio(new_pod: Start) -> list[PodProcess]:
    """Founds a cluster of three members."""
    pods = [new_pod(each, Configuration.FOUNDING, peers=NAMES) for each in NAMES]
    await served(*pods)
    return pods


def failure(pod: PodProcess, cluster: Blueprint) -> Failure | None:
    """What the operator reads after the container has exited, with the message of FallbackToLogsOnError."""
    code, message = pod.exit_code(), pod.log[-2048:]
    state = {"terminated": {"exitCode": code, "message": message}}
    status = {
        "conditions": [{"type": "Ready", "status": "False", "lastTransitionTime": ago(5)}],
        "containerStatuses": [{"name": "etcd", "state": state, "restartCount": 2, "containerID": "x"}],
    }
    body = stored(pod.manifest, status=status, node="node")
    return pod_state(cluster, msgspec.convert(body, Pod), "etcd:v{}".format, now=NOW).failure


@pytest.mark.parametrize("name", CASES)
async def test_the_api_server_accepts_the_manifests(name: str, client: Client, namespace: str) -> None:
    """Unknown fields, and wrong values, are errors."""
    for manifest in CASES[name]():
        resource = RESOURCES[manifest["kind"]]
        body = {**manifest, "metadata": {**manifest["metadata"], "namespace": namespace}}
        params = {"dryRun": "All", "fieldValidation": "Strict"}
        created = await client.request("POST", resource.path(namespace), body=body, params=params)
        assert json.loads(created)["metadata"]["name"] == manifest["metadata"]["name"]
        applied = await client.patch(
            resource,
            ObjectKey(namespace, manifest["metadata"]["name"]),
            body,
            type=PatchType.APPLY,
            field_manager="etcd-operator",
            dry_run=True,
        )
        assert applied.metadata.labels == manifest["metadata"]["labels"]


@ON_BOTH
async def test_the_pods_meet_the_restricted_standard(client: Client, namespace: str) -> None:
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    await client.request(
        "PATCH",
        f"/api/v1/namespaces/{namespace}",
        body={"metadata": {"labels": labels}},
        content_type=PatchType.MERGE,
    )
    plan = PodPlan(NAMES[0], "3.6.14", Configuration.POISONED)
    manifest = member_pod(blueprint({}, namespace=namespace), plan, image="etcd:v3.6.14")
    await client.create(POD, manifest, namespace=namespace)


@ON_BOTH
async def test_a_running_pod_is_patched_in_place(client: Client, namespace: str) -> None:
    """The API server accepts the patch of the image, although most fields of a pod are immutable."""
    cluster = blueprint({}, namespace=namespace)
    plan = PodPlan(NAMES[0], "3.5.33", Configuration.FOUNDING, peers=NAMES)
    manifest = member_pod(cluster, plan, image="etcd:v3.5.33")
    created = await client.create(POD, manifest, namespace=namespace)
    live = await client.get(LIVE_POD, created.metadata.key)
    patch = patch_image(cluster.spec, live, "3.6.14", "etcd:v3.6.14")
    patched = await client.patch(POD, created.metadata.key, merged(patch, flip()), type=PatchType.MERGE)
    state = pod_state(cluster, patched, "etcd:v{}".format, now=NOW)
    assert (state.version, state.configuration) == ("3.6.14", Configuration.POISONED)
    again = await client.get(LIVE_POD, created.metadata.key)
    [before], [after] = live.spec.containers, again.spec.containers
    assert after == {**before, "image": "etcd:v3.6.14"}


@ON_ALL
async def test_poison_refuses_an_empty_volume_and_is_ignored_on_a_used_one(
    new_pod: Start, cluster: Blueprint
) -> None:
    pod = await single(new_pod)
    member = json.loads(pod.etcdctl("endpoint", "status", "-w=json"))[0]["Status"]["header"]["member_id"]
    pod.stop()
    # The annotations are flipped, and the container restarts in the same pod.
    founding = pod.manifest
    pod.manifest = merged(founding, flip())
    pod.start()
    await served(pod)
    pod.stop()
    # The pod is created again, with the poison in its arguments.
    again = new_pod(NAMES[0], Configuration.POISONED)
    await served(again)
    assert "value" in again.etcdctl("get", "key")
    assert json.loads(again.etcdctl("endpoint", "status", "-w=json"))[0]["Status"]["header"]["member_id"] == (
        member
    )
    again.stop()
    for manifest in (pod.manifest, again.manifest):
        again.manifest = manifest
        shutil.rmtree(again.volume / "data")
        again.start()
        assert failure(again, cluster) is Failure.REFUSED_EMPTY
        assert not (again.volume / "data" / "member" / "wal").exists()


@ON_ALL
@pytest.mark.parametrize("missing", [(INITIAL_CLUSTER,), (INITIAL_STATE,), (INITIAL_CLUSTER, INITIAL_STATE)])
async def test_a_removed_annotation_never_founds_a_cluster(
    missing: tuple[str, ...], new_pod: Start, cluster: Blueprint
) -> None:
    pod = new_pod(NAMES[0], Configuration.FOUNDING, peers=NAMES[:1])
    pod.stop()
    shutil.rmtree(pod.volume / "data", ignore_errors=True)
    for annotation in missing:
        del pod.manifest["metadata"]["annotations"][annotation]
    pod.start()
    assert failure(pod, cluster) in (Failure.REFUSED_EMPTY, Failure.CRASH)
    assert not (pod.volume / "data" / "member" / "wal").exists()


@ON_ALL
async def test_probes_without_a_quorum_and_with_a_full_database(new_pod: Start) -> None:
    pods = await trio(new_pod)
    for pod in pods:
        assert [pod.probe(each) for each in ("startupProbe", "livenessProbe", "readinessProbe")] == [True] * 3
    with pytest.raises(AssertionError, match="database space exceeded"):
        fill(pods[0])
    assert "NOSPACE" in pods[0].etcdctl("alarm", "list")
    assert all(pod.probe("readinessProbe") for pod in pods)
    for pod in pods[1:]:
        pod.stop()
    # The probe of 3.5.0 does not depend on a quorum, because its /health has defects.
    blind = pods[0].version == "3.5.0"
    await eventually(lambda: pods[0].probe("readinessProbe") == blind, within=PATIENT)
    assert pods[0].probe("livenessProbe")
    # Its restart does not need a quorum either.
    pods[0].stop()
    pods[0].start()
    await eventually(lambda: pods[0].probe("startupProbe"), within=PATIENT)
    assert pods[0].probe("livenessProbe")
    assert pods[0].probe("readinessProbe") == blind


@ON_ALL
async def test_members_stay_ready_when_a_user_enables_auth(new_pod: Start) -> None:
    pod = await single(new_pod)
    for words in ("user add root:root", "role add root", "user grant-role root root", "auth enable"):
        pod.etcdctl(*words.split())
    assert [pod.probe(each) for each in ("startupProbe", "livenessProbe", "readinessProbe")] == [True] * 3


TLS = {"member": {"peerSecret": "peers", "serverSecret": "servers"}, "operatorSecret": "operator"}


@ON_ALL
@pytest.mark.parametrize("cluster", [blueprint({"TLS": {"static": TLS}})], ids=["tls"])
async def test_members_use_the_mounted_secrets(
    new_pod: Start, tmp_path: Path, connections: ConnectionPool
) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.issue("member", "IP:127.0.0.1,DNS:*.example.default.svc")
    files = authority.ca_file, certificate, key
    for folder, layout in (("member/peer-tls", PEER), ("member/server-tls", SERVER)):
        mounted = tmp_path / "etcdtls" / folder
        mounted.mkdir(parents=True)
        for name, file in zip(layout, files, strict=True):
            shutil.copy(file, mounted / name)
    pods = [new_pod(each, Configuration.FOUNDING, peers=NAMES) for each in NAMES]
    for pod in pods:
        await eventually(
            partial(pod.probe, "readinessProbe"), within=PATIENT, describe=partial(end_of_log, pod)
        )
    endpoint = replace(pods[0].endpoint, server_name=f"{NAMES[0]}.example.default.svc")
    credentials = Credentials(*(each.read_text() for each in files))
    etcd = connections.members(CLUSTER, [endpoint], credentials)[endpoint]
    await eventually(partial(_lists_three, etcd), within=PATIENT)


async def _lists_three(etcd: Etcd) -> bool:
    with suppress(EtcdError):
        return len((await etcd.member_list()).members) == 3
    return False


def fill(pod: PodProcess) -> None:
    for number in range(100):
        pod.etcdctl("put", f"large-{number}", "x" * 100_000)


@ON_ALL
async def test_a_learner_becomes_ready(new_pod: Start, cluster: Blueprint) -> None:
    pods = await trio(new_pod)
    learner = await joined(pods[0], new_pod, cluster)
    assert learner.probe("startupProbe")
    learner.stop()
    # It is flipped before it is promoted.
    learner.manifest = merged(learner.manifest, flip())
    learner.start()
    await eventually(lambda: learner.probe("readinessProbe"), within=PATIENT)


async def joined(leader: PodProcess, new_pod: Start, cluster: Blueprint) -> PodProcess:
    """Adds a learner, and waits until it is ready."""
    # Etcd refuses a member until its own members have been connected for 5 s.
    await eventually(lambda: _added(leader, cluster), within=PATIENT, every=0.5)
    listed = [
        Member(number, "", (cluster.peer_url(name),), (), is_learner=False)
        for number, name in enumerate(NAMES)
    ]
    peers = cluster.joining(listed, NEW)
    learner = new_pod(NEW, Configuration.JOINING, initial_cluster=peers, version=leader.version)
    await eventually(
        lambda: learner.probe("readinessProbe"), within=PATIENT, describe=partial(end_of_log, learner)
    )
    return learner


def _added(pod: PodProcess, cluster: Blueprint) -> bool:
    url = pod.network.translated(cluster.peer_url(NEW), NEW)
    pod.etcdctl("member", "add", NEW, "--learner", f"--peer-urls={url}")
    return True


OPTIONS = {
    "3.5.0": {"ETCD_EXPERIMENTAL_INITIAL_CORRUPT_CHECK"},
    "3.5.33": {"ETCD_EXPERIMENTAL_INITIAL_CORRUPT_CHECK", "ETCD_EXPERIMENTAL_COMPACT_HASH_CHECK_ENABLED"},
    "3.6.14": {"ETCD_FEATURE_GATES"},
    "3.7.3": {"ETCD_FEATURE_GATES"},
}


def options(pod: PodProcess) -> set[str]:
    """Returns the variables that etcd has used, apart from the quota."""
    lines = (json.loads(line) for line in pod.log.splitlines() if "used environment variable" in line)
    return {line["variable-name"] for line in lines} - {"ETCD_QUOTA_BACKEND_BYTES"}


@pytest.mark.parametrize("version", ["3.5.0"])
async def test_patched_images_go_through_all_versions_with_the_options_of_each(
    new_pod: Start, cluster: Blueprint, connections: ConnectionPool
) -> None:
    """A quiet cluster: no member takes a snapshot because of the number of entries."""
    pods = await trio(new_pod)
    pods[0].etcdctl("put", "key", "value")
    assert options(pods[0]) == OPTIONS["3.5.0"]
    for version in ("3.5.33", "3.6.14", "3.7.3"):
        for pod in pods:
            pod.stop()
            live = msgspec.convert(pod.manifest, LivePod)
            patch = patch_image(cluster.spec, live, version, f"etcd:v{version}")
            pod.manifest = merged(pod.manifest, patch)
            pod.version = version
            pod.start()
            await served(pod)
            assert options(pod) == OPTIONS[version] | (
                {"ETCD_SNAPSHOT_COUNT"} if version == "3.6.14" else set()
            )
            assert "starting initial corruption check" in pod.log
            assert "value" in pod.etcdctl("get", "key")
        minor = Version.parse(version).minor
        await eventually(partial(pods[0].is_cluster_version, f"{minor}.0"), within=PATIENT)
        if minor == Minor(3, 6):
            # A member that joins on 3.6 gets the log of 3.5, too.
            learner = await joined(pods[0], new_pod, cluster)
            member = json.loads(learner.etcdctl("endpoint", "status", "-w=json"))[0]["Status"]["header"]
            pods[0].etcdctl("member", "promote", f"{member['member_id']:x}")
            pods.append(learner)
            await renew_logs(connections.members(CLUSTER, [pods[0].endpoint])[pods[0].endpoint])
