"""Addresses and credentials: from a service account's files, and from kubeconfigs."""

import asyncio
import json
import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pilothouse.kube import ClientConfig, CommandToken, ConfigError, FileToken


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """A CA certificate such as some clouds make: without the key usage that Python 3.13 asks for."""
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
    with pytest.raises(ConfigError, match=r"KUBERNETES_SERVICE_PORT is not set: .* not run in a pod"):
        ClientConfig.in_cluster(service_account)


@pytest.mark.parametrize("missing", ["ca.crt", "namespace"])
def test_without_a_service_account(service_account, missing):
    (service_account / missing).unlink()
    with pytest.raises(ConfigError, match="automountServiceAccountToken"):
        ClientConfig.in_cluster(service_account)


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
    assert await source.token(refused=True) == "three", "better an old token than none"


async def test_a_missing_token_file_names_the_file(virtual_time, tmp_path):
    with pytest.raises(ConfigError, match=str(tmp_path / "token")):
        await FileToken(tmp_path / "token").token()


async def test_a_command_token_runs_in_a_thread_each_minute(virtual_time):
    made = ["three", "two", "one"]
    source = CommandToken(made.pop)
    assert [await source.token(), await source.token()] == ["one", "one"]
    await asyncio.sleep(61)
    assert await source.token() == "two"
    assert await source.token(refused=True) == "three"
    with pytest.raises(ConfigError, match="could not be renewed"):
        await source.token(refused=True)


def kubeconfig(folder: Path, user: dict[str, Any], **cluster: Any) -> str:
    path = folder / "kubeconfig"
    path.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "c", "cluster": {"server": "https://c.example:6443/", **cluster}}],
                "users": [{"name": "u", "user": user}],
                "contexts": [
                    {"name": "plain", "context": {"cluster": "c", "user": "u"}},
                    {"name": "named", "context": {"cluster": "c", "user": "u", "namespace": "mine"}},
                ],
                "current-context": "plain",
            }
        )
    )
    return str(path)


async def test_kubeconfig_with_a_token(authority, tmp_path):
    ca = {"certificate-authority": str(authority / "ca.crt"), "tls-server-name": "kubernetes"}
    path = kubeconfig(tmp_path, {"token": "t-1"}, **ca)
    config = ClientConfig.from_kubeconfig(path)
    assert (config.server, config.namespace) == ("https://c.example:6443", "default")
    assert config.server_hostname == "kubernetes"
    assert config.token is not None
    assert await config.token.token() == "t-1"
    assert ClientConfig.from_kubeconfig(path, "named").namespace == "mine"


async def test_kubeconfig_with_an_exec_plugin(tmp_path):
    credential = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": {"token": "made"},
    }
    plugin = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": "echo",
        "args": [json.dumps(credential)],
        "interactiveMode": "Never",
    }
    config = ClientConfig.from_kubeconfig(kubeconfig(tmp_path, {"exec": plugin}))
    assert config.token is not None
    assert await config.token.token() == "made"


def test_kubeconfig_with_a_client_certificate(authority, tmp_path):
    user = {"client-certificate": str(authority / "ca.crt"), "client-key": str(authority / "ca.key")}
    config = ClientConfig.from_kubeconfig(kubeconfig(tmp_path, user))
    assert config.token is None
    assert config.tls is not None


def test_kubeconfig_that_trusts_anybody(tmp_path):
    config = ClientConfig.from_kubeconfig(kubeconfig(tmp_path, {}, **{"insecure-skip-tls-verify": True}))
    assert config.tls is not None
    assert config.tls.context().verify_mode is ssl.CERT_NONE


def test_kubeconfig_with_a_proxy(tmp_path, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://downloads.example:1")
    assert ClientConfig.from_kubeconfig(kubeconfig(tmp_path, {})).proxy == ""
    proxied = kubeconfig(tmp_path, {}, **{"proxy-url": "http://user:pass@proxy.example:3128"})
    assert ClientConfig.from_kubeconfig(proxied).proxy == "http://user:pass@proxy.example:3128"


def test_kubeconfig_with_a_proxy_that_is_not_supported(tmp_path):
    path = kubeconfig(tmp_path, {}, **{"proxy-url": "socks5://user:s3cret@proxy.example:1080"})
    with pytest.raises(ConfigError, match="socks5 proxy, and only http and https ones are") as caught:
        ClientConfig.from_kubeconfig(path)
    assert "s3cret" not in str(caught.value)


def test_a_missing_kubeconfig_says_what_to_set(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.yaml cannot be used.*set KUBECONFIG"):
        ClientConfig.from_kubeconfig(str(tmp_path / "none.yaml"))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"foo",
        b"[1, 2]",
        b"kaputt: [",
        b"a: 'secret\n",
        b"\xff\xfe\x00",
        b"contexts: 5\ncurrent-context: c",
        b"contexts: [{name: c}]\ncurrent-context: c",
        b"clusters: [{name: c, cluster: {server: foo}}]\nusers: [{name: u, user: {}}]\n"
        b"contexts: [{name: c, context: {cluster: c, user: u}}]\ncurrent-context: c",
        b"clusters: [{name: c, cluster: {server: 5}}]\nusers: [{name: u, user: {}}]\n"
        b"contexts: [{name: c, context: {cluster: c, user: u}}]\ncurrent-context: c",
    ],
)
def test_what_is_no_kubeconfig_is_one_sentence(tmp_path, content):
    path = tmp_path / "kubeconfig"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        ClientConfig.from_kubeconfig(str(path))
    sentence = str(caught.value)
    assert sentence.startswith(f"the kubeconfig {path} cannot be used: ")
    assert sentence.endswith("; set KUBECONFIG to a file that kubectl can use")
    assert "\n" not in sentence
    assert "secret" not in sentence


def test_a_folder_is_no_kubeconfig(tmp_path):
    with pytest.raises(ConfigError, match=f"the kubeconfig {tmp_path} cannot be used: .*set KUBECONFIG"):
        ClientConfig.from_kubeconfig(str(tmp_path))


def test_a_bad_certificate_is_said(tmp_path):
    (tmp_path / "bad.crt").write_text("not a certificate")
    path = kubeconfig(tmp_path, {}, **{"certificate-authority": str(tmp_path / "bad.crt")})
    with pytest.raises(ConfigError, match="kubeconfig cannot be used: a certificate of it cannot be loaded"):
        ClientConfig.from_kubeconfig(path)


def test_load_prefers_the_pod(service_account, monkeypatch, tmp_path):
    monkeypatch.setattr("pilothouse.kube.config.SERVICE_ACCOUNT", service_account)
    assert ClientConfig.load().namespace == "operators"
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST")
    monkeypatch.setenv("KUBECONFIG", kubeconfig(tmp_path, {}))
    assert ClientConfig.load().server == "https://c.example:6443"
