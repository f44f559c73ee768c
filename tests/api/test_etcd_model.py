"""Real etcd passes the cases that the model passes in tests/unit/etcd, so the model can be trusted."""

import asyncio
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from devcluster import toolchain
from etcd_operator import errors
from etcd_operator.client import MemberClient
from etcd_operator.etcd import Endpoint, Etcd
from pilothouse.testing import eventually
from tests.api.etcd_members import free_ports
from tests.etcd.contract import DATA, ESSENTIAL, TOKEN, Case, Host

#: The suffixes of the binaries by minor version.
SUFFIXES = {5: "-3.5", 6: "", 7: "-3.7"}
# The soak tests run all cases on both. Here, those on 3.5 take less than 30 s.
_RUNS = ((5, DATA), (6, ESSENTIAL))
# Seconds. No case waits for it where all is well.
_PATIENT = 60.0


class RealHost(Host):
    """Runs processes of etcd on loopback ports."""

    def __init__(self, folder: Path, minor: int) -> None:
        self.version = toolchain.TOOLS[f"etcd{SUFFIXES[minor]}"].version.removeprefix("v")
        self._folder = folder
        self._minor = minor
        self._ports: dict[str, tuple[int, int]] = {}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._clients: dict[str, MemberClient] = {}

    def start(
        self, name: str, initial: Sequence[str], *, state: str = "new", token: str = TOKEN, minor: int = 0
    ) -> None:
        client_url = f"http://127.0.0.1:{self._of(name)[0]}"
        command: list[str | Path] = [
            toolchain.binary(f"etcd{SUFFIXES[minor or self._minor]}"),
            *(f"--name={name}", f"--data-dir={self._folder / name}", "--unsafe-no-fsync"),
            f"--initial-cluster={','.join(f'{each}={self.peer_url(each)}' for each in initial)}",
            *(f"--initial-cluster-state={state}", f"--initial-cluster-token={token}"),
            *(f"--{kind}-peer-urls={self.peer_url(name)}" for kind in ("listen", "initial-advertise")),
            *(f"--{kind}-client-urls={client_url}" for kind in ("listen", "advertise")),
        ]
        with self._log(name).open("wb") as log:
            self._processes[name] = subprocess.Popen(command, stdout=log, stderr=log)

    def kill(self, name: str) -> None:
        self._processes[name].kill()
        self._processes[name].wait()

    def terminate(self, name: str) -> None:
        self._processes[name].terminate()
        self._processes[name].wait()

    def wipe(self, name: str) -> None:
        shutil.rmtree(self._folder / name, ignore_errors=True)

    def freeze(self, name: str) -> None:
        self._processes[name].send_signal(signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        self._processes[name].send_signal(signal.SIGCONT)

    def ended(self, name: str) -> str:
        if self._processes[name].poll() is None:
            return ""
        return self._log(name).read_text().replace('\\"', '"')

    def peer_url(self, name: str) -> str:
        return f"http://127.0.0.1:{self._of(name)[1]}"

    def etcd(self, name: str) -> Etcd:
        if name not in self._clients:
            self._clients[name] = MemberClient(Endpoint("127.0.0.1", name, self._of(name)[0]))
        return self._clients[name]

    async def until(self, condition: Callable[[], Awaitable[Any]]) -> Any:
        async def attempt() -> Any:
            with suppress(errors.EtcdError):
                return await condition()

        return await eventually(attempt, within=_PATIENT)

    async def enable_auth(self, name: str) -> None:
        for words in ("user add root:secret", "user grant-role root root", "auth enable"):
            program = toolchain.binary(f"etcdctl{SUFFIXES[self._minor]}")
            arguments = [f"--endpoints=127.0.0.1:{self._of(name)[0]}", *words.split()]
            run = partial(subprocess.run, check=True, capture_output=True, timeout=60)
            await asyncio.to_thread(run, [program, *arguments])

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def close(self) -> None:
        """Kills all members and closes the connections."""
        for client in self._clients.values():
            client.close()
        for process in self._processes.values():
            process.kill()
            process.wait()
        await asyncio.sleep(0)

    def _of(self, name: str) -> tuple[int, int]:
        if name not in self._ports:
            client, peer = free_ports(2)
            self._ports[name] = (client, peer)
        return self._ports[name]

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.log"


@pytest.fixture
async def host(tmp_path: Path, minor: int) -> AsyncIterator[RealHost]:
    host = RealHost(tmp_path, minor)
    yield host
    await host.close()


@pytest.mark.parametrize(
    ("minor", "case"),
    [pytest.param(minor, case, id=f"3.{minor}-{case.__name__}") for minor, cases in _RUNS for case in cases],
)
async def test_etcd_behaves_like_the_model(case: Case, host: RealHost) -> None:
    await case(host)
