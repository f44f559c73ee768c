"""Certificates of a running EtcdCluster are renewed on the real node, and their authority is changed."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from devcluster import etcd_images
from devcluster import target as targets
from etcd_operator.blueprint import PEER_PORT
from etcd_operator.certificates import OPERATOR, PEER, SERVER, Layout
from etcd_operator.etcd import CLIENT_PORT
from tests.cluster.etcd import Etcd, EtcdClusterOnNode
from tests.cluster.etcd_tls import CLIENTS, PEERS, SERVERS, TLS, Certificates, put_secret, write_files
from tests.etcd.proof import Access
from tests.etcd_howto import loops
from tests.soak.user import User

pytestmark = [
    pytest.mark.timeout(1800),
    pytest.mark.skipif(bool(targets.elsewhere()), reason="the writer runs in the network of the local node"),
]
NAME = "with-tls"
LAYOUTS = {PEERS: PEER, SERVERS: SERVER, CLIENTS: OPERATOR}
#: The Secrets that the members mount and present, with their ports.
PRESENTED = {PEERS: (PEER, PEER_PORT), SERVERS: (SERVER, CLIENT_PORT)}
CHANGE = "Change the certificate authority"


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    """The authority of the cluster."""
    return Certificates(tmp_path / "authority", NAME)


@pytest.fixture
def cluster(
    etcd: Etcd, tmp_path: Path, certificates: Certificates, request: pytest.FixtureRequest
) -> Iterator[EtcdClusterOnNode]:
    """A healthy cluster with TLS. The files of its client are in the folder `client`.

    The parameter is its version. Default: the newest.
    """
    found = EtcdClusterOnNode(etcd, NAME, tmp_path / "client")
    secrets = certificates.all()
    write_files(tmp_path / "client", secrets[CLIENTS])
    for name, contents in secrets.items():
        put_secret(found, name, contents)
    found.create_with(version=getattr(request, "param", etcd_images.versions()[-1]), TLS=TLS)
    found.settle()
    yield found
    found.wipe()


def leaf(contents: dict[str, str], layout: Layout) -> str:
    """Returns the certificate in the contents of a Secret, without its chain."""
    return contents[layout.certificate].strip()


def presented(cluster: EtcdClusterOnNode, address: str, port: int) -> str:
    """Returns the certificate that a member presents at a port."""
    assert cluster.tls
    files = {"-CAfile": OPERATOR.ca, "-cert": OPERATOR.certificate, "-key": OPERATOR.key}
    options = [word for option, file in files.items() for word in (option, str(cluster.tls / file))]
    command = [*Access.of(cluster.etcd.node).words, "openssl", "s_client"]
    done = subprocess.run(
        [*command, "-connect", f"{address}:{port}", *options],
        input="",
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    _, begin, rest = done.stdout.partition("-----BEGIN CERTIFICATE-----")
    body, end, _ = rest.partition("-----END CERTIFICATE-----")
    return begin + body + end


def until_presented(cluster: EtcdClusterOnNode, secrets: dict[str, dict[str, str]]) -> None:
    """Waits until all members present the certificates of the Secrets: the kubelet has updated the files."""

    def renewed() -> bool:
        return all(
            presented(cluster, pod["status"]["podIP"], port) == leaf(secrets[secret], layout)
            for pod in cluster.pods().values()
            for secret, (layout, port) in PRESENTED.items()
        )

    cluster.until(renewed, "all members present the new certificates")


def restarts(cluster: EtcdClusterOnNode) -> int:
    return sum(each["status"]["containerStatuses"][0]["restartCount"] for each in cluster.pods().values())


def test_renewed_certificates_are_used_without_a_restart(
    cluster: EtcdClusterOnNode, certificates: Certificates, tmp_path: Path
) -> None:
    before, count = cluster.pods(), restarts(cluster)
    uids = cluster.uids()
    stranger = Certificates(tmp_path / "stranger", NAME).client()
    ours = certificates.client()
    with cluster.under_load(tmp_path, planned=True):
        # The operator uses the certificate that is in the Secret now: the members refuse this one.
        put_secret(cluster, CLIENTS, {**stranger, OPERATOR.ca: ours[OPERATOR.ca]})
        cluster.until_reported("Ready", "MembersHidden", "may not trust the operator's client certificate")
        assert cluster.uids() == uids
        put_secret(cluster, CLIENTS, ours)
        cluster.settle()
        secrets = {PEERS: certificates.peer(), SERVERS: certificates.server()}
        for name, contents in secrets.items():
            put_secret(cluster, name, contents)
        until_presented(cluster, secrets)
        assert (cluster.uids(), restarts(cluster)) == (uids, count)
        gone = min(before)
        cluster.delete("pod", gone)
        cluster.until_replaced(before, gone)
        cluster.settle()
        lost = max(before)
        cluster.delete("pod,pvc", lost)
        cluster.settle(without=lost)


def test_a_secret_that_is_deleted_is_named_and_its_members_are_kept(
    cluster: EtcdClusterOnNode, certificates: Certificates, tmp_path: Path
) -> None:
    before = cluster.pods()
    gone = min(before)
    with cluster.under_load(tmp_path, planned=True):
        cluster.kubectl("delete", "secret", SERVERS)
        cluster.until_reported("Ready", "SecretUnusable", f"Secret {SERVERS} does not exist.")
        # Its new pod cannot mount the Secret. The others serve.
        cluster.delete("pod", gone)
        cluster.until_replaced(before, gone)
        cluster.until_reported("Degraded", "SecretUnusable", f"The pod {gone} ")
        assert cluster.pods().keys() == before.keys()
        put_secret(cluster, SERVERS, certificates.server())
        cluster.settle()
    assert cluster.pods().keys() == before.keys()


def test_the_authority_is_changed_in_two_steps(
    cluster: EtcdClusterOnNode, certificates: Certificates, tmp_path: Path
) -> None:
    successor = Certificates(tmp_path / "successor", NAME)
    old, new = certificates.all(), successor.all()
    both = certificates.authority.ca_file.read_text() + successor.authority.ca_file.read_text()
    first, second = (
        {name: {**contents, LAYOUTS[name].ca: both} for name, contents in each.items()} for each in (old, new)
    )
    names = sorted(cluster.pods())
    (tmp_path / "user").mkdir()
    shell = User(cluster, tmp_path / "user", {"example-etcd-cluster": NAME})
    [restart] = loops("tls.md", CHANGE)
    # This client has the new authority beside the old one, and keeps its certificate.
    write_files(tmp_path / "client", first[CLIENTS])
    with cluster.under_load(tmp_path, planned=True):
        for name, contents in first.items():
            put_secret(cluster, name, contents)
        cluster.until_reported("Warning", "AuthoritiesChanged", *names)
        shell.run(restart)
        cluster.until(lambda: not warned(cluster), "all members use both authorities")
        for name, contents in second.items():
            put_secret(cluster, name, contents)
        until_presented(cluster, second)
        cluster.settle()
    write_files(tmp_path / "client", new[CLIENTS])
    (tmp_path / "last").mkdir()
    with cluster.under_load(tmp_path / "last", planned=True):
        for name, contents in new.items():
            put_secret(cluster, name, contents)
        cluster.until_reported("Warning", "AuthoritiesChanged", *names)
        shell.run(restart)
        cluster.until(lambda: not warned(cluster), "all members use the new authority")
        cluster.settle()
    assert sorted(cluster.pods()) == names


@pytest.mark.parametrize("cluster", [etcd_images.versions()[1]], indirect=True)
def test_a_replaced_authority_is_reported_and_restarts_nothing(
    cluster: EtcdClusterOnNode, certificates: Certificates, tmp_path: Path
) -> None:
    """The other members would refuse a restarted one, so that two restarts would cost the quorum."""
    target = etcd_images.versions()[2]
    earlier, successor = certificates.peer(), Certificates(tmp_path / "successor", NAME)
    names, uids, count = sorted(cluster.pods()), cluster.uids(), restarts(cluster)
    with cluster.under_load(tmp_path, planned=True):
        put_secret(cluster, PEERS, successor.peer())
        cluster.until_reported("Warning", "AuthoritiesChanged", *names)
        cluster.change(version=target)
        cluster.until_reported("Ready", "AuthoritiesReplaced", PEERS, *names)
        # The operator goes on with what needs no restart.
        cluster.change(pod={"labels": {"replaced": "yes"}})
        cluster.until(
            lambda: all(each["metadata"]["labels"].get("replaced") for each in cluster.pods().values()),
            "the pods have the label",
        )
        cluster.until_reported("Ready", "AuthoritiesReplaced")
        assert cluster.condition("Available")["status"] == "True"
        assert (cluster.uids(), restarts(cluster)) == (uids, count)
        put_secret(cluster, PEERS, earlier)
        # The first restarted member may have to wait until the kubelet has updated the files of the others.
        cluster.settle(version=target)
    assert cluster.uids() == uids  # The images are patched in place.


def warned(cluster: EtcdClusterOnNode) -> bool:
    return "AuthoritiesChanged" in cluster.reason("Warning")
