"""What a process of this machine costs, as the kernel counts it."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Self

_TICKS = os.sysconf("SC_CLK_TCK")
STOP_SECONDS = 60.0


class Memory(NamedTuple):
    """VmRSS and VmHWM in MiB."""

    resident: float
    peak: float


class Contestant:
    """A started controller; a context manager that ends it.

    Attributes:
        sockets: The most that it had open at a time.
        log: See there.
        started: When, in seconds since the epoch.

    Args:
        argv: What is run.
        environment: Its whole environment.
        log: The file that takes what it writes.
    """

    def __init__(self, argv: Sequence[str | Path], environment: Mapping[str, str], log: Path) -> None:
        self.sockets = 0
        self.log = log
        self._peak = 0.0
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as output:
            self.started = time.time()
            self._process = subprocess.Popen(
                argv, env=dict(environment), stdout=output, stderr=output, start_new_session=True
            )
        self._stop = threading.Event()
        self._sampler = threading.Thread(target=self._sample, daemon=True)
        self._sampler.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._sampler.join()
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def wait(self) -> int:
        """Blocks until it has ended; returns its exit code."""
        return self._process.wait()

    def check(self) -> None:
        """Raises RuntimeError when the process has ended by itself."""
        if self._process.poll() is not None:
            tail = self.log.read_text(errors="replace")[-2000:]
            raise RuntimeError(f"{self._process.args!r} ended with {self._process.returncode}:\n{tail}")

    @property
    def pids(self) -> list[int]:
        """Its process, and those that it has started and that still run."""
        return _family(self._process.pid)

    def cpu_seconds(self) -> float:
        """User and system CPU time since its start, children included."""
        return sum(_cpu(pid) for pid in self.pids)

    def on_cpu_seconds(self) -> float:
        """CPU time of the threads that run now, children's included: nanoseconds count, ended threads do not.

        For what hardly works: `cpu_seconds` is counted in hundredths of a second.
        """
        return sum(_on_cpu(pid, thread) for pid in self.pids for thread in _threads(pid))

    def memory(self) -> Memory:
        """What it holds now, children included, and the most that it held.

        That is the kernel's count for the main process, or more where the samples have seen more with the
        children; pages that processes share count for each.
        """
        states = [_status(pid) for pid in self.pids]
        return Memory(sum(each.resident for each in states), max(states[0].peak, self._peak))

    def _sample(self) -> None:
        folder = f"/proc/{self._process.pid}/fd"
        while not self._stop.wait(0.25):
            try:
                names = os.listdir(folder)
            except OSError:
                return
            self.sockets = max(self.sockets, sum(_is_socket(f"{folder}/{name}") for name in names))
            self._peak = max(self._peak, sum(_status(pid).resident for pid in self.pids))


def _family(pid: int) -> list[int]:
    # A child belongs to the thread that has started it: in a Go program that may be any.
    children = [
        child for thread in _threads(pid) for child in _read(f"/proc/{pid}/task/{thread}/children").split()
    ]
    return [pid, *(each for child in children for each in _family(int(child)))]


def _threads(pid: int) -> list[str]:
    try:
        return os.listdir(f"/proc/{pid}/task")
    except OSError:
        return []


def _is_socket(path: str) -> bool:
    try:
        return os.readlink(path).startswith("socket:")
    except OSError:
        return False


def _cpu(pid: int) -> float:
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    # With that of the children that have ended: ansible-operator starts some for each reconcile.
    return sum(int(field) for field in fields[11:15]) / _TICKS


def _on_cpu(pid: int, thread: str) -> float:
    # The first field, see "/proc/<pid>/schedstat" in the kernel's Documentation/scheduler/sched-stats.rst.
    fields = _read(f"/proc/{pid}/task/{thread}/schedstat").split()
    return int(fields[0]) / 1e9 if fields else 0.0


def _status(pid: int) -> Memory:
    lines = _read(f"/proc/{pid}/status").splitlines()
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    # One that has ended, and was not waited for yet, has no memory.
    return Memory(*(float(fields.get(name, "0").split()[0]) / 1024 for name in ("VmRSS", "VmHWM")))


def _read(path: str) -> str:
    """What is in a file of a process; nothing when the process is gone."""
    try:
        return Path(path).read_text()
    except OSError:
        return ""
