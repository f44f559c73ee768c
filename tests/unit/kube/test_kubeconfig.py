"""Kubeconfigs: a feature of kubectl is supported, or refused by name in one sentence."""

import base64
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from pilothouse.kube import Client, ClientConfig, ConfigError, TlsFiles
from pilothouse.kube.exec_plugin import ExecPlugin
from tests.unit.kube.authority import Authority
from tests.unit.kube.conftest import ScriptedServer
from tests.unit.kube.kubeconfigs import kubeconfig

Load = Callable[..., ClientConfig]
EXEC = {
    "apiVersion": "client.authentication.k8s.io/v1",
    "command": "./bin/plugin",
    "interactiveMode": "Never",
}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Returns a function that loads a kubeconfig with a user and fields of its cluster."""

    def loaded(user: dict[str, Any] | None = None, **cluster: Any) -> ClientConfig:
        return ClientConfig.from_kubeconfig(kubeconfig(tmp_path, user or {}, **cluster))

    return loaded


def in_base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


async def test_a_token_and_the_name_in_the_servers_certificate(load: Load, authority: Authority) -> None:
    ca = {"certificate-authority": str(authority.ca_file), "tls-server-name": "kubernetes"}
    config = load({"token": "tok3n"}, **ca)
    assert (config.server, config.namespace) == ("https://c.example:6443", "default")
    assert config.server_hostname == "kubernetes"
    assert config.token is not None
    assert await config.token.token() == "tok3n"
    assert "tok3n" not in repr(config)


def test_a_context_is_chosen_by_name(tmp_path: Path) -> None:
    assert ClientConfig.from_kubeconfig(kubeconfig(tmp_path, {}), "named").namespace == "mine"
    with pytest.raises(ConfigError, match=r"it has no context 'other'.*it has 'plain', 'named'"):
        ClientConfig.from_kubeconfig(kubeconfig(tmp_path, {}), "other")


def test_certificates_may_be_data(load: Load, authority: Authority) -> None:
    certificate, key = authority.issue("data")
    user = {"client-certificate-data": in_base64(certificate), "client-key-data": in_base64(key)}
    config = load(user, **{"certificate-authority-data": in_base64(authority.ca_file)})
    assert isinstance(config.tls, TlsFiles)
    assert config.tls.context().verify_mode is ssl.CERT_REQUIRED
    assert config.tls.cert_data == certificate.read_text()
    assert "PRIVATE KEY" not in repr(config)


async def test_relative_paths_are_relative_to_the_file(
    tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = authority.issue("relative")
    for source, name in ((authority.ca_file, "ca"), (certificate, "crt"), (key, "key")):
        (tmp_path / name).write_bytes(source.read_bytes())
    (tmp_path / "token").write_text("rotated\n")
    user = {"client-certificate": "crt", "client-key": "./key", "tokenFile": "token"}
    kubeconfig(tmp_path, user, **{"certificate-authority": "ca"})
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    config = ClientConfig.from_kubeconfig("../kubeconfig")
    assert isinstance(config.tls, TlsFiles)
    assert config.tls.context()
    assert config.token is not None
    assert await config.token.token() == "rotated"
    (tmp_path / "token").write_text("again\n")
    assert await config.token.token(refused=True) == "again"


def test_a_server_may_have_a_path(load: Load) -> None:
    assert load(server="https://rancher.example/k8s/clusters/c-1/").server.endswith("/k8s/clusters/c-1")


def test_a_cluster_without_certificate_verification(load: Load) -> None:
    config = load(**{"insecure-skip-tls-verify": True})
    assert config.tls is not None
    assert config.tls.context().verify_mode is ssl.CERT_NONE


def test_compression_is_never_requested(load: Load) -> None:
    assert load(**{"disable-compression": True})


def test_a_context_without_a_user_is_anonymous(tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text(
        "clusters: [{name: c, cluster: {server: 'https://c'}}]\n"
        "contexts: [{name: x, context: {cluster: c, user: null}}]\nusers: null\ncurrent-context: x\n"
    )
    config = ClientConfig.from_kubeconfig(str(path))
    assert (config.token, config.headers) == (None, ())


async def test_basic_authentication_and_impersonation_are_headers(
    server: ScriptedServer, tmp_path: Path
) -> None:
    user = {
        "username": "me",
        "password": "s3cret",
        "as": "jane",
        "as-uid": "u-1",
        "as-groups": ["dev", "ops"],
        "as-user-extra": {"Acme.com/Project": ["a", "b"]},
    }
    config = ClientConfig.from_kubeconfig(kubeconfig(tmp_path, user))
    assert "s3cret" not in repr(config)
    server.will(web.json_response({}))
    reached = ClientConfig(server=server.url, headers=config.headers)
    async with Client(reached, user_agent="tests/1") as client:
        await client.request("POST", "/x", body={})
    sent = server.requests[0].headers
    assert sent["Authorization"] == "Basic " + base64.b64encode(b"me:s3cret").decode()
    assert (sent["Impersonate-User"], sent["Impersonate-Uid"]) == ("jane", "u-1")
    assert sent.getall("Impersonate-Group") == ["dev", "ops"]
    assert sent.getall("Impersonate-Extra-acme.com%2Fproject") == ["a", "b"]
    assert sent["User-Agent"] == "tests/1"


def test_credentials_are_not_sent_in_the_clear(load: Load, caplog: pytest.LogCaptureFixture) -> None:
    """Same as in kubectl."""
    config = load({"token": "t"}, server="http://c.example:8080")
    assert (config.tls, config.token) == (None, None)
    assert "Not sending the credentials of user 'u'" in caplog.text


@pytest.mark.parametrize(
    ("variables", "proxy"),
    [
        ({"HTTPS_PROXY": "http://p:1"}, "http://p:1"),
        ({"https_proxy": "p:1"}, "http://p:1"),
        ({"HTTP_PROXY": "http://p:1"}, ""),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "c.example"}, ""),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "other, .example"}, ""),
        ({"HTTPS_PROXY": "http://p:1", "no_proxy": "example"}, ""),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": ".c.example"}, "http://p:1"),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "c.example:6443"}, ""),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "c.example:443"}, "http://p:1"),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "*"}, ""),
    ],
)
def test_the_proxy_of_the_environment(
    load: Load, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], proxy: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert load().proxy == proxy
    assert load(**{"proxy-url": "http://user:pass@own:3128"}).proxy == "http://user:pass@own:3128"


@pytest.mark.parametrize(
    ("host", "excepted", "is_proxied"),
    [
        ("10.96.0.1", "10.96.0.0/12", False),
        ("10.96.0.1", "10.0.0.0/16", True),
        ("10.96.0.1", "10.96.0.1:6443", False),
        ("10.96.0.1", "10.96.0.1:443", True),
        ("[fd00::1]", "fd00::/8", False),
        ("[fd00::1]", "fd00::1", False),
        ("[fd00::1]", "[fd00::1]:6443", False),
        ("127.0.0.1", "", False),
        ("localhost", "", False),
        ("[::1]", "", False),
        ("10.96.0.1", "nonsense/99,", True),
    ],
)
def test_networks_and_addresses_without_a_proxy(
    load: Load, monkeypatch: pytest.MonkeyPatch, host: str, excepted: str, is_proxied: bool
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://p:1")
    monkeypatch.setenv("NO_PROXY", excepted)
    assert bool(load(server=f"https://{host}:6443").proxy) is is_proxied


def write(path: Path, content: str) -> Path:
    path.write_text(content)
    return path


def entries(server: str, token: str) -> str:
    return (
        f"clusters: [{{name: c, cluster: {{server: '{server}'}}}}]\n"
        f"users: [{{name: u, user: {{token: {token}}}}}]\n"
        "contexts: [{name: x, context: {cluster: c, user: u}}]\n"
    )


async def test_the_first_of_several_files_that_defines_a_name_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = write(tmp_path / "first", entries("https://first", "one"))
    empty = write(tmp_path / "empty", "")
    second = write(tmp_path / "second", entries("https://second", "two") + "current-context: x\n")
    listed = [str(tmp_path / "missing"), str(empty), "", str(first), str(second)]
    monkeypatch.setenv("KUBECONFIG", ":".join(listed))
    config = ClientConfig.from_kubeconfig()
    assert config.server == "https://first"
    assert config.token is not None
    assert await config.token.token() == "one"


def test_the_parts_of_a_context_may_be_in_several_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, authority: Authority
) -> None:
    folder = tmp_path / "clusters"
    folder.mkdir()
    (folder / "ca").write_bytes(authority.ca_file.read_bytes())
    clusters = write(
        folder / "c", "clusters: [{name: c, cluster: {server: 'https://c', certificate-authority: ca}}]"
    )
    rest = write(
        tmp_path / "rest",
        "contexts: [{name: x, context: {cluster: c, user: u}}]\nusers: [{name: u, user: {token: t}}]\n"
        "current-context: x\n",
    )
    monkeypatch.setenv("KUBECONFIG", f"{rest}:{clusters}")
    config = ClientConfig.from_kubeconfig()
    assert isinstance(config.tls, TlsFiles)
    assert config.tls.ca_file == str(folder / "ca"), "relative to the file that names it"


def test_without_any_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path}/a:{tmp_path}/b")
    with pytest.raises(
        ConfigError, match=r"^KUBECONFIG is .*/b', but none of these files exists; set KUBECONFIG"
    ):
        ClientConfig.from_kubeconfig()
    monkeypatch.delenv("KUBECONFIG")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ConfigError, match=f"the kubeconfig {tmp_path}/.kube/config cannot be used: No such"):
        ClientConfig.from_kubeconfig()


def test_json_does_not_require_pyyaml_and_may_contain_tabs(tmp_path: Path) -> None:
    path = Path(kubeconfig(tmp_path, {"token": "t"}))
    path.write_bytes(b"\xef\xbb\xbf" + path.read_text().replace(", ", ",\n\t").encode())
    assert ClientConfig.from_kubeconfig(str(path)).token is not None


def test_unknown_fields_are_named(load: Load, caplog: pytest.LogCaptureFixture) -> None:
    load({"tokne": "s3cret", "exec": {**EXEC, "installHnt": "x"}}, **{"certificate-authority-dta": "x"})
    said = caplog.text
    assert "Ignoring unknown fields of the kubeconfig" in said
    assert "certificate-authority-dta of cluster 'c'" in said
    assert "tokne, installHnt of user 'u'" in said
    assert "s3cret" not in said


BOTH = {"certificate-authority": "x", "certificate-authority-data": "eA=="}
REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "socks": (
        {},
        {"proxy-url": "socks5://user:s3cret@p:1"},
        "cluster 'c': its proxy-url has the scheme socks5, but only http and https",
    ),
    "proxy without a scheme": ({}, {"proxy-url": "s3cret:1"}, "cluster 'c': its proxy-url is not a URL"),
    "auth-provider": (
        {"auth-provider": {"name": "oidc", "config": {"id-token": "s3cret"}}},
        {},
        "user 'u': its auth-provider 'oidc' is not supported: use an exec plugin",
    ),
    "two CAs": ({}, BOTH, "cluster 'c': it has both certificate-authority and certificate-authority-data"),
    "a CA for nothing": (
        {},
        {"certificate-authority-data": "eA==", "insecure-skip-tls-verify": True},
        "cluster 'c': it has both a certificate-authority and insecure-skip-tls-verify",
    ),
    "a missing CA": (
        {},
        {"certificate-authority": "none.crt"},
        "its certificate-authority .*none.crt cannot be",
    ),
    "an invalid CA": (
        {},
        {"certificate-authority-data": "c3VyZQ=="},
        "certificate-authority-data is not a PEM",
    ),
    "no base64": (
        {},
        {"certificate-authority-data": "s3cret!"},
        "certificate-authority-data is not a PEM text in base64",
    ),
    "no key": (
        {"client-certificate-data": "eA=="},
        {},
        "user 'u': its client-key is missing: set client-key or",
    ),
    "no certificate": ({"client-key-data": "eA=="}, {}, "user 'u': its client-certificate is missing"),
    "a bad pair": (
        {"client-certificate-data": "eA==", "client-key-data": "eA=="},
        {},
        "user 'u': its client certificate and key cannot be used together",
    ),
    "a missing token": (
        {"tokenFile": "none"},
        {},
        "user 'u': its tokenFile .*none cannot be read: No such file",
    ),
    "two methods": (
        {"token": "s3cret", "username": "me", "password": "s3cret"},
        {},
        "user 'u': it has both a token and a username or password",
    ),
    "a password alone": ({"password": "s3cret"}, {}, "user 'u': it has a password but no username"),
    "groups alone": (
        {"as-groups": ["x"]},
        {},
        "user 'u': it has as-uid, as-groups or as-user-extra, but not 'as'",
    ),
    "no server": ({}, {"server": ""}, "cluster 'c': it has no server"),
    "a server without a scheme": (
        {},
        {"server": "c.example:6443"},
        "cluster 'c': its server .* is not an http or",
    ),
    "a server with a password": (
        {},
        {"server": "https://u:s3cret@c"},
        "cluster 'c': its server is a URL with a user",
    ),
    "a bad port": ({}, {"server": "https://c:99999"}, "cluster 'c': its server .* is not a URL"),
    "old exec": (
        {"exec": {**EXEC, "apiVersion": "client.authentication.k8s.io/v1alpha1"}},
        {},
        "user 'u': its exec.apiVersion is 'client.authentication.k8s.io/v1alpha1': use client",
    ),
    "exec without a command": (
        {"exec": {**EXEC, "command": ""}},
        {},
        "user 'u': its exec.command is missing",
    ),
    "exec without a mode": (
        {"exec": {**EXEC, "interactiveMode": None}},
        {},
        "user 'u': its exec.interactiveMode is '': use Never, IfAvailable or Always",
    ),
    "a nameless variable": ({"exec": {**EXEC, "env": [{"value": "s3cret"}]}}, {}, "exec.env has no name"),
    "a number for a text": (
        {"token": 5},
        {},
        r"it is not a kubeconfig: Expected `str`, got `int` - at `\$\.users\[0\]\.user\.token`",
    ),
}


@pytest.mark.parametrize(("user", "cluster", "words"), REFUSED.values(), ids=REFUSED)
def test_unsupported_features_are_refused_by_name(
    tmp_path: Path, user: dict[str, Any], cluster: dict[str, Any], words: str
) -> None:
    path = kubeconfig(tmp_path, user, **cluster)
    with pytest.raises(ConfigError, match=words) as caught:
        ClientConfig.from_kubeconfig(path)
    sentence = str(caught.value)
    assert sentence.startswith(f"the kubeconfig {path} cannot be used: ")
    assert "\n" not in sentence
    assert "s3cret" not in sentence


@pytest.mark.parametrize(
    ("user", "cluster", "field"),
    [
        ({"token": "s3cret\n"}, {}, "user 'u': its token"),
        ({"token": "s3\0cret"}, {}, "user 'u': its token"),
        ({"as": "s3cret\r"}, {}, "user 'u': its as"),
        ({"as": "a", "as-uid": "s3cret\x7f"}, {}, "user 'u': its as-uid"),
        ({"as": "a", "as-groups": ["b", "s3cret\n"]}, {}, "user 'u': its as-groups"),
        ({"as": "a", "as-user-extra": {"b": ["s3cret\x1b"]}}, {}, "user 'u': its as-user-extra"),
        ({}, {"server": "https://s3cret\n"}, "cluster 'c': its server"),
        ({}, {"tls-server-name": "s3cret\n"}, "cluster 'c': its tls-server-name"),
        ({}, {"proxy-url": "http://u:s3cret@p:1\n"}, "cluster 'c': its proxy-url"),
    ],
)
def test_a_control_character_is_refused_without_the_value(
    tmp_path: Path, user: dict[str, Any], cluster: dict[str, Any], field: str
) -> None:
    path = kubeconfig(tmp_path, user, **cluster)
    with pytest.raises(ConfigError) as caught:
        ClientConfig.from_kubeconfig(path)
    assert str(caught.value) == (
        f"the kubeconfig {path} cannot be used: {field} contains a control character, such as a newline: "
        "remove it"
    )


async def test_the_token_in_a_file_may_end_with_a_newline_but_not_contain_one(
    tmp_path: Path,
) -> None:
    file = tmp_path / "token"
    for content, expected in (("tok3n\n", "tok3n"), ("tok\n3n", "")):
        file.write_text(content)
        config = ClientConfig.from_kubeconfig(kubeconfig(tmp_path, {"tokenFile": str(file)}))
        assert config.token is not None
        if expected:
            assert await config.token.token() == expected
            continue
        with pytest.raises(ConfigError) as caught:
            await config.token.token()
        assert str(caught.value) == (
            f"cannot read the token file {file}: the token contains a control character, such as a newline"
        )


C = "clusters: [{name: c, cluster: {server: 'https://c'}}]\n"
X = "contexts: [{name: x, context: {cluster: c, user: u}}]\n"
BROKEN = {
    "empty": ("", "it is empty"),
    "spaces": (" \n", "it is empty"),
    "comment": ("# nothing\n", "it is empty"),
    "a word": ("foo", "it is not a kubeconfig"),
    "a list": ("[1, 2]", "it is not a kubeconfig"),
    "broken YAML": ("token: s3cret\nkaputt: [", "not YAML, see line 2"),
    "a quote": ("a: 's3cret\n", "not YAML"),
    "contexts": ("contexts: 5\ncurrent-context: c", "Expected `array`"),
    "no current-context": (C + X, "it has no current-context: choose .*it has 'x'"),
    "a wrong current-context": (
        C + X + "current-context: y",
        "current-context does not exist: 'y': choose",
    ),
    "no contexts": (C + "current-context: y", "current-context does not exist: 'y'.*it has no contexts"),
    "no cluster": (X + "current-context: x", "context 'x': its cluster 'c' is not in the file"),
    "no user": (C + X + "current-context: x", "context 'x': its user 'u' is not in the file"),
    "a context without a cluster": (
        "contexts: [{name: x, context: {}}]\ncurrent-context: x",
        "context 'x': it names no cluster",
    ),
    "a name twice": ("clusters: [{name: c}, {name: c}]", "several clusters named 'c'"),
}


@pytest.mark.parametrize(("content", "words"), BROKEN.values(), ids=BROKEN)
def test_an_invalid_kubeconfig_is_reported_in_one_sentence(tmp_path: Path, content: str, words: str) -> None:
    path = write(tmp_path / "kubeconfig", content)
    with pytest.raises(ConfigError, match=words) as caught:
        ClientConfig.from_kubeconfig(str(path))
    sentence = str(caught.value)
    assert sentence.startswith(f"the kubeconfig {path} cannot be used: ")
    assert "\n" not in sentence
    assert "s3cret" not in sentence


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"[" * 100_000, b"\x00"])
def test_bytes_that_are_not_text(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "kubeconfig").write_bytes(content)
    with pytest.raises(ConfigError, match="it is not a kubeconfig"):
        ClientConfig.from_kubeconfig(str(tmp_path / "kubeconfig"))


def test_a_directory_is_not_a_kubeconfig(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"the kubeconfig {tmp_path} cannot be used: Is a directory"):
        ClientConfig.from_kubeconfig(str(tmp_path))


def test_an_encrypted_key_is_refused_without_a_prompt(
    load: Load, authority: Authority, tmp_path: Path
) -> None:
    certificate, key = authority.issue("encrypted")
    locked = tmp_path / "locked.key"
    command = ["openssl", "ec", "-in", str(key), "-aes256", "-passout", "pass:s3cret", "-out", str(locked)]
    subprocess.run(command, check=True, capture_output=True)
    with pytest.raises(ConfigError, match=r"user 'u': .*the client key is encrypted"):
        load({"client-certificate": str(certificate), "client-key": str(locked)})


def test_other_credentials_override_an_exec_plugin(load: Load, caplog: pytest.LogCaptureFixture) -> None:
    """Same as in kubectl, except for the warning."""
    config = load({"exec": EXEC, "token": "t"})
    assert not isinstance(config.token, ExecPlugin)
    assert "Not using the exec plugin of user 'u'" in caplog.text
