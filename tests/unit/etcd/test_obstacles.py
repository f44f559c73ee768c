"""What an etcd cluster waits for outside itself: StorageClasses, nodes, Secrets and etcd's permissions."""

import asyncio
import base64
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from etcd_operator.errors import TlsFailed
from etcd_operator.views import NODE
from pilothouse import SECRET
from pilothouse.kube import Forbidden, ObjectKey, Page, Resource
from pilothouse.testing import ModelApi
from pilothouse.testing.controllers.pods import CLAIM, POD
from pilothouse.testing.model import Call
from tests.etcd.model.client import ModelMember
from tests.etcd.model.state import EnableAuth
from tests.etcd.model.volumes import DEFAULT_CLASS, STORAGE_CLASS
from tests.unit.etcd.operated import Operated, operated
from tests.unit.kube.authority import DAYS, Authority

pytestmark = pytest.mark.usefixtures("virtual_time")

SIZE = "spec.pod.persistentVolumeClaimSpec.resources.requests.storage"


def sized(size: str) -> dict[str, Any]:
    return {"persistentVolumeClaimSpec": {"resources": {"requests": {"storage": size}}}}


def sizes(model: ModelApi) -> set[str]:
    return {each["spec"]["resources"]["requests"]["storage"] for each in model.all(CLAIM)}


def forbid_cluster_scoped(client: ModelApi) -> None:
    """Refuses the operator to read nodes and StorageClasses."""
    pages = client.pages

    def listed(resource: Resource[Any], **options: Any) -> AsyncGenerator[Page[Any], None]:
        if not resource.namespaced:
            raise Forbidden(403, "Forbidden", f"cannot list {resource}")
        return pages(resource, **options)

    async def before(call: Call) -> None:
        if call.resource == str(NODE):
            raise Forbidden(403, "Forbidden", f"cannot get {call.resource}")

    client.pages = listed  # type: ignore[method-assign]
    client.before = before


def refuse_expansion(client: ModelApi) -> None:
    async def before(call: Call) -> None:
        if (call.verb, call.resource) == ("patch", str(CLAIM)) and "resources" in call.body.get("spec", {}):
            raise Forbidden(403, "Forbidden", "the storageclass must support resize")

    client.before = before


async def message_of(cluster: Operated, reason: str) -> str:
    """Waits until Ready is False with a reason, and returns the message."""
    await cluster.until(lambda: cluster.condition("Ready").get("reason") == reason)
    assert cluster.condition("Ready")["status"] == "False"
    return str(cluster.condition("Ready")["message"])


async def test_a_default_class_that_is_set_later_is_used(model: ModelApi) -> None:
    async with operated(model, default_class=False) as cluster:
        model.put(STORAGE_CLASS, "slow")
        cluster.apply(size=3, version="3.6.14")
        message = await message_of(cluster, "NoStorageClass")
        assert "Set spec.pod.persistentVolumeClaimSpec.storageClassName to slow, or mark" in message
        model.put(STORAGE_CLASS, "slow", metadata={"annotations": {DEFAULT_CLASS: "true"}})
        await cluster.settled()


async def test_without_the_right_the_condition_names_what_cannot_be_seen(model: ModelApi) -> None:
    async with operated(model, default_class=False) as cluster:
        forbid_cluster_scoped(cluster.client)
        cluster.apply(size=3, version="3.6.14")
        message = await message_of(cluster, "NoStorageClass")
        assert "the operator may not read StorageClasses, so it cannot list them" in message
        assert cluster.condition("Degraded")["reason"] == "NoStorageClass"


async def test_a_class_that_does_not_exist_is_named(model: ModelApi) -> None:
    async with operated(model) as cluster:
        cluster.apply(
            size=3, version="3.6.14", pod={"persistentVolumeClaimSpec": {"storageClassName": "fats"}}
        )
        message = await message_of(cluster, "NoStorageClass")
        assert message.startswith("The StorageClass fats does not exist")
        assert "storageClassName to standard." in message
        cluster.apply(pod={"persistentVolumeClaimSpec": {"storageClassName": "standard"}})
        await cluster.settled()


async def test_volumes_grow_where_the_class_allows_it(model: ModelApi) -> None:
    async with operated(model) as cluster:
        model.put(STORAGE_CLASS, "standard", allowVolumeExpansion=True)
        cluster.apply(size=3, version="3.6.14")
        await cluster.settled()
        cluster.apply(pod=sized("2Gi"))
        await cluster.settled()
        assert sizes(model) == {"2Gi"}


async def test_a_class_without_expansion_refuses_a_larger_volume_until_it_allows_it(model: ModelApi) -> None:
    async with operated(model) as cluster:
        cluster.apply(size=3, version="3.6.14")
        await cluster.settled()
        cluster.apply(pod=sized("2Gi"))
        message = await message_of(cluster, "InvalidSpec")
        assert message.startswith(
            f"{SIZE} is '2Gi': the StorageClass standard does not allow volumes to grow. Set it to 1Gi again"
        )
        await asyncio.sleep(60)
        assert sizes(model) == {"1Gi"}
        cluster.apply(pod=sized("1Gi"))
        await cluster.settled()
        cluster.apply(pod=sized("2Gi"))
        await message_of(cluster, "InvalidSpec")
        model.put(STORAGE_CLASS, "standard", allowVolumeExpansion=True)
        await cluster.settled()
        assert sizes(model) == {"2Gi"}


async def test_a_size_that_the_api_server_refused_can_be_taken_back(model: ModelApi) -> None:
    async with operated(model) as cluster:
        forbid_cluster_scoped(cluster.client)
        cluster.apply(size=3, version="3.6.14")
        await cluster.settled()
        refuse_expansion(cluster.client)
        cluster.apply(pod=sized("2Gi"))
        message = await message_of(cluster, "VolumeNotResized")
        assert "cannot grow from 1Gi to 2Gi" in message
        model.remove(POD, ObjectKey("default", cluster.pods[0]))
        await cluster.until(lambda: len(cluster.status["members"]["ready"]) == 2)
        await cluster.until(lambda: len(cluster.status["members"]["ready"]) == 3, seconds=15)
        cluster.apply(pod=sized("1Gi"))
        await cluster.settled()


@pytest.mark.parametrize("allowed", [True, False])
async def test_a_member_on_a_node_that_does_not_report_is_named_and_kept(
    model: ModelApi, allowed: bool
) -> None:
    async with operated(model) as cluster:
        if not allowed:
            forbid_cluster_scoped(cluster.client)
        cluster.apply(size=3, version="3.6.14")
        await cluster.settled()
        pods, uids = cluster.pods, cluster.uids(POD)
        node = model.read(POD, ObjectKey("default", pods[0]))["spec"]["nodeName"]
        async with cluster.world.writing("example-client"):
            cluster.world.cut_off(model, node)
            await cluster.until(lambda: cluster.condition("Degraded").get("reason") == "NodeUnknown")
            message = cluster.condition("Degraded")["message"]
            assert f"The node {node} does not report, or the operator may not read nodes." in message
            await asyncio.sleep(10)
            reads, writes = len(cluster.client.calls), len(cluster.client.writes)
            await asyncio.sleep(600)
            assert len(cluster.client.calls) - reads <= 10 * 10, "a node is read at most 10 times a minute"
            assert len(cluster.client.writes) == writes
            assert (cluster.pods, cluster.uids(POD)) == (pods, uids)
            assert cluster.condition("Available")["status"] == "True"
            cluster.world.reconnect(model, node)
            await cluster.settled()
        assert cluster.world.lost() == []


async def test_a_node_that_is_not_ready_is_named(model: ModelApi) -> None:
    async with operated(model) as cluster:
        cluster.apply(size=3, version="3.6.14")
        await cluster.settled()
        node = model.read(POD, ObjectKey("default", cluster.pods[0]))["spec"]["nodeName"]
        cluster.world.cut_off(model, node)
        model.put(NODE, node, status={"conditions": [{"type": "Ready", "status": "False"}]})
        await cluster.until(lambda: cluster.condition("Degraded").get("reason") == "NodeNotReady")
        assert f"The node {node} is not ready." in cluster.condition("Degraded")["message"]


PEER_TLS = {"static": {"member": {"peerSecret": "peer"}}}


def peer_secret(authority: Authority, name: str = "member", days: int = DAYS) -> dict[str, str]:
    """Returns the data of a Secret for peers."""
    certificate, key = authority.issue(name, days=days)
    pem = {"peer-ca.crt": authority.ca_file, "peer.crt": certificate, "peer.key": key}
    return {each: base64.b64encode(path.read_bytes()).decode() for each, path in pem.items()}


async def test_a_secret_of_a_running_cluster_that_loses_a_key_is_named_until_it_is_back(
    model: ModelApi, tmp_path: Path
) -> None:
    data = peer_secret(Authority(tmp_path))
    async with operated(model) as cluster:
        model.put(SECRET, "peer", data=data)
        cluster.apply(size=3, version="3.6.14", TLS=PEER_TLS)
        await cluster.settled()
        uids = cluster.uids(POD)
        model.remove(SECRET, ObjectKey("default", "peer"))
        model.put(SECRET, "peer", data={name: text for name, text in data.items() if name != "peer.key"})
        message = await message_of(cluster, "SecretUnusable")
        assert message == "Key peer.key of Secret peer does not exist. Add it in PEM format."
        await asyncio.sleep(120)
        assert cluster.uids(POD) == uids
        model.put(SECRET, "peer", data=data)
        await cluster.settled()


async def test_a_certificate_that_expires_soon_is_a_warning_that_costs_nothing(
    model: ModelApi, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    old, renewed = peer_secret(authority, "old", 10), peer_secret(authority, "renewed", 50)
    async with operated(model) as cluster:
        model.put(SECRET, "peer", data=old)
        cluster.apply(size=3, version="3.6.14", TLS=PEER_TLS)
        await cluster.settled()
        warning = cluster.condition("Warning")
        assert warning["reason"] == "CertificateExpires"
        assert warning["message"].startswith("Key peer.crt of Secret peer expires at ")
        uids, status = cluster.uids(POD), cluster.status
        await asyncio.sleep(120)
        assert cluster.status == status
        model.put(SECRET, "peer", data={**renewed, "peer.key": old["peer.key"]})
        message = await message_of(cluster, "SecretUnusable")
        assert message == (
            "Key peer.key of Secret peer does not belong to the certificate in peer.crt. Replace both."
        )
        model.put(SECRET, "peer", data=renewed)
        await cluster.settled()
        assert cluster.condition("Warning")["status"] == "False"
        assert cluster.uids(POD) == uids


async def test_a_broken_secret_hides_members_that_the_kubelet_reports_as_ready(
    model: ModelApi, tmp_path: Path
) -> None:
    data = peer_secret(Authority(tmp_path))
    async with operated(model) as cluster:
        model.put(SECRET, "peer", data=data)
        cluster.apply(size=3, version="3.6.14", TLS=PEER_TLS)
        await cluster.settled()
        members = cluster.status["members"]
        model.put(SECRET, "peer", data={**data, "peer.key": "Z2FyYmFnZQ=="})
        cause = await message_of(cluster, "SecretUnusable")
        assert cause == "Key peer.key of Secret peer is not a private key in PEM format. Replace it."
        await asyncio.sleep(60)
        assert cluster.status["members"] == members
        assert cluster.condition("Available")["status"] == "Unknown"
        assert cluster.condition("Recovering").get("status") != "True"
        progressing, degraded = cluster.condition("Progressing"), cluster.condition("Degraded")
        assert progressing["reason"] == "MembersHidden"
        assert progressing["message"] == f"Waiting until the operator can see the members. {cause}"
        unseen = f"The operator cannot see whether these members serve: {', '.join(cluster.pods)}."
        assert (degraded["reason"], degraded["message"]) == ("SecretUnusable", f"{cause} {unseen}")


async def test_auth_without_a_user_hides_the_members_and_stops_an_upgrade(model: ModelApi) -> None:
    async with operated(model) as cluster:
        cluster.apply(size=3, version="3.6.14")
        await cluster.settled()
        pods, uids = cluster.pods, cluster.uids(POD)
        enable_auth(cluster)
        cluster.apply(version="3.7.3")
        message = await message_of(cluster, "MembersHidden")
        assert "etcd's auth is enabled" in message
        assert "etcdctl auth disable" in message
        await asyncio.sleep(300)
        assert (cluster.pods, cluster.uids(POD)) == (pods, uids)
        assert {each["spec"]["containers"][0]["image"] for each in model.all(POD)} == {
            "quay.io/coreos/etcd:v3.6.14"
        }


async def test_auth_keeps_a_member_whose_volume_is_lost(model: ModelApi) -> None:
    async with operated(model) as cluster:
        cluster.apply(size=3, version="3.6.14")
        await cluster.settled()
        lost, *others = cluster.pods
        enable_auth(cluster)
        model.remove(CLAIM, ObjectKey("default", lost))
        model.remove(POD, ObjectKey("default", lost))
        sentence = f"The volumes of these members are lost: {lost}."
        await cluster.until(lambda: sentence in cluster.condition("Degraded").get("message", ""))
        assert cluster.condition("Ready")["reason"] == "MembersHidden"
        assert cluster.condition("Upgrading").get("status") != "True", "a lost volume has no version"
        await asyncio.sleep(300)
        assert cluster.world.members.changes == []
        assert cluster.pods == others


async def test_a_user_who_may_not_write_stops_the_upgrade_to_3_7_with_the_reason(
    model: ModelApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The operator sees the members, but etcd refuses the entries of `old_logs`."""
    authorize = ModelMember._authorize

    def only_observe(self: ModelMember, process: Any, *, observes: bool = False) -> None:
        if not observes:
            authorize(self, process)

    async with operated(model) as cluster:
        cluster.apply(size=3, version="3.6.14")
        await cluster.settled()
        monkeypatch.setattr(ModelMember, "_authorize", only_observe)
        enable_auth(cluster)
        cluster.apply(version="3.7.3")
        message = await message_of(cluster, "PermissionDenied")
        assert message.startswith("The operator cannot write entries to etcd's log, so that 3.7 can read it:")
        assert "role root" in message
        await asyncio.sleep(60)
        assert cluster.status["currentVersion"] == "3.6.14"
        assert cluster.condition("Available")["status"] == "True"
        monkeypatch.setattr(ModelMember, "_authorize", lambda *arguments, **options: None)
        await cluster.settled()
        assert cluster.status["currentVersion"] == "3.7.3"


async def test_a_client_certificate_that_the_members_refuse_hides_them(
    model: ModelApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any, **options: Any) -> None:
        text = "it closed the new connection; it may not trust the operator's client certificate"
        raise TlsFailed(f"etcd at example-a (10.0.0.1:2379) cannot be reached: {text}", maybe_executed=True)

    async with operated(model) as cluster:
        cluster.apply(size=3, version="3.6.14")
        await cluster.settled()
        uids = cluster.uids(POD)
        monkeypatch.setattr(ModelMember, "_authorize", refuse)
        message = await message_of(cluster, "MembersHidden")
        assert message.startswith("Etcd at example-a (10.0.0.1:2379) cannot be reached: ")
        assert message.endswith("client certificate. Check the Secrets in spec.TLS.static.")
        await asyncio.sleep(300)
        assert cluster.uids(POD) == uids
        monkeypatch.undo()
        await cluster.settled()


def enable_auth(cluster: Operated) -> None:
    leader = cluster.world.running(cluster.status["leader"])
    cluster.world.members.propose(leader, EnableAuth())
