"""Starts and stops nodes in namespaces and cgroups of their own, and removes everything they leave."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from devcluster import folders
from devcluster.addresses import Addresses
from devcluster.node import HOME, INTERFACE, Node
from devcluster.shell import ClusterError, CommandError, run, succeeds
from devcluster.supervisor import Spec

#: Seconds in which a node stops gracefully: three stages, the pods, and a margin.
_STOP_TIMEOUT = 45.0


def start(node: Node, spec: Spec) -> None:
    """Starts a node's supervisor in new namespaces, connects it to the bridge and waits until it is set up.

    Raises:
        ClusterError: The supervisor did not start.
    """
    spec_file, log = node.folder / "spec.json", node.folder / "log" / "supervisor.log"
    spec.save(spec_file)
    (node.folder / "status.json").unlink(missing_ok=True)
    Path(HOME).mkdir(parents=True, exist_ok=True)
    supervise = [sys.executable, "-m", "devcluster.supervisor", f"{HOME}/spec.json"]
    # The bind mount has to exist before the supervisor reads its specification from it.
    script = 'mount --make-rprivate / && mount --bind "$0" "$1" && shift && exec "$@"'
    unshare = [
        "unshare",
        "--net",
        "--mount",
        "--pid",
        "--uts",
        "--ipc",
        "--fork",
        "--mount-proc",
        "--kill-child",
    ]
    environment = {**spec.environment, "PYTHONPATH": str(folders.CHECKOUT), "PYTHONDONTWRITEBYTECODE": "1"}
    with log.open("a") as sink:
        outer = subprocess.Popen(
            [*unshare, "sh", "-c", script, str(node.folder), HOME, *supervise],
            stdin=subprocess.DEVNULL, stdout=sink, stderr=sink,
            env=environment, cwd="/", start_new_session=True,
        )  # fmt: skip
    inner = _child_of(outer)
    _enter_cgroups(node.addresses.cgroup, [outer.pid, inner])
    (node.folder / "pid").write_text(json.dumps([inner, _started(inner)]))
    _plug_in(node, inner)
    deadline = time.monotonic() + 30
    while not (node.folder / "status.json").exists():
        if outer.poll() is not None or time.monotonic() > deadline:
            tail = "\n  ".join(log.read_text().splitlines()[-5:])
            raise ClusterError(f"{node.name} did not start (complete log: {log}):\n  {tail}")
        time.sleep(0.05)


def running(node: Node) -> int:
    """Returns the process id of a node's supervisor on the host; 0 if it is not running."""
    try:
        pid, started = json.loads((node.folder / "pid").read_text())
    except (FileNotFoundError, ValueError):
        return 0
    return int(pid) if _started(pid) == started else 0


def stop(node: Node) -> None:
    """Stops a node gracefully, and kills it if that takes too long."""
    pid = running(node)
    if pid:
        os.kill(pid, signal.SIGTERM)
        _wait_gone({pid}, _STOP_TIMEOUT)


def sweep(addresses: Addresses, state: Path) -> None:
    """Removes what a stopped or killed cluster left: processes, mounts, interfaces and cgroups.

    Raises:
        ClusterError: An interface or cgroup cannot be removed.
    """
    left = set(processes(addresses))
    for pid in left:
        _kill(pid)
    _wait_gone(left, 10)
    for mount in sorted(mounts(state), key=len, reverse=True):
        run(["umount", "--lazy", mount], timeout=10)
    for name in interfaces(addresses):
        # May fail: the end of a veth pair is also deleted together with its other end.
        succeeds(["ip", "link", "delete", name], timeout=10)
    _remove_cgroups(addresses)
    if interfaces(addresses):
        raise ClusterError(
            f"Could not remove the network interface {interfaces(addresses)[0]}. "
            f"'ip link delete {interfaces(addresses)[0]}' shows the reason."
        )


def processes(addresses: Addresses) -> Iterator[int]:
    """Yields the host's ids of the processes in the cluster's cgroups or started by its supervisors."""
    mark = f"PILOTHOUSE_CLUSTER={addresses.cluster}".encode()
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        try:
            member = f"/{addresses.cgroup}/" in (folder / "cgroup").read_text()
            if member or mark in (folder / "environ").read_bytes().split(b"\0"):
                yield int(folder.name)
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # The process has ended.


def mounts(state: Path) -> list[str]:
    """Returns the host's mount points below the state folder."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = (line.split()[4].replace(r"\040", " ") for line in lines)
    return [point for point in points if point.startswith(f"{state}/")]


def interfaces(addresses: Addresses) -> list[str]:
    """Returns the host's network interfaces that belong to the cluster."""
    links = json.loads(run(["ip", "-j", "link"], timeout=10))
    return [link["ifname"] for link in links if link["ifname"].startswith(addresses.bridge)]


def cgroups(addresses: Addresses) -> list[Path]:
    """Returns the cluster's cgroup in every hierarchy in which it exists."""
    return [path for path in (root / addresses.cgroup for root in _hierarchies()) if path.is_dir()]


def _hierarchies(mounted: Path = Path("/proc/self/mountinfo")) -> list[Path]:
    """Returns the roots of all cgroup hierarchies: one with cgroup v2, one per controller with v1."""
    lines = mounted.read_text().splitlines()
    roots = {line.split()[4] for line in lines if line.split(" - ")[1].split()[0] in ("cgroup", "cgroup2")}
    return [Path(root) for root in sorted(roots)]


def _enter_cgroups(name: str, pids: list[int]) -> None:
    for root in _hierarchies():
        top = root / name
        inner = top / "node"
        for folder in (top, inner):
            if (folder.parent / "cgroup.subtree_control").exists():
                _delegate(folder.parent)
            folder.mkdir(exist_ok=True)
            for file in ("cpuset.cpus", "cpuset.mems"):  # With v1, an empty cpuset rejects processes.
                if (folder / file).exists() and not (folder / file).read_text().strip():
                    (folder / file).write_text((folder.parent / file).read_text())
        for pid in pids:
            (inner / "cgroup.procs").write_text(str(pid))


def _delegate(folder: Path) -> None:
    """Enables the controllers of a v2 cgroup for its children (not needed with v1)."""
    for controller in (folder / "cgroup.controllers").read_text().split():
        # If the kubelet needs a controller that cannot be enabled, it reports that.
        with suppress(OSError):
            (folder / "cgroup.subtree_control").write_text(f"+{controller}")


def _plug_in(node: Node, pid: int) -> None:
    bridge, link = node.addresses.bridge, node.addresses.link(node.index)
    if not Path("/sys/class/net", bridge).exists():
        run(["ip", "link", "add", bridge, "type", "bridge"], timeout=10)
        run(["ip", "address", "add", f"{node.addresses.host}/24", "dev", bridge], timeout=10)
        run(["ip", "link", "set", bridge, "up"], timeout=10)
    peer = ["peer", "name", INTERFACE, "netns", str(pid)]
    run(["ip", "link", "add", link, "type", "veth", *peer], timeout=10)
    run(["ip", "link", "set", link, "master", bridge, "up"], timeout=10)


def _child_of(outer: subprocess.Popen[bytes]) -> int:
    """Returns the id of the process that unshare forks: process 1 of the new namespaces."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and outer.poll() is None:
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit() and _parent(int(folder.name)) == outer.pid:
                return int(folder.name)
        time.sleep(0.02)
    raise ClusterError(
        "'unshare' could not create new namespaces: this machine or container forbids it. "
        "Use a machine that allows it, or a container with --privileged."
    )


def _stat(pid: int) -> list[str]:
    """Returns the fields of /proc/PID/stat after the program's name: state, parent, ... (see proc(5))."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def _parent(pid: int) -> int:
    fields = _stat(pid)
    return int(fields[1]) if fields else 0


def _started(pid: int) -> int:
    """Returns the start time of a process in clock ticks, or 0 if it has ended.

    A later process may have the same id, but not the same start time.
    """
    fields = _stat(pid)
    return int(fields[19]) if fields and fields[0] != "Z" else 0


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _wait_gone(pids: set[int], timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while any(_started(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    for pid in pids:
        _kill(pid)


def _remove_cgroups(addresses: Addresses) -> None:
    """Removes the cluster's cgroups, children first. The kernel may need a moment to release them."""
    deadline = time.monotonic() + 10
    while remaining := cgroups(addresses):
        for top in remaining:
            for folder in sorted(top.rglob("*/"), reverse=True):
                _remove_cgroup(folder)
            _remove_cgroup(top)
        if time.monotonic() > deadline:
            raise ClusterError(
                f"The cgroup {remaining[0]} is still busy. Run './inv cluster.down' again in a moment."
            )
        time.sleep(0.05)


def _remove_cgroup(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        return  # Still busy: the caller retries until its deadline.


def remove_state(state: Path) -> None:
    """Deletes the state folder of a stopped cluster.

    Raises:
        CommandError: There is still a mount below it.
    """
    if mounts(state):
        raise CommandError(f"{mounts(state)[0]} is still mounted. Run './inv cluster.down' first.")
    shutil.rmtree(state, ignore_errors=True)
