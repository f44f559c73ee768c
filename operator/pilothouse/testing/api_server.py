"""A real kube-apiserver with a real etcd, without a node. It starts in seconds."""

import csv
import http.client
import io
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pilothouse.kube import ClientConfig, StaticToken, TlsFiles, tls_context

ASSETS = "KUBEBUILDER_ASSETS"
"""The environment variable with the folder of the programs. The name is that of envtest."""

START_SECONDS = 90.0
STOP_SECONDS = 15.0
_ADMIN = "test-admin"
_PREFIX = "pilothouse-api-"


class ApiServerError(RuntimeError):
    """The API server could not be started. The message says what is missing, or shows the end of the logs."""


class ApiServer:
    """A context manager that runs etcd and kube-apiserver on free loopback ports, in a temporary folder.

    There is no controller manager: deleted namespaces are not emptied, service accounts are not created, and
    there is no garbage collection.

    Args:
        assets: The folder of the programs `etcd` and `kube-apiserver`. By default the value of the
            environment variable KUBEBUILDER_ASSETS, as for the envtest of controller-runtime.

    Raises:
        ApiServerError: A program is missing.
    """

    def __init__(self, assets: Path | None = None) -> None:
        self._programs = _programs(assets)
        _remove_leftovers()
        self._folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
        self._token = secrets.token_hex(16)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._port, self._etcd_port, self._etcd_peer_port = _free_ports(3)

    def __enter__(self) -> Self:
        try:
            self._write_credentials()
            self.start_etcd()
            self.start_api_server()
            self.wait_ready()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for name in ("kube-apiserver", "etcd"):
            self.stop(name)
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def url(self) -> str:
        """The URL of the server."""
        return f"https://127.0.0.1:{self._port}"

    @property
    def ca_file(self) -> Path:
        """The CA file that verifies the server."""
        return self._folder / "tls" / "apiserver.crt"

    def config(self, token: str = "") -> ClientConfig:
        """Returns the configuration of a client.

        Args:
            token: The bearer token. By default that of a cluster administrator.
        """
        tls = TlsFiles(ca_file=str(self.ca_file))
        return ClientConfig(server=self.url, tls=tls, token=StaticToken(token or self._token))

    def kubeconfig(self) -> Path:
        """Writes a kubeconfig for the administrator and returns its path. It is deleted with the server."""
        path = self._folder / "kubeconfig"
        cluster = {"server": self.url, "certificate-authority": str(self.ca_file)}
        path.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [{"name": "test", "cluster": cluster}],
                    "users": [{"name": "admin", "user": {"token": self._token}}],
                    "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
                    "current-context": "test",
                }
            )
        )
        path.chmod(0o600)
        return path

    def start_etcd(self) -> None:
        """Starts etcd with its existing data, if there is any."""
        client, peer = (f"http://127.0.0.1:{port}" for port in (self._etcd_port, self._etcd_peer_port))
        self._start(
            "etcd",
            f"--data-dir={self._folder / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",
            "--log-level=warn",
        )

    def start_api_server(self) -> None:
        """Starts kube-apiserver. Use `wait_ready` to wait until it is ready.

        Call it from the main thread only: the kernel kills the process when the thread that started it ends.
        """
        key = self._folder / "service-account.key"
        self._start(
            "kube-apiserver",
            f"--etcd-servers=http://127.0.0.1:{self._etcd_port}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            f"--secure-port={self._port}",
            f"--cert-dir={self._folder / 'tls'}",
            f"--token-auth-file={self._folder / 'tokens.csv'}",
            "--authorization-mode=RBAC",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
            "--service-cluster-ip-range=10.0.0.0/24",
            # Without a controller manager, the service accounts that this plugin requires do not exist.
            "--disable-admission-plugins=ServiceAccount",
        )

    def stop(self, name: str, how: signal.Signals = signal.SIGKILL) -> None:
        """Stops `etcd` or `kube-apiserver`, by default like a crash. Each can be started again."""
        process = self._processes.pop(name, None)
        if process is None:
            return
        process.send_signal(how)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def compact(self, revision: int) -> None:
        """Compacts the history before a resourceVersion, as the API server does every 5 minutes."""
        self._etcd("kv/compaction", {"revision": str(revision), "physical": True})

    def _etcd(self, call: str, body: dict[str, Any]) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._etcd_port, timeout=10)
        try:
            connection.request("POST", f"/v3/{call}", json.dumps(body))
            answer = connection.getresponse()
            text = answer.read().decode()
            if answer.status != 200:
                raise ApiServerError(f"etcd responded with {answer.status} to {call}: {text}")
        finally:
            connection.close()

    def _write_credentials(self) -> None:
        table = io.StringIO()
        csv.writer(table).writerow([self._token, _ADMIN, _ADMIN, "system:masters"])
        (self._folder / "tokens.csv").write_text(table.getvalue())
        key = self._folder / "service-account.key"
        subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True)

    def _start(self, name: str, *arguments: str) -> None:
        with (self._folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [*_die_with_parent(), self._programs[name], *arguments],
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._folder,
                # Ctrl-C in the terminal goes to the test run, which then stops these processes.
                start_new_session=True,
            )

    def wait_ready(self) -> None:
        """Blocks until the server is ready.

        After a restart, watches of custom kinds may be refused with 429 for a moment longer: the server
        builds the watch cache of such a kind at the first request.

        Raises:
            ApiServerError: A process ended, or the wait timed out. The message shows the ends of the logs.
        """
        ends = time.monotonic() + START_SECONDS
        last = "no response yet"
        while time.monotonic() < ends:
            for name, process in self._processes.items():
                if process.poll() is not None:
                    code = process.returncode
                    raise ApiServerError(f"{name} ended with status {code}:\n{self._log_tail(name)}")
            try:
                self._probe()
                return
            except (OSError, http.client.HTTPException) as error:
                last = str(error)
                time.sleep(0.05)
        tails = "\n".join(self._log_tail(name) for name in self._processes)
        raise ApiServerError(f"The API server was not ready after {START_SECONDS:g} s: {last}\n{tails}")

    def _probe(self) -> None:
        tls = tls_context(ca_file=str(self.ca_file))
        connection = http.client.HTTPSConnection("127.0.0.1", self._port, timeout=5, context=tls)
        try:
            connection.request("GET", "/readyz", headers={"Authorization": f"Bearer {self._token}"})
            answer = connection.getresponse()
            if answer.status != 200:
                raise http.client.HTTPException(f"{answer.status}: {answer.read(500)!r}")
        finally:
            connection.close()

    def _log_tail(self, name: str) -> str:
        return f"--- {name}\n" + (self._folder / f"{name}.log").read_text(errors="replace")[-4000:]


def _programs(assets: Path | None) -> dict[str, Path]:
    """Returns the paths of etcd and kube-apiserver."""
    named = os.environ.get(ASSETS, "")
    if assets is None and not named:
        raise ApiServerError(
            f"{ASSETS} is not set. Set it to the folder of etcd and kube-apiserver, for example the one that "
            "'setup-envtest use -p path' prints."
        )
    folder = Path(named) if assets is None else assets
    programs = {name: folder / name for name in ("etcd", "kube-apiserver")}
    for path in programs.values():
        if not os.access(path, os.X_OK):
            raise ApiServerError(f"{path} does not exist or is not executable. Check {ASSETS}.")
    if not shutil.which("openssl"):
        raise ApiServerError(
            "openssl, which creates the key for service accounts, is not on PATH. Install it."
        )
    return programs


def _die_with_parent() -> list[str]:
    """Returns a command prefix with which the kernel kills a program when this process is killed."""
    setpriv = shutil.which("setpriv")  # From util-linux.
    return [setpriv, "--pdeathsig", "KILL"] if setpriv else []


def _remove_leftovers() -> None:
    """Removes the folders of killed test runs. The kernel has killed their processes."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        if not Path("/proc", folder.name.removeprefix(_PREFIX).partition("-")[0]).exists():
            shutil.rmtree(folder, ignore_errors=True)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
