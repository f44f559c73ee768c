"""TLS between the client of etcd and a server that requires client certificates."""

import asyncio
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from etcd_operator import errors
from etcd_operator.client import ConnectionPool
from etcd_operator.etcd import Connections, Credentials, Endpoint, Etcd
from etcd_operator.rpc import rpc_pb2 as pb
from pilothouse import ObjectKey
from tests.unit.etcd.fake_member import NAME, FakeMember
from tests.unit.kube.authority import Authority

CLUSTER = ObjectKey("default", "example")
# The only name in the certificates of coreos clusters, next to a few for clients.
WILDCARD = "DNS:*.example.default.svc"


def credentials(authority: Authority, client: Authority | None = None) -> Credentials:
    """Credentials that trust one authority, with a client certificate of the same or of another one."""
    certificate, key = (client or authority).issue("client")
    return Credentials(authority.ca_file.read_text(), certificate.read_text(), key.read_text())


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("other-ca"))


@pytest.fixture
async def member(authority: Authority) -> AsyncIterator[FakeMember]:
    fake = FakeMember()
    fake.will("Status", pb.StatusResponse(version="3.6.14"))
    await fake.start(authority.server_context("server", WILDCARD))
    yield fake
    await fake.stop()


@pytest.fixture
async def pool() -> AsyncIterator[Connections]:
    async with ConnectionPool() as pool:
        yield pool
    await asyncio.sleep(0)


@pytest.fixture
def connect(pool: Connections) -> Callable[[Endpoint, Credentials | None], Etcd]:
    return lambda endpoint, trusted: pool.members(CLUSTER, [endpoint], trusted)[endpoint]


async def test_the_certificate_is_verified_against_the_name_of_the_pod(authority, member, connect):
    etcd = connect(member.endpoint, credentials(authority))
    assert (await etcd.status()).version == "3.6.14"


async def test_a_certificate_for_another_name_is_refused(authority, member, connect):
    wrong = Endpoint("127.0.0.1", "other-0.other.default.svc", member.port)
    with pytest.raises(errors.TlsFailed) as caught:
        await connect(wrong, credentials(authority)).status()
    assert str(caught.value) == (
        f"the TLS handshake with etcd at other-0.other.default.svc (127.0.0.1:{member.port}) failed: "
        "Hostname mismatch, certificate is not valid for 'other-0.other.default.svc'"
    )
    assert not caught.value.maybe_executed


async def test_a_certificate_of_another_authority_is_refused(authority, stranger, member, connect):
    with pytest.raises(errors.TlsFailed, match=r"failed: unable to get local issuer certificate|self-signed"):
        await connect(member.endpoint, credentials(stranger, client=authority)).status()


async def test_a_client_certificate_that_the_member_does_not_trust(authority, stranger, member, connect):
    with pytest.raises(errors.TlsFailed, match="may not trust the operator's client certificate"):
        await connect(member.endpoint, credentials(authority, client=stranger)).status()


async def test_a_member_with_tls_refuses_plain_text(member, connect):
    with pytest.raises(errors.Unreachable, match="it may require TLS"):
        await connect(member.endpoint, None).status()


async def test_a_member_without_tls_fails_the_handshake(authority, member, connect):
    await member.stop()
    await member.start()
    with pytest.raises(errors.TlsFailed, match=r"^the TLS handshake with etcd at .* failed: [a-z ]+$"):
        await connect(member.endpoint, credentials(authority)).status()


async def test_a_deadline_during_the_handshake_has_executed_nothing(authority, connect):
    opened, closed = asyncio.Event(), asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        opened.set()
        await reader.read()
        closed.set()
        writer.close()

    async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
        endpoint = Endpoint("127.0.0.1", NAME, server.sockets[0].getsockname()[1])
        trusted = credentials(authority)
        while not opened.is_set():  # on a busy machine, the first one may end before it has connected
            with pytest.raises(errors.DeadlineExceeded) as caught:
                await connect(endpoint, trusted).member_add(["http://b:2380"], deadline=0.05)
            assert not caught.value.maybe_executed
        await closed.wait()


async def test_changed_credentials_replace_all_connections(authority, stranger, member, connect):
    old = credentials(authority)
    before = connect(member.endpoint, old)
    await before.status()
    await member.stop()
    await member.start(stranger.server_context("server", WILDCARD))
    with pytest.raises(errors.TlsFailed):
        await connect(member.endpoint, old).status()
    new = connect(member.endpoint, credentials(stranger))
    assert new is not before
    assert (await new.status()).version == "3.6.14"
    with pytest.raises(errors.Unreachable, match="has closed the connection"):
        await before.status()


async def test_the_same_credentials_keep_the_connections(authority, member, pool):
    trusted = credentials(authority)
    copy = Credentials(trusted.ca, trusted.certificate, trusted.key)
    before = pool.members(CLUSTER, [member.endpoint], trusted)
    assert pool.members(CLUSTER, [member.endpoint], copy) == before


def test_the_key_is_not_in_the_text_of_credentials():
    assert "secret" not in repr(Credentials("ca", "certificate", "secret"))


@pytest.mark.parametrize("text", ["", " \n", "nonsense", "-----BEGIN CERTIFICATE-----\nAAAA\n"])
async def test_an_unusable_ca_is_named(text, authority, member, pool):
    good = credentials(authority)
    with pytest.raises(errors.CredentialsError, match=r"^the CA cannot be used: \S") as caught:
        pool.members(CLUSTER, [member.endpoint], Credentials(text, good.certificate, good.key))
    assert caught.value.part == "ca"


@pytest.mark.parametrize("part", ["certificate", "key", "pair", "encrypted"])
async def test_an_unusable_certificate_is_named(part, authority, stranger, member, pool, tmp_path):
    good, other = credentials(authority), credentials(stranger)
    bad = {
        "certificate": Credentials(good.ca, "nonsense", good.key),
        "key": Credentials(good.ca, good.certificate, "nonsense"),
        "pair": Credentials(good.ca, good.certificate, other.key),
        "encrypted": Credentials(good.ca, good.certificate, encrypted(good.key, tmp_path)),
    }[part]
    with pytest.raises(errors.CredentialsError, match="client certificate or its key cannot be") as caught:
        pool.members(CLUSTER, [member.endpoint], bad)
    assert caught.value.part == "certificate"
    assert not any(line in str(caught.value) for line in bad.key.splitlines())


def encrypted(key: str, folder: Path) -> str:
    file = folder / "encrypted.key"
    words = ["openssl", "pkey", "-aes256", "-passout", "pass:secret", "-out", str(file)]
    subprocess.run(words, input=key, text=True, check=True, capture_output=True)
    return file.read_text()


async def test_unusable_credentials_leave_no_connection_open(authority, member, pool):
    good = credentials(authority)
    before = pool.members(CLUSTER, [member.endpoint], good)
    await before[member.endpoint].status()
    with pytest.raises(errors.CredentialsError):
        pool.members(CLUSTER, [member.endpoint], Credentials("", good.certificate, good.key))
    with pytest.raises(errors.Unreachable, match="has closed the connection"):
        await before[member.endpoint].status()
    await pool.members(CLUSTER, [member.endpoint], good)[member.endpoint].status()
