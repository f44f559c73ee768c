"""Exec plugins: their input, their output, and when they run again."""

import asyncio
import json
import os
import signal
import stat
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from pilothouse.kube import Client, ClientConfig, ConfigError
from pilothouse.kube.exec_plugin import ExecPlugin
from pilothouse.telemetry import now
from pilothouse.testing import eventually
from tests.unit.kube.authority import Authority
from tests.unit.kube.kubeconfigs import kubeconfig

VERSION = "client.authentication.k8s.io/v1"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pilothouse.kube.exec_plugin.PAUSE_SECONDS", 0.0)


class Plugin:
    """A program that prints the content of a file, and records its runs and its input."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "bin").mkdir()
        self.program = folder / "bin" / "plugin"
        self._runs = folder / "runs"
        self._runs.touch()
        self.script()

    def script(self, last: str = 'cat "$FOLDER/answer"') -> None:
        lines = [
            "#!/bin/sh",
            'echo "$1" >> "$FOLDER/runs"',
            'echo "$KUBERNETES_EXEC_INFO" > "$FOLDER/info"',
            'readlink /proc/self/fd/0 > "$FOLDER/stdin"',
            last,
        ]
        self.program.write_text("\n".join(lines) + "\n")
        self.program.chmod(self.program.stat().st_mode | stat.S_IXUSR)

    def gives(self, *, seconds: float | None = None, **status: Any) -> None:
        if seconds is not None:
            status["expirationTimestamp"] = (now() + timedelta(seconds=seconds)).isoformat()
        self.prints({"apiVersion": VERSION, "kind": "ExecCredential", "status": status})

    def gives_token(self, token: str, *, seconds: float | None = None) -> None:
        self.gives(seconds=seconds, token=token)

    def prints(self, answer: Any) -> None:
        (self.folder / "answer").write_text(json.dumps(answer))

    @property
    def runs(self) -> int:
        return len(self._runs.read_text().splitlines())

    @property
    def info(self) -> dict[str, Any]:
        info: dict[str, Any] = json.loads((self.folder / "info").read_text())
        return info

    def exec(self, **fields: Any) -> dict[str, Any]:
        return {
            "apiVersion": VERSION,
            "command": "./bin/plugin",
            "args": ["login"],
            "env": [{"name": "FOLDER", "value": str(self.folder)}],
            "interactiveMode": "Never",
        } | fields

    def config(self, cluster: dict[str, Any] | None = None, **fields: Any) -> ClientConfig:
        path = kubeconfig(self.folder, {"exec": self.exec(**fields)}, **(cluster or {}))
        return ClientConfig.from_kubeconfig(path)

    async def token(self, config: ClientConfig, *, refused: bool = False) -> str:
        assert config.token is not None
        return await config.token.token(refused=refused)


@pytest.fixture
def plugin(tmp_path: Path) -> Plugin:
    return Plugin(tmp_path)


async def test_a_token_without_an_expiry_is_kept_until_it_is_refused(plugin: Plugin) -> None:
    plugin.gives_token("one")
    config = plugin.config()
    assert plugin.runs == 0, "at the first request only"
    assert [await plugin.token(config) for _ in range(3)] == ["one"] * 3
    assert plugin.runs == 1
    plugin.gives_token("two")
    assert await plugin.token(config, refused=True) == "two"
    assert plugin.runs == 2


async def test_a_token_that_has_expired_is_renewed(plugin: Plugin, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin.gives_token("one", seconds=600)
    config = plugin.config()
    assert await plugin.token(config) == "one"
    plugin.gives_token("two", seconds=3600)
    assert await plugin.token(config) == "one"
    later = now() + timedelta(seconds=601)
    monkeypatch.setattr("pilothouse.kube.exec_plugin.now", lambda: later)
    assert await plugin.token(config) == "two"


async def test_requests_share_one_run(plugin: Plugin, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin.gives_token("one")
    config = plugin.config()
    assert await asyncio.gather(*(plugin.token(config) for _ in range(10))) == ["one"] * 10
    assert plugin.runs == 1
    monkeypatch.setattr("pilothouse.kube.exec_plugin.PAUSE_SECONDS", 60.0)
    assert await plugin.token(config, refused=True) == "one", "it has just run"
    assert plugin.runs == 1


async def test_a_cancelled_request_does_not_cancel_the_plugin(plugin: Plugin) -> None:
    plugin.script('while [ ! -e "$FOLDER/typed" ]; do sleep 0.01; done; cat "$FOLDER/answer"')
    plugin.gives_token("one")
    config = plugin.config()
    impatient = asyncio.create_task(plugin.token(config))
    await eventually(lambda: plugin.runs)
    impatient.cancel()
    await asyncio.wait([impatient])
    (plugin.folder / "typed").touch()
    assert await plugin.token(config) == "one"
    assert plugin.runs == 1


async def test_the_input_of_a_plugin(plugin: Plugin, authority: Authority) -> None:
    plugin.gives_token("t")
    extension = {"name": "client.authentication.k8s.io/exec", "extension": {"audience": "x"}}
    cluster = {
        "certificate-authority": str(authority.ca_file),
        "tls-server-name": "name",
        "proxy-url": "http://p:1",
        "extensions": [{"name": "other", "extension": 1}, extension],
    }
    await plugin.token(plugin.config(cluster, provideClusterInfo=True))
    assert (plugin.info["apiVersion"], plugin.info["kind"]) == (VERSION, "ExecCredential")
    cluster = plugin.info["spec"]["cluster"]
    assert cluster.pop("certificate-authority-data").startswith("LS0t")
    assert cluster == {
        "server": "https://c.example:6443/",
        "tls-server-name": "name",
        "proxy-url": "http://p:1",
        "config": {"audience": "x"},
    }
    assert (plugin.folder / "runs").read_text() == "login\n"
    await plugin.token(plugin.config())
    assert plugin.info["spec"] == {"interactive": False}


@pytest.mark.parametrize(
    ("mode", "is_terminal", "reads"),
    [
        ("Never", True, False),
        ("IfAvailable", True, True),
        ("IfAvailable", False, False),
        ("Always", True, True),
    ],
)
async def test_interactive_modes(
    plugin: Plugin, monkeypatch: pytest.MonkeyPatch, mode: str, is_terminal: bool, reads: bool
) -> None:
    class Standard:
        def isatty(self) -> bool:
            return is_terminal

    monkeypatch.setattr("pilothouse.kube.exec_plugin.sys.stdin", Standard())
    plugin.gives_token("t")
    await plugin.token(plugin.config(interactiveMode=mode))
    assert plugin.info["spec"]["interactive"] is reads
    if not reads:
        assert (plugin.folder / "stdin").read_text() == "/dev/null\n"


async def test_a_beta_plugin_needs_no_mode(plugin: Plugin) -> None:
    beta = "client.authentication.k8s.io/v1beta1"
    plugin.prints({"apiVersion": beta, "kind": "ExecCredential", "status": {"token": "t"}})
    assert await plugin.token(plugin.config(apiVersion=beta, interactiveMode=None)) == "t"


PRINTED: dict[str, tuple[Any, str]] = {
    "no JSON": ("s3cret", "did not print an ExecCredential as JSON"),
    "another kind": ({"apiVersion": VERSION, "kind": "Secret"}, "printed the kind 'Secret' of"),
    "another version": (
        {"apiVersion": "client.authentication.k8s.io/v1beta1", "kind": "ExecCredential", "status": {}},
        "it must print an ExecCredential of 'client.authentication.k8s.io/v1'",
    ),
    "no status": ({"apiVersion": VERSION, "kind": "ExecCredential"}, "neither a token nor a certificate"),
    "a newline": (
        {"apiVersion": VERSION, "kind": "ExecCredential", "status": {"token": "s3cret\n"}},
        "printed a token with a control character",
    ),
    "half a pair": (
        {"apiVersion": VERSION, "kind": "ExecCredential", "status": {"clientKeyData": "s3cret"}},
        "a key without its certificate",
    ),
    "a bad pair": (
        {
            "apiVersion": VERSION,
            "kind": "ExecCredential",
            "status": {"clientKeyData": "s3cret", "clientCertificateData": "x"},
        },
        "printed an unusable certificate or key",
    ),
    "a time that is none": (
        {
            "apiVersion": VERSION,
            "kind": "ExecCredential",
            "status": {"token": "s3cret", "expirationTimestamp": "s3cret"},
        },
        r"whose field status\.expirationTimestamp is wrong: Invalid RFC3339 encoded datetime",
    ),
    "a number": (
        {"apiVersion": VERSION, "kind": "ExecCredential", "status": {"token": 7}},
        r"whose field status\.token is wrong: Expected `str`, got `int`",
    ),
    "a local time": (
        {
            "apiVersion": VERSION,
            "kind": "ExecCredential",
            "status": {"token": "s3cret", "expirationTimestamp": "2030-01-01T00:00:00"},
        },
        "expirationTimestamp without a time zone",
    ),
}


@pytest.mark.parametrize(("answer", "words"), PRINTED.values(), ids=PRINTED)
async def test_an_invalid_output_is_reported_in_one_sentence(plugin: Plugin, answer: Any, words: str) -> None:
    plugin.prints(answer)
    with pytest.raises(ConfigError, match=words) as caught:
        await plugin.token(plugin.config())
    sentence = str(caught.value)
    assert sentence.startswith(
        f"the kubeconfig {plugin.folder}/kubeconfig cannot be used: user 'u': the exec"
    )
    assert "s3cret" not in sentence
    assert "\n" not in sentence
    plugin.gives_token("t")
    assert await plugin.token(plugin.config()) == "t"


async def test_a_plugin_that_fails_or_is_missing(plugin: Plugin, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin.script("echo s3cret; exit 3")
    with pytest.raises(ConfigError, match="failed with exit code 3; run it manually") as caught:
        await plugin.token(plugin.config())
    assert "s3cret" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"'no-such-plugin' was not found: see https://example/install$"):
        await plugin.token(
            plugin.config(command="no-such-plugin", installHint="see\nhttps://example/install")
        )
    with pytest.raises(ConfigError, match="'no-such-plugin' was not found: install it, or add it to PATH"):
        await plugin.token(plugin.config(command="no-such-plugin"))
    plugin.program.chmod(0o600)
    with pytest.raises(ConfigError, match=r"cannot be run: .*Permission denied"):
        await plugin.token(plugin.config())
    with pytest.raises(
        ConfigError, match=r"needs a terminal \(interactiveMode: Always\), but standard input is"
    ):
        await plugin.token(plugin.config(interactiveMode="Always"))
    monkeypatch.setattr("pilothouse.kube.exec_plugin.SECONDS", 0.05)
    plugin.script("exec sleep 5")
    with pytest.raises(ConfigError, match=r"timed out after 0\.05 s"):
        await plugin.token(plugin.config())


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """The deadline is so short that a plugin that hangs reaches it."""
    monkeypatch.setattr("pilothouse.kube.exec_plugin.SECONDS", 0.3)


def running(pids: Path) -> bool:
    """Returns whether one of the processes whose numbers are in a file is running."""
    return any(Path("/proc", pid, "exe").exists() for pid in pids.read_text().split())


@pytest.mark.usefixtures("soon")
async def test_a_plugin_that_hangs_is_killed_with_all_that_it_started(plugin: Plugin) -> None:
    plugin.script('sleep 600 & echo $! $$ > "$FOLDER/pids"; echo "waiting for the vault" >&2; wait')
    with pytest.raises(ConfigError) as caught:
        await plugin.token(plugin.config())
    assert str(caught.value).endswith(
        f"the exec plugin '{plugin.program}' timed out after 0.3 s and was killed; it wrote: "
        "waiting for the vault"
    )
    await eventually(lambda: not running(plugin.folder / "pids"))


@pytest.mark.usefixtures("soon")
async def test_a_request_that_waits_for_a_plugin_reports_the_plugin(plugin: Plugin) -> None:
    """And not that the API server does not respond."""
    plugin.script("exec sleep 600")
    async with Client(plugin.config(), user_agent="tests/1") as client:
        with pytest.raises(ConfigError, match=r"the exec plugin .* timed out after 0\.3 s"):
            await client.request("GET", "/", deadline=0.01)
        with pytest.raises(ConfigError, match=r"the exec plugin .* timed out after 0\.3 s"):
            async with client._transport.stream("/", params={}):
                pass


async def test_the_deadline_of_a_request_does_not_include_the_plugin(
    plugin: Plugin, bouncer: "Bouncer", authority: Authority
) -> None:
    certified(plugin, authority, "slow")
    plugin.script('while [ ! -e "$FOLDER/typed" ]; do sleep 0.01; done; cat "$FOLDER/answer"')
    cluster = {
        "server": f"https://127.0.0.1:{bouncer.port}",
        "certificate-authority": str(authority.ca_file),
    }
    async with Client(plugin.config(cluster), user_agent="tests/1") as client:
        request = asyncio.create_task(client.request("GET", "/", deadline=5))
        await eventually(lambda: plugin.runs)
        within = client._transport._deadlines
        assert within == {}, "the deadline has not begun"
        (plugin.folder / "typed").touch()
        assert await request == b"slow"


async def test_what_a_plugin_leaves_running_is_not_awaited(plugin: Plugin) -> None:
    plugin.script('sleep 600 & echo $! > "$FOLDER/pids"; cat "$FOLDER/answer"')
    plugin.gives_token("one")
    assert await plugin.token(plugin.config()) == "one"
    assert running(plugin.folder / "pids"), "an agent that caches tokens, for example"
    os.kill(int((plugin.folder / "pids").read_text()), signal.SIGKILL)


async def test_a_plugin_ends_with_the_process_that_needs_it(plugin: Plugin) -> None:
    plugin.script('echo $$ > "$FOLDER/pids"; exec sleep 600')
    config = plugin.config()
    request = asyncio.create_task(plugin.token(config))
    await eventually(lambda: (plugin.folder / "pids").exists() and running(plugin.folder / "pids"))
    assert isinstance(config.token, ExecPlugin)
    assert config.token._running is not None
    config.token._running.cancel()
    await asyncio.wait([request])
    await eventually(lambda: not running(plugin.folder / "pids"))


async def test_a_plugin_that_takes_long_is_logged_with_what_it_asks_for(
    plugin: Plugin, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("pilothouse.kube.exec_plugin.NOTICE_SECONDS", 0.05)
    ask = "echo 'To sign in, open https://login.example/device and enter AB-12' >&2"
    plugin.script(f'{ask}; while [ ! -e "$FOLDER/typed" ]; do sleep 0.01; done; cat "$FOLDER/answer"')
    plugin.gives_token("one")
    request = asyncio.create_task(plugin.token(plugin.config()))
    await eventually(lambda: caplog.records)
    [record] = caplog.records
    assert record.getMessage() == (
        f"Waiting for the exec plugin '{plugin.program}' for 0.05 s. It is killed after 60 s. It wrote: "
        "To sign in, open https://login.example/device and enter AB-12"
    )
    (plugin.folder / "typed").touch()
    assert await request == "one"


async def test_a_plugin_has_more_time_with_a_terminal(
    plugin: Plugin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user may have to log in with a browser."""

    class Terminal:
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("pilothouse.kube.exec_plugin.sys.stdin", Terminal())
    monkeypatch.setattr("pilothouse.kube.exec_plugin.LOGIN_SECONDS", 0.2)
    plugin.script("exec sleep 600")
    with pytest.raises(
        ConfigError, match=r"timed out after 0\.2 s and was killed; run it manually to see why"
    ):
        await plugin.token(plugin.config())


WRITTEN = {
    "a reason": ("error: the token has expired, log in again", "error: the token has expired, log in again"),
    "a reason after a colon": ("refreshing the token: invalid_grant", "refreshing the token: invalid_grant"),
    "the last lines": ("1\n2\n3\n4", "2 / 3 / 4"),
    "colours": ("\x1b[31mfailed\x1b[0m\tbadly", "failed badly"),
    "a printed value": ("no s3cret today", "no (hidden) today"),
    "a variable": ("the variable is variable-s3cret", "the variable is (hidden)"),
    "an argument": ("the argument is argument-s3cret", "the argument is (hidden)"),
    "a JSON Web Token": ("got eyJhbGciOi.eyJzdWIi.c2ln", "got (hidden)"),
    "a bearer": ("sent Authorization: Bearer abc-s3cret1", "sent Authorization: Bearer (hidden)"),
    "a password": ("--password=hunter and password: hunter", "--password=(hidden) and password: (hidden)"),
    "JSON": ('{"clientSecret": "hunter", "code": 7}', '{"clientSecret": (hidden), "code": 7}'),
    "a key": ("-----BEGIN KEY-----\nMIIs3cret\n-----END KEY-----\nis wrong", "(hidden) / is wrong"),
    "a long value": ("id AKIA1234567890ABCDEFGHIJ", "id (hidden)"),
    "a path": (
        "cannot open /home/jane/.config/a1/credentials",
        "cannot open /home/jane/.config/a1/credentials",
    ),
}


@pytest.mark.parametrize(("written", "shown"), WRITTEN.values(), ids=WRITTEN)
async def test_the_last_lines_that_a_plugin_writes_are_shown_without_secrets(
    plugin: Plugin, written: str, shown: str
) -> None:
    (plugin.folder / "errors").write_text(written)
    plugin.script('cat "$FOLDER/errors" >&2; echo s3cret; exit 1')
    variables = [
        {"name": "FOLDER", "value": str(plugin.folder)},
        {"name": "CLIENT_SECRET", "value": "variable-s3cret"},
    ]
    with pytest.raises(ConfigError) as caught:
        await plugin.token(plugin.config(env=variables, args=["login", "--client-secret", "argument-s3cret"]))
    assert str(caught.value).endswith(f"failed with exit code 1; it wrote: {shown}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("args", [[], ["--client-secret"], ["-"]])
async def test_any_arguments_are_possible(plugin: Plugin, args: list[str]) -> None:
    plugin.script("echo 'not logged in' >&2; exit 1")
    with pytest.raises(ConfigError, match="failed with exit code 1; it wrote: not logged in"):
        await plugin.token(plugin.config(args=args))


async def test_a_plugin_that_prints_nothing_or_too_much(
    plugin: Plugin, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin.script("echo 'not logged in' >&2")
    with pytest.raises(ConfigError, match="printed nothing to standard output; it wrote: not logged in"):
        await plugin.token(plugin.config())
    monkeypatch.setattr("pilothouse.kube.plugin_process.OUTPUT_LIMIT", 100)
    plugin.script("yes")
    with pytest.raises(ConfigError, match="printed more than"):
        await plugin.token(plugin.config())


async def test_credentials_that_have_expired_already_are_used_with_a_warning(
    plugin: Plugin, caplog: pytest.LogCaptureFixture
) -> None:
    plugin.gives(token="old", expirationTimestamp="2020-01-01T00:00:00Z")  # noqa: S106 - not a password
    config = plugin.config()
    assert [await plugin.token(config) for _ in range(2)] == ["old", "old"], "the API server decides"
    [record] = caplog.records
    assert (
        "printed credentials that expired at 2020-01-01T00:00:00+00:00. Log in again" in record.getMessage()
    )
    caplog.clear()
    plugin.gives(token="zero", expirationTimestamp="0001-01-01T00:00:00Z")  # noqa: S106 - not a password
    config = plugin.config()
    runs = plugin.runs
    assert [await plugin.token(config) for _ in range(2)] == ["zero", "zero"]
    assert (plugin.runs, caplog.records) == (runs + 1, []), "Go's zero time: they do not expire"


async def test_concurrent_requests_all_get_the_error(plugin: Plugin) -> None:
    plugin.script("exit 1")
    config = plugin.config()
    found = await asyncio.gather(*(plugin.token(config) for _ in range(3)), return_exceptions=True)
    assert [type(each) for each in found] == [ConfigError] * 3
    assert plugin.runs == 1


class Bouncer:
    """Accepts clients with a certificate of the CA, and returns 401 to some of them."""

    def __init__(self) -> None:
        self.unwelcome: set[str] = set()
        self.port = 0

    async def answer(self, request: web.BaseRequest) -> web.Response:
        transport = request.transport
        assert transport is not None
        who = transport.get_extra_info("peercert")["subject"][0][0][1]
        return web.Response(text=who, status=401 if who in self.unwelcome else 200)


@pytest.fixture
async def bouncer(authority: Authority) -> AsyncIterator[Bouncer]:
    bouncer = Bouncer()
    runner = web.ServerRunner(web.Server(bouncer.answer))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=authority.server_context("bouncer"))
    await site.start()
    bouncer.port = runner.addresses[0][1]
    yield bouncer
    await runner.cleanup()


def certified(plugin: Plugin, authority: Authority, name: str, seconds: float | None = None) -> None:
    certificate, key = authority.issue(name)
    plugin.gives(
        seconds=seconds, clientCertificateData=certificate.read_text(), clientKeyData=key.read_text()
    )


async def test_a_client_certificate_is_renewed_on_expiry_and_when_refused(
    plugin: Plugin, bouncer: Bouncer, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """gardenlogin, tsh and others print certificates that expire within minutes."""
    certified(plugin, authority, "first", seconds=600)
    cluster = {
        "server": f"https://127.0.0.1:{bouncer.port}",
        "certificate-authority": str(authority.ca_file),
    }
    config = plugin.config(cluster)

    async def who() -> str:
        return (await client.request("GET", "/", deadline=5)).decode()

    async with Client(config, user_agent="tests/1") as client:
        assert [await who(), await who()] == ["first", "first"]
        assert plugin.runs == 1
        certified(plugin, authority, "second")
        later = now() + timedelta(seconds=601)
        monkeypatch.setattr("pilothouse.kube.exec_plugin.now", lambda: later)
        assert await who() == "second"
        certified(plugin, authority, "third")
        bouncer.unwelcome.add("second")
        assert await who() == "third", "401: asked again, with another certificate"
        assert plugin.runs == 3


async def test_a_watch_renews_certificates_too(
    plugin: Plugin, bouncer: Bouncer, authority: Authority
) -> None:
    certified(plugin, authority, "first-watch")
    cluster = {
        "server": f"https://127.0.0.1:{bouncer.port}",
        "certificate-authority": str(authority.ca_file),
    }
    async with Client(plugin.config(cluster), user_agent="tests/1") as client:
        await client.request("GET", "/", deadline=5)
        certified(plugin, authority, "second-watch")
        bouncer.unwelcome.add("first-watch")
        async with client._transport.stream("/", params={}) as lines:
            async for _ in lines:
                pass
    assert plugin.runs == 2
