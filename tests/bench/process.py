"""What the operator's process on a local node costs, as the kernel counts it."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from devcluster.shell import run

_TICKS = os.sysconf("SC_CLK_TCK")
MIB = 1024.0 * 1024.0


@dataclass(frozen=True)
class Memory:
    """Memory in MiB.

    Attributes:
        resident: VmRSS.
        peak: VmHWM.
        working_set: The container's cgroup: usage less inactive file pages, as the kubelet counts it.
    """

    resident: float
    peak: float
    working_set: float


#: Run inside the pod's network namespace: prints when /readyz first answered 200.
_WAIT_READY = """
import sys, time, urllib.request
while True:
    try:
        urllib.request.urlopen("http://127.0.0.1:8081/readyz", timeout=1).close()
    except OSError:
        time.sleep(0.005)
        continue
    print(time.clock_gettime(time.CLOCK_BOOTTIME))
    break
"""


class Process:
    """The operator's process of a pod, found by the pod's UID in its cgroup.

    Args:
        pod_uid: The pod's UID.
        module: The Python module that the process runs.

    Raises:
        LookupError: There is no such process on this machine.
    """

    def __init__(self, pod_uid: str, module: str) -> None:
        marks = (pod_uid, pod_uid.replace("-", "_"))
        found = [pid for pid in _operators(module) if any(mark in _read(pid, "cgroup") for mark in marks)]
        if not found:
            raise LookupError(f"no process of pod {pod_uid} on this machine: figures need the local cluster")
        self.pid = found[0]

    def memory(self) -> Memory:
        """What it holds now."""
        status = dict(line.split(":", 1) for line in _read(self.pid, "status").splitlines() if ":" in line)
        kib = {name: float(status[name].split()[0]) for name in ("VmRSS", "VmHWM")}
        return Memory(kib["VmRSS"] / 1024, kib["VmHWM"] / 1024, self._working_set())

    def cpu_seconds(self) -> float:
        """User and system CPU time since its start."""
        fields = _read(self.pid, "stat").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def _working_set(self) -> float:
        groups = dict(line.split(":", 2)[1:] for line in _read(self.pid, "cgroup").splitlines())
        if "memory" in groups:
            folder = Path("/sys/fs/cgroup/memory" + groups["memory"])
            usage, key = "memory.usage_in_bytes", "total_inactive_file"
        else:
            folder = Path("/sys/fs/cgroup" + groups[""])
            usage, key = "memory.current", "inactive_file"
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return (int((folder / usage).read_text()) - int(stat[key])) / MIB


def seconds_to_ready(old: int, module: str, patience: float = 60.0) -> float:
    """Seconds from the start of the next operator's process until its /readyz answers 200.

    Args:
        old: The operator's process that is being replaced.
        module: The Python module that it runs.
        patience: Seconds for the next one to appear and get ready.
    """
    deadline = time.monotonic() + patience
    while not (new := [pid for pid in _operators(module) if pid != old]):
        if time.monotonic() > deadline:
            raise TimeoutError(f"no new process of the operator within {patience:.0f} s")
        time.sleep(0.005)
    pid = new[0]
    started = int(_read(pid, "stat").rpartition(")")[2].split()[19]) / _TICKS
    ready = run(
        ["nsenter", "--target", str(pid), "--net", sys.executable, "-c", _WAIT_READY], timeout=patience
    )
    return float(ready) - started


def _operators(module: str) -> list[int]:
    """Every process of an operator that runs in a pod."""
    pids = [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]
    return [pid for pid in pids if module in _read(pid, "cmdline") and "pod" in _read(pid, "cgroup")]


def _read(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text()
    except OSError:
        return ""
