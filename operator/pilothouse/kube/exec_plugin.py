"""Exec plugins: programs in a kubeconfig that print credentials (a token or a client certificate).

The contract is that of client-go (plugin/pkg/client/auth/exec, API group client.authentication.k8s.io). The
program runs for the first request, when the credentials have expired, and when the server returns 401.
"""

import asyncio
import json
import logging
import os
import ssl
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, ClassVar

import msgspec

from pilothouse.kube.errors import ConfigError
from pilothouse.kube.plugin_errors import last_lines
from pilothouse.kube.plugin_process import OUTPUT_LIMIT, Ended, run_program
from pilothouse.kube.tls import TlsFiles
from pilothouse.kube.tokens import has_control_character
from pilothouse.telemetry import hide_everywhere, now

log = logging.getLogger(__name__)

# The deadlines of a plugin; client-go has none. With a terminal it is long, because a user may have to log in
# with a browser. Without one, nobody is expected to: a plugin that calls a cloud's API takes seconds.
LOGIN_SECONDS = 300.0
SECONDS = 60.0
# Seconds after which the log shows that a plugin is still running, and what it has written.
NOTICE_SECONDS = 5.0
# The minimum time between two runs. Concurrent requests are refused at the same time, and one run is enough.
PAUSE_SECONDS = 2.0


class _Status(msgspec.Struct, rename="camel"):
    expiration_timestamp: datetime | None = None
    token: str = ""
    client_certificate_data: str = ""
    client_key_data: str = ""


class _ExecCredential(msgspec.Struct, rename="camel"):
    api_version: str = ""
    kind: str = ""
    status: _Status | None = None


@dataclass(frozen=True)
class ExecCommand:
    """The command that runs a plugin.

    Attributes:
        source: The kubeconfig and the user, for errors.
        api_version: The version of the contract, such as `client.authentication.k8s.io/v1`.
        command: The program.
        arguments: The program's arguments.
        environment: Environment variables, in addition to those of this process.
        interactive_mode: Whether it uses this process's standard input: `Never`, `IfAvailable` or `Always`.
        cluster: The information about the cluster that it receives. None: it receives none.
        install_hint: What to do if the program is missing.
    """

    source: str
    api_version: str
    command: str
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    interactive_mode: str = "IfAvailable"
    cluster: Mapping[str, Any] | None = None
    install_hint: str = ""


class ExecPlugin:
    """The credentials of a plugin: a `TokenSource`, and a certificate for `PluginTls`.

    Args:
        command: The command that runs the plugin.
    """

    may_wait: ClassVar[bool] = True

    def __init__(self, command: ExecCommand) -> None:
        self._command = command
        self._given: _Status | None = None
        self._given_at = 0.0
        self._running: asyncio.Task[_Status] | None = None
        self._warned_of: datetime | None = None

    @property
    def certificate(self) -> tuple[str, str] | None:
        """The certificate and its key, as PEM. None before the first run, or if the plugin prints none."""
        given = self._given
        if given is None or not given.client_certificate_data:
            return None
        return given.client_certificate_data, given.client_key_data

    async def token(self, *, refused: bool = False) -> str:
        """Returns the token, or an empty string if there is none. Runs the plugin if necessary.

        Concurrent requests share one run.

        Args:
            refused: Whether the server has returned 401 for the last credentials.

        Raises:
            ConfigError: The plugin cannot be run, or prints no credentials. The message names the kubeconfig
                and the user.
        """
        current = asyncio.get_running_loop().time()
        given = self._given
        if given is not None and current < self._given_at + PAUSE_SECONDS:
            return given.token
        is_over = given is not None and given.expiration_timestamp and given.expiration_timestamp <= now()
        if given is None or refused or is_over:
            if self._running is None:
                # In its own task, so that a cancelled request does not discard what a user has just typed.
                self._running = asyncio.get_running_loop().create_task(self._run())
                self._running.add_done_callback(self._ran)
            given = await asyncio.shield(self._running)
        return given.token

    async def _run(self) -> _Status:
        stop = threading.Event()
        try:
            given = await asyncio.to_thread(run, self._command, stop)
        finally:
            # If this process ends, its thread and the plugin must, too.
            stop.set()
        self._warn_if_expired(given)
        return given

    def _warn_if_expired(self, given: _Status) -> None:
        expires = given.expiration_timestamp
        if expires and expires <= now() and expires != self._warned_of:
            self._warned_of = expires
            # As in client-go, the API server decides: the clock of this machine may be wrong.
            log.warning(
                "The exec plugin %r printed credentials that expired at %s. Log in again, or check the clock "
                "of this machine",
                self._command.command,
                expires.isoformat(),
            )

    def _ran(self, running: asyncio.Task[_Status]) -> None:
        self._running = None
        if not running.cancelled() and running.exception() is None:
            self._given = running.result()
            self._given_at = running.get_loop().time()


class PluginTls:
    """TLS settings with the certificate of a plugin. They change when the plugin prints another certificate.

    Args:
        base: The settings without a certificate.
        plugin: The plugin that prints the certificate.
    """

    def __init__(self, base: TlsFiles, plugin: ExecPlugin) -> None:
        self._base = self._files = base
        self._plugin = plugin
        self._certificate: tuple[str, str] | None = None

    def context(self, *, refused: bool = False) -> ssl.SSLContext:
        """Returns the settings for new connections; see `TlsFiles.context`."""
        if (certificate := self._plugin.certificate) != self._certificate:
            self._certificate = certificate
            data, key = certificate or (None, None)
            self._files = replace(self._base, cert_data=data, key_data=key)
        return self._files.context(refused=refused)


def run(command: ExecCommand, stop: threading.Event) -> _Status:
    """Runs a plugin and returns the credentials. Blocks.

    Args:
        command: The command that runs the plugin.
        stop: Kills the plugin when it is set.

    Raises:
        ConfigError: The plugin cannot be run, fails, takes too long, or prints something else. The message
            contains the last lines of its standard error without secret values, but not its output.
    """
    failed = f"{command.source}: the exec plugin {command.command!r}"
    is_terminal = sys.stdin is not None and sys.stdin.isatty()
    if command.interactive_mode == "Always" and not is_terminal:
        raise ConfigError(
            f"{failed} needs a terminal (interactiveMode: Always), but standard input is not a terminal: "
            "use credentials that do not need a login"
        )
    is_interactive = is_terminal and command.interactive_mode != "Never"
    seconds = LOGIN_SECONDS if is_terminal else SECONDS
    environment = _environment(command, is_interactive)

    def wrote(ended: Ended) -> str:
        return last_lines(bytes(ended.errors), bytes(ended.output), command.arguments, environment)

    def notice(ended: Ended) -> None:
        said = wrote(ended)
        log.warning(
            "Waiting for the exec plugin %r for %g s. It is killed after %g s%s",
            command.command,
            NOTICE_SECONDS,
            seconds,
            f". It wrote: {said}" if said else "",
        )

    try:
        ended = run_program(
            [command.command, *command.arguments],
            environment,
            interactive=is_interactive,
            seconds=seconds,
            notice=(NOTICE_SECONDS, notice),
            stop=stop,
        )
    except FileNotFoundError:
        hint = " ".join(command.install_hint.split())
        raise ConfigError(
            f"{failed} was not found{': ' + hint if hint else ': install it, or add it to PATH'}"
        ) from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{failed} cannot be run: {error}") from None
    why = wrote(ended)
    why = f"it wrote: {why}" if why else "run it manually to see why"
    if ended.too_long:
        raise ConfigError(f"{failed} printed more than {OUTPUT_LIMIT} bytes; {why}")
    if ended.code is None:
        raise ConfigError(f"{failed} timed out after {seconds:g} s and was killed; {why}")
    if ended.code:
        raise ConfigError(f"{failed} failed with exit code {ended.code}; {why}")
    return _read(command, failed, bytes(ended.output), why)


def _environment(command: ExecCommand, is_interactive: bool) -> Mapping[str, str]:
    spec: dict[str, Any] = {"interactive": is_interactive}
    if command.cluster is not None:
        spec["cluster"] = command.cluster
    info = {"apiVersion": command.api_version, "kind": "ExecCredential", "spec": spec}
    return {**os.environ, **command.environment, "KUBERNETES_EXEC_INFO": json.dumps(info)}


def _read(command: ExecCommand, failed: str, output: bytes, why: str) -> _Status:
    """Returns the credentials in the output of a plugin.

    Args:
        command: The command that ran it.
        failed: The start of an error.
        output: The standard output.
        why: The end of an error: what the plugin wrote to its standard error, or what to do.

    Raises:
        ConfigError: The output is not usable.
    """
    if not output.strip():
        raise ConfigError(f"{failed} printed nothing to standard output; {why}")
    given = _decoded(failed, output, why)
    if given.kind != "ExecCredential" or given.api_version != command.api_version:
        raise ConfigError(
            f"{failed} printed the kind {given.kind[:50]!r} of {given.api_version[:50]!r}: it must print an "
            f"ExecCredential of {command.api_version!r}, the exec.apiVersion"
        )
    status = given.status or _Status()
    for secret in (status.token, status.client_key_data):
        hide_everywhere(secret)
    if bool(status.client_certificate_data) != bool(status.client_key_data):
        raise ConfigError(
            f"{failed} printed a certificate without its key, or a key without its certificate; {why}"
        )
    if not status.token and not status.client_certificate_data:
        raise ConfigError(f"{failed} printed neither a token nor a certificate; {why}")
    if has_control_character(status.token):
        raise ConfigError(f"{failed} printed a token with a control character, such as a newline: remove it")
    if status.client_certificate_data:
        try:
            TlsFiles(cert_data=status.client_certificate_data, key_data=status.client_key_data).context()
        except (OSError, ValueError) as error:
            raise ConfigError(f"{failed} printed an unusable certificate or key: {error}") from None
    expires = status.expiration_timestamp
    if expires is not None and expires.tzinfo is None:
        raise ConfigError(
            f"{failed} printed an expirationTimestamp without a time zone: RFC 3339 requires one"
        )
    # The zero time of Go: the credentials do not expire.
    return (
        msgspec.structs.replace(status, expiration_timestamp=None)
        if expires and expires.year == 1
        else status
    )


def _decoded(failed: str, output: bytes, why: str) -> _ExecCredential:
    try:
        return msgspec.json.decode(output, type=_ExecCredential)
    except msgspec.ValidationError as error:
        # The text names the field and not its value: Expected `str`, got `int` - at `$.status.token`.
        problem, separator, field = str(error).partition(" - at `$.")
        if separator:
            raise ConfigError(
                f"{failed} printed an ExecCredential whose field {field.rstrip('`')} is wrong: {problem}"
            ) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    raise ConfigError(f"{failed} did not print an ExecCredential as JSON; {why}")
