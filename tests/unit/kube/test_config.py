"""Addresses and credentials: from a service account's files, and from kubeconfigs."""

import asyncio
import ssl
import subprocess

import pytest

from pilothouse.kube import ClientConfig, ConfigError, FileToken
from tests.unit.kube.authority import Authority
from tests.unit.kube.kubeconfigs import kubeconfig


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """Returns a CA certificate without the key usage that Python 3.13 requires, as in some clouds."""
    folder = tmp_path_factory.mktemp("ca")
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    files = ["-keyout", folder / "ca.key", "-out", folder / "ca.crt", "-subj", "/CN=test-ca", "-days", "2"]
    subprocess.run([*make, *files], check=True, capture_output=True)
    return folder


@pytest.fixture
def service_account(authority, tmp_path, monkeypatch):
    (tmp_path / "ca.crt").write_bytes((authority / "ca.crt").read_bytes())
    (tmp_path / "token").write_text("s3cret\n")
    (tmp_path / "namespace").write_text("operators")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    return tmp_path


async def test_in_cluster(service_account):
    config = ClientConfig.in_cluster(service_account)
    assert (config.server, config.namespace) == ("https://10.96.0.1:443", "operators")
    assert config.tls is not None
    assert config.tls.context().verify_mode is ssl.CERT_REQUIRED
    assert config.tls.context().check_hostname
    assert not config.tls.context().verify_flags & ssl.VERIFY_X509_STRICT
    assert config.token is not None
    assert await config.token.token() == "s3cret"
    assert "s3cret" not in repr(config)


def test_in_cluster_over_ipv6(service_account, monkeypatch):
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    assert ClientConfig.in_cluster(service_account).server == "https://[fd00::1]:443"


def test_outside_of_a_cluster(service_account, monkeypatch):
    monkeypatch.delenv("KUBERNETES_SERVICE_PORT")
    with pytest.raises(ConfigError, match=r"KUBERNETES_SERVICE_PORT is not set, so .* not run in a pod"):
        ClientConfig.in_cluster(service_account)


@pytest.mark.parametrize("missing", ["ca.crt", "namespace", "token"])
def test_without_a_service_account(service_account, missing):
    (service_account / missing).unlink()
    with pytest.raises(ConfigError, match="automountServiceAccountToken"):
        ClientConfig.in_cluster(service_account)


async def test_rotated_files_of_a_service_account_are_read_again(service_account, tmp_path_factory):
    """The kubelet rotates the token each hour, and a cluster its CA."""
    config = ClientConfig.in_cluster(service_account)
    assert config.tls is not None
    assert config.token is not None
    before = config.tls.context()
    assert await config.token.token() == "s3cret"
    (service_account / "token").write_text("rotated\n")
    Authority(tmp_path_factory.mktemp("other")).ca_file.replace(service_account / "ca.crt")
    assert await config.token.token(refused=True) == "rotated"
    assert config.tls.context(refused=True) is not before
    for name in ("token", "ca.crt"):
        (service_account / name).unlink()
    assert await config.token.token(refused=True) == "rotated", "the earlier token is kept"
    assert config.tls.context(refused=True)


async def test_a_file_token_is_read_again_each_minute(virtual_time, tmp_path):
    path = tmp_path / "token"
    path.write_text("one\n")
    source = FileToken(path)
    assert await source.token() == "one"
    path.write_text("two\n")
    await asyncio.sleep(59)
    assert await source.token() == "one"
    await asyncio.sleep(2)
    assert await source.token() == "two"
    path.write_text("three\n")
    assert await source.token(refused=True) == "three"
    path.unlink()
    assert await source.token(refused=True) == "three", "the earlier token is kept"


async def test_a_missing_token_file_names_the_file(virtual_time, tmp_path):
    with pytest.raises(ConfigError, match=str(tmp_path / "token")):
        await FileToken(tmp_path / "token").token()


def test_load_prefers_the_pod(service_account, monkeypatch, tmp_path):
    monkeypatch.setattr("pilothouse.kube.config.SERVICE_ACCOUNT", service_account)
    assert ClientConfig.load().namespace == "operators"
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST")
    monkeypatch.setenv("KUBECONFIG", kubeconfig(tmp_path, {}))
    assert ClientConfig.load().server == "https://c.example:6443"
