"""What a machine must be and have before anything is begun: each lack is one sentence with its remedy."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from devcluster import folders, toolchain
from devcluster.shell import ClusterError, succeeds

_GIB = 1 << 30
#: Bytes. Building leaves 12 GiB in Go's caches and 3 GiB of tools and images; a cluster takes 2 GiB.
DISK_TO_BUILD, DISK_TO_RUN = 20 * _GIB, 3 * _GIB
#: Bytes. The node with OLM takes 1 GiB; linking Kubernetes takes 3 GiB.
MEMORY_TO_BUILD, MEMORY_TO_RUN = 4 * _GIB, 2 * _GIB
#: Kernel module -> whether what it brings is there.
_KERNEL_PROOFS: Mapping[str, Callable[[], bool]] = {
    "br_netfilter": lambda: Path("/proc/sys/net/bridge/bridge-nf-call-iptables").exists(),
    "overlay": lambda: "\toverlay\n" in Path("/proc/filesystems").read_text(),
}


def check_user() -> None:
    """Checks the kind of machine, and who runs this.

    Raises:
        ClusterError: the first thing that is wrong.
    """
    complain(platform.system(), platform.machine(), os.geteuid(), Path("/proc/self/ns/net").exists())


def check_resources() -> None:
    """Checks disk and memory, and Go when something is to be built.

    Raises:
        ClusterError: the first thing that is wrong.
    """
    build = bool(toolchain.missing(toolchain.CLUSTER_TOOLS))
    if build:
        toolchain.go()
    for folder in {folders.cache(), folders.clusters()}:
        folder.mkdir(parents=True, exist_ok=True)
        complain_disk(folder, shutil.disk_usage(folder).free, DISK_TO_BUILD if build else DISK_TO_RUN)
    complain_memory(_available_memory(), MEMORY_TO_BUILD if build else MEMORY_TO_RUN)


def check_kernel() -> None:
    """Checks that the kernel has what pods' networks and file systems need, loading modules where it can.

    Raises:
        ClusterError: it has not.
    """
    for module, proof in _KERNEL_PROOFS.items():
        if not proof() and not (succeeds(["modprobe", module], timeout=30) and proof()):
            raise ClusterError(
                f"this kernel lacks {module}, which pods need: load that module (modprobe {module})"
            )


def complain(system: str, machine: str, user: int, namespaces: bool) -> None:
    """Refuses a machine that is not Linux on x86-64 with namespaces, and a user who is not root."""
    elsewhere = "set KUBECONFIG to use a cluster that you have (kind, k3d, OpenShift)"
    if system != "Linux":
        raise ClusterError(f"the local cluster needs Linux, and this is {system}: use Linux, or {elsewhere}")
    if machine != "x86_64":
        raise ClusterError(
            f"the local cluster is made for x86_64, and this machine is {machine}: {elsewhere}"
        )
    if user != 0:
        raise ClusterError(
            f"the local cluster needs root, to make namespaces and mounts: use sudo, or {elsewhere}"
        )
    if not namespaces:
        raise ClusterError(f"this kernel has no network namespaces: {elsewhere}")


def complain_disk(folder: Path, free: int, needed: int) -> None:
    """Refuses too little disk; `free` and `needed` in bytes."""
    if free < needed:
        raise ClusterError(
            f"{folder} has {free / _GIB:.1f} GiB free and {needed / _GIB:.0f} GiB are needed: free some, or "
            f"set XDG_CACHE_HOME and XDG_STATE_HOME to folders on a larger disk"
        )


def complain_memory(available: int, needed: int) -> None:
    """Refuses too little memory; both in bytes."""
    if available < needed:
        raise ClusterError(
            f"{available / _GIB:.1f} GiB of memory are available and {needed / _GIB:.0f} GiB are needed: "
            f"end other programs, or use a larger machine"
        )


def _available_memory() -> int:
    fields = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
    return next(int(words[1]) * 1024 for words in fields if words[0] == "MemAvailable:")
