"""Real etcd members as processes on loopback ports."""

import signal
import socket
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from devcluster import toolchain
from etcd_operator import errors
from etcd_operator.etcd import Connections, Credentials, Endpoint, Etcd
from pilothouse import ObjectKey
from pilothouse.testing import eventually

#: The suffixes of the binaries: the versions that the operator supports.
VERSIONS = ("-3.5.0", "-3.5", "", "-3.7")
CLUSTER = ObjectKey("default", "example")
#: The parent domain of the members' names in certificates.
DOMAIN = "example.default.svc"
# The ports of members that have not started yet are free, but taken.
_given: set[int] = set()
# Seconds. A member starts in less than one.
_START = 60.0


class RealMember:
    """One etcd process with its data directory.

    Args:
        folder: Contains the data directory and the log.
        version: A suffix of VERSIONS.
        name: The member's name.
        flags: Further flags.
    """

    def __init__(self, folder: Path, version: str, name: str, flags: Sequence[str] = ()) -> None:
        self.name = name
        self.tls = False
        self._folder = folder / name
        self._folder.mkdir()
        self._version = version
        self._flags = flags
        self._process: subprocess.Popen[bytes] | None = None
        self._client_port, self._peer_port = free_ports(2)

    @property
    def endpoint(self) -> Endpoint:
        """The address, with the name of a pod."""
        return Endpoint("127.0.0.1", f"{self.name}.{DOMAIN}", self._client_port)

    @property
    def peer_url(self) -> str:
        """The URL for the other members."""
        return f"http://127.0.0.1:{self._peer_port}"

    @property
    def client_url(self) -> str:
        """The URL for clients."""
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self._client_port}"

    def start(
        self, others: Sequence["RealMember"] = (), *, state: str = "new", tls: Sequence[str] = ()
    ) -> None:
        """Starts the process.

        Args:
            others: The other members of the initial cluster.
            state: The state of the initial cluster. It is ignored if the data directory has data.
            tls: The flags for TLS. Empty: plain text.
        """
        self.tls = bool(tls)
        command: list[str | Path] = [
            *(toolchain.binary(f"etcd{self._version}"), f"--name={self.name}", "--log-level=warn"),
            f"--data-dir={self._folder / 'data'}",
            f"--initial-cluster={','.join(f'{each.name}={each.peer_url}' for each in (self, *others))}",
            f"--initial-cluster-state={state}",
            *(f"--{kind}-peer-urls={self.peer_url}" for kind in ("listen", "initial-advertise")),
            *(f"--{kind}-client-urls={self.client_url}" for kind in ("listen", "advertise")),
            *("--unsafe-no-fsync", *self._flags, *tls),
        ]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)

    def send(self, number: signal.Signals) -> None:
        """Sends a signal to the process."""
        assert self._process is not None
        self._process.send_signal(number)

    def stop(self) -> None:
        """Kills the process, if it runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def etcdctl(self, *words: str) -> None:
        """Runs etcdctl against this member."""
        program = toolchain.binary(f"etcdctl{self._version}")
        command: list[str | Path] = [program, f"--endpoints={self.client_url}", *words]
        subprocess.run(command, check=True, capture_output=True, timeout=60)


async def serving(
    connections: Connections, *members: RealMember, credentials: Credentials | None = None
) -> list[Etcd]:
    """Waits until members answer, and returns their clients."""
    clients = connections.members(CLUSTER, [member.endpoint for member in members], credentials)
    found = [clients[member.endpoint] for member in members]
    for client in found:
        await eventually(partial(_follows, client), within=_START)
    return found


async def _follows(client: Etcd) -> bool:
    """Whether a member knows a leader."""
    with suppress(errors.Unreachable, errors.DeadlineExceeded):
        return (await client.status()).leader != 0
    return False


def free_ports(count: int) -> list[int]:
    """Returns ports that no process listens to, and that no earlier call has returned."""
    ports: list[int] = []
    while len(ports) < count:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        if port not in _given:
            _given.add(port)
            ports.append(port)
    return ports
