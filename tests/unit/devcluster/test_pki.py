import base64
import json
import ssl
from pathlib import Path

import pytest

from devcluster import pki
from devcluster.pki import Authority
from devcluster.shell import run


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    authority = Authority(tmp_path / "pki", "ca")
    authority.ensure("/CN=test-ca")
    return authority


def leaf(authority: Authority) -> Path:
    return authority.folder / "server.crt"


def text_of(certificate: Path) -> str:
    return run(["openssl", "x509", "-noout", "-text", "-in", certificate], timeout=10)


def test_certificates_have_the_extensions_for_strict_verification(authority: Authority) -> None:
    authority.sign(authority.folder, "server", "/O=group/CN=server", ["DNS:localhost", "IP:127.0.0.1"])
    root, signed = text_of(authority.certificate), text_of(leaf(authority))
    assert "CA:TRUE" in root
    assert "Certificate Sign, CRL Sign" in root
    for extension in (
        "CA:FALSE",
        "Digital Signature",
        "Authority Key Identifier",
        "DNS:localhost, IP Address:127.0.0.1",
    ):
        assert extension in signed


def test_a_strict_client_accepts_the_server(authority: Authority) -> None:
    authority.sign(authority.folder, "server", "/CN=server", ["DNS:localhost"])
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(leaf(authority), (authority.folder / "server.key"))
    client_context = ssl.create_default_context(cafile=str(authority.certificate))
    client_context.verify_flags |= ssl.VERIFY_X509_STRICT  # CPython 3.13's default
    pipes = [ssl.MemoryBIO() for _ in range(2)]
    client = client_context.wrap_bio(pipes[0], pipes[1], server_hostname="localhost")
    server = server_context.wrap_bio(pipes[1], pipes[0], server_side=True)
    for side in (client, server, client, server):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    assert client.version() == "TLSv1.3"


def test_a_certificate_is_created_once_and_again_for_other_names(authority: Authority) -> None:
    authority.sign(authority.folder, "server", "/CN=server", ["IP:10.0.0.1"])
    first = leaf(authority).read_bytes()
    authority.sign(authority.folder, "server", "/CN=server", ["IP:10.0.0.1"])
    assert leaf(authority).read_bytes() == first
    authority.sign(authority.folder, "server", "/CN=server", ["IP:10.0.0.2"])
    assert "10.0.0.2" in text_of(leaf(authority))


def test_a_certificate_that_expires_soon_is_renewed(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pki, "_LEAF_DAYS", 30)
    authority.sign(authority.folder, "server", "/CN=server")
    first = leaf(authority).read_bytes()
    monkeypatch.setattr(pki, "_LEAF_DAYS", 730)
    authority.sign(authority.folder, "server", "/CN=server")
    second = leaf(authority).read_bytes()
    authority.sign(authority.folder, "server", "/CN=server")
    assert first != second == leaf(authority).read_bytes()


def test_an_authority_is_never_replaced(authority: Authority) -> None:
    first = authority.certificate.read_bytes()
    authority.ensure("/CN=another")
    assert authority.certificate.read_bytes() == first


def test_a_kubeconfig_is_complete_and_private(authority: Authority) -> None:
    authority.sign(authority.folder, "admin", "/O=system:masters/CN=admin")
    authority.kubeconfig(authority.folder, "admin", "10.0.0.1:6443")
    file = authority.folder / "admin.conf"
    document = json.loads(file.read_text())
    assert document["clusters"][0]["cluster"]["server"] == "https://10.0.0.1:6443"
    key = base64.b64decode(document["users"][0]["user"]["client-key-data"])
    assert key == (authority.folder / "admin.key").read_bytes()
    assert file.stat().st_mode & 0o077 == 0
