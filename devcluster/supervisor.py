"""Process 1 of a node's namespaces: prepares them, and starts and restarts the node's components.

Run as `python -m devcluster.supervisor SPEC`, with a file that `Spec.save` wrote. SIGTERM stops the
components stage by stage, and the processes of pods after the first stage. The kernel then ends what is left
in the namespaces. This file imports only the standard library, so that a changed checkout does not affect it.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

#: Seconds before the first restart. The delay doubles up to the longest one, and starts over when a component
#: has run for longer than GOOD_WHILE.
FIRST_RESTART, LONGEST_RESTART, GOOD_WHILE = 0.5, 30.0, 60.0
#: Seconds between SIGTERM and SIGKILL, for the components of one stage and for the processes of pods.
STOP_GRACE = 8.0
POD_GRACE = 5.0
#: Bytes at which a log file starts over. One earlier part is kept.
LOG_LIMIT = 64 << 20
_TICK = 0.2


@dataclass(frozen=True)
class Component:
    """One long-running program of the node."""

    name: str
    argv: list[str]
    #: Stages stop from the highest to the lowest.
    stage: int
    #: An https URL that must respond with 200 before the first start; empty for none.
    after: str = ""


@dataclass(frozen=True)
class Spec:
    """Everything that a supervisor has to do."""

    #: Commands that prepare the namespaces, run one after another once `interface` exists.
    setup: list[list[str]]
    interface: str
    #: Kernel settings: file below /proc/sys -> value.
    settings: dict[str, str]
    components: list[Component]
    environment: dict[str, str]
    #: The CA file that verifies the URLs of `after`.
    authority: str
    logs: str
    status: str
    #: Folders that hold pods' cgroups.
    pods: list[str] = field(default_factory=list)
    #: A hash of the files that the components read, so that a changed file changes the specification.
    files: str = ""

    def save(self, path: Path) -> None:
        """Writes the specification to a file for `load`."""
        path.write_text(json.dumps(asdict(self), indent=1))

    @staticmethod
    def load(path: Path) -> Spec:
        """Reads a specification that `save` wrote."""
        document = json.loads(path.read_text())
        components = [Component(**component) for component in document.pop("components")]
        return Spec(components=components, **document)


@dataclass
class Child:
    """A component and its current process."""

    component: Component
    pid: int = 0
    started: float = 0.0
    restarts: int = 0
    delay: float = FIRST_RESTART
    due: float = 0.0
    last_exit: str = ""


class Supervisor:
    """Keeps the components of a specification running until it receives SIGTERM or SIGINT."""

    def __init__(self, spec: Spec) -> None:
        self._spec = spec
        self._children = [Child(component) for component in spec.components]
        self._passed_gates = {""}
        self._rotated = time.monotonic()

    def run(self) -> None:
        """Prepares the namespaces, runs the components until SIGTERM or SIGINT, then stops everything."""
        signals = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT}
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        prepare(self._spec)
        while True:
            self._reap()
            self._start_due()
            self._rotate_logs()
            received = signal.sigtimedwait(signals, _TICK)
            if received and received.si_signo in (signal.SIGTERM, signal.SIGINT):
                break
        self._stop()

    def _start_due(self) -> None:
        now = time.monotonic()
        for child in self._children:
            if not child.pid and child.due <= now and self._gate_open(child.component.after):
                child.started = now
                try:
                    child.pid = self._spawn(child.component)
                except OSError as error:  # The program does not exist or is not executable.
                    self._note_end(child, str(error))
                self._save_status()

    def _gate_open(self, url: str) -> bool:
        if url not in self._passed_gates and _answers(url, self._spec.authority):
            self._passed_gates.add(url)
        return url in self._passed_gates

    def _spawn(self, component: Component) -> int:
        log = os.path.join(self._spec.logs, f"{component.name}.log")
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        return os.posix_spawnp(
            component.argv[0],
            component.argv,
            self._spec.environment,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, log, flags, 0o644),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
            setsigmask=(),
        )

    def _reap(self) -> None:
        for pid, status in _ended_children():
            for child in self._children:
                if child.pid == pid:
                    code = os.waitstatus_to_exitcode(status)
                    self._note_end(child, f"status {code}" if code >= 0 else f"signal {-code}")

    def _note_end(self, child: Child, how: str) -> None:
        now = time.monotonic()
        if now - child.started > GOOD_WHILE:
            child.delay = FIRST_RESTART
        child.last_exit = how
        child.pid, child.due = 0, now + child.delay
        child.delay = min(child.delay * 2, LONGEST_RESTART)
        child.restarts += 1
        print(f"{child.component.name} ended: {how}", flush=True)
        self._save_status()

    def _save_status(self) -> None:
        status = {
            child.component.name: {
                "running": bool(child.pid),
                "restarts": child.restarts,
                "last_exit": child.last_exit,
            }
            for child in self._children
        }
        draft = self._spec.status + ".draft"
        Path(draft).write_text(json.dumps(status))
        os.replace(draft, self._spec.status)

    def _rotate_logs(self) -> None:
        if time.monotonic() - self._rotated < 30:
            return
        self._rotated = time.monotonic()
        for log in Path(self._spec.logs).glob("*.log"):
            if log.stat().st_size > LOG_LIMIT:
                shutil.copyfile(log, log.with_suffix(".log.1"))
                os.truncate(log, 0)  # The component appends, so it continues at the new end.

    def _stop(self) -> None:
        print("stopping", flush=True)
        stages = sorted({child.component.stage for child in self._children}, reverse=True)
        for stage in stages:
            _end({child.pid for child in self._children if child.component.stage == stage} - {0}, STOP_GRACE)
            if stage == stages[0]:  # The kubelet has stopped: nothing restarts the pods.
                _end(set(_pod_processes(self._spec.pods)), POD_GRACE)
        print("stopped", flush=True)


def prepare(spec: Spec) -> None:
    """Turns the new namespaces into a node: mounts, addresses, kernel settings.

    Raises:
        SystemExit: A step failed. The message names it.
    """
    deadline = time.monotonic() + 15
    while spec.interface not in {name for _, name in socket.if_nameindex()}:
        if time.monotonic() > deadline:
            raise SystemExit(f"Timed out waiting for the network interface {spec.interface}.")
        time.sleep(0.02)
    for argv in spec.setup:
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise SystemExit(f"'{' '.join(argv)}' failed: {done.stderr.strip()}")
    for name, value in spec.settings.items():
        Path("/proc/sys", name).write_text(value)


def _ended_children() -> Iterator[tuple[int, int]]:
    """Reaps the processes that have ended, components and orphans of pods, and yields (pid, wait status)."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        yield pid, status


def _end(pending: set[int], grace: float) -> None:
    """Sends SIGTERM to the processes, and SIGKILL to those that still run after `grace` seconds."""
    _signal(pending, signal.SIGTERM)
    deadline = time.monotonic() + grace
    while pending and time.monotonic() < deadline:
        for _ in _ended_children():
            pass
        pending = {pid for pid in pending if os.path.exists(f"/proc/{pid}")}
        time.sleep(0.05)
    _signal(pending, signal.SIGKILL)


def _signal(pids: set[int], number: signal.Signals) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def _pod_processes(folders: list[str]) -> Iterator[int]:
    for folder in folders:
        for listing in Path(folder).rglob("cgroup.procs"):
            yield from map(int, listing.read_text().split())


def _answers(url: str, authority: str) -> bool:
    context = ssl.create_default_context(cafile=authority)
    server = urlsplit(url)
    connection = http.client.HTTPSConnection(server.netloc, timeout=1, context=context)
    try:
        connection.request("GET", server.path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def read_status(path: Path) -> dict[str, dict[str, Any]]:
    """Returns what a supervisor last wrote about its components; empty if it has not written yet."""
    try:
        return dict(json.loads(path.read_text()))
    except FileNotFoundError:
        return {}


if __name__ == "__main__":
    Supervisor(Spec.load(Path(sys.argv[1]))).run()
