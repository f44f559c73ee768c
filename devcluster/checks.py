"""Checks the machine before any work starts. Each failed check is one error that says how to fix it."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from devcluster import folders, toolchain
from devcluster.shell import ClusterError, succeeds

_GIB = 1 << 30
#: Bytes. A build leaves 12 GiB in Go's caches and 3 GiB of tools and images; a cluster takes 2 GiB.
DISK_TO_BUILD, DISK_TO_RUN = 20 * _GIB, 3 * _GIB
#: Bytes. The node with OLM takes 1 GiB; linking Kubernetes takes 3 GiB.
MEMORY_TO_BUILD, MEMORY_TO_RUN = 4 * _GIB, 2 * _GIB
#: Kernel module -> whether the kernel has the feature that the module provides.
_KERNEL_PROOFS: Mapping[str, Callable[[], bool]] = {
    "br_netfilter": lambda: Path("/proc/sys/net/bridge/bridge-nf-call-iptables").exists(),
    "overlay": lambda: "\toverlay\n" in Path("/proc/filesystems").read_text(),
}


def check_user() -> None:
    """Checks the operating system, the architecture and the user.

    Raises:
        ClusterError: A check failed; the message describes the first one.
    """
    complain(platform.system(), platform.machine(), os.geteuid(), Path("/proc/self/ns/net").exists())


def check_resources() -> None:
    """Checks the disk and the memory, and Go if a tool has to be built.

    Raises:
        ClusterError: A check failed; the message describes the first one.
    """
    build = bool(toolchain.missing(toolchain.CLUSTER_TOOLS))
    if build:
        toolchain.go()
    for folder in {folders.cache(), folders.clusters()}:
        folder.mkdir(parents=True, exist_ok=True)
        complain_disk(folder, shutil.disk_usage(folder).free, DISK_TO_BUILD if build else DISK_TO_RUN)
    complain_memory(_available_memory(), MEMORY_TO_BUILD if build else MEMORY_TO_RUN)


def check_kernel() -> None:
    """Checks that the kernel supports the pods' networks and file systems, and loads missing modules.

    Raises:
        ClusterError: A module is missing and cannot be loaded.
    """
    for module, proof in _KERNEL_PROOFS.items():
        if not proof() and not (succeeds(["modprobe", module], timeout=30) and proof()):
            raise ClusterError(
                f"The kernel module {module}, which pods need, is not loaded. Load it: modprobe {module}"
            )


def complain(system: str, machine: str, user: int, namespaces: bool) -> None:
    """Refuses a machine that is not Linux on x86-64 with network namespaces, and a user who is not root."""
    elsewhere = "set KUBECONFIG to use a cluster that you have (kind, k3d, OpenShift)"
    if system != "Linux":
        raise ClusterError(f"The local cluster needs Linux, but this is {system}. Use Linux, or {elsewhere}.")
    if machine != "x86_64":
        raise ClusterError(
            f"The local cluster needs an x86_64 machine, but this one is {machine}. Use one, or {elsewhere}."
        )
    if user != 0:
        raise ClusterError(
            f"The local cluster needs root to create namespaces and mounts. Use sudo, or {elsewhere}."
        )
    if not namespaces:
        raise ClusterError(
            f"This kernel has no network namespaces, which the local cluster needs. Use another machine, "
            f"or {elsewhere}."
        )


def complain_disk(folder: Path, free: int, needed: int) -> None:
    """Refuses a disk with too little free space; `free` and `needed` are in bytes."""
    if free < needed:
        raise ClusterError(
            f"{folder} has {free / _GIB:.1f} GiB free, but {needed / _GIB:.0f} GiB are needed. Free some "
            f"space, or set XDG_CACHE_HOME and XDG_STATE_HOME to folders on a larger disk."
        )


def complain_memory(available: int, needed: int) -> None:
    """Refuses too little available memory; both values are in bytes."""
    if available < needed:
        raise ClusterError(
            f"{available / _GIB:.1f} GiB of memory are available, but {needed / _GIB:.0f} GiB are needed. "
            f"Stop other programs, or use a larger machine."
        )


def _available_memory() -> int:
    fields = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
    return next(int(words[1]) * 1024 for words in fields if words[0] == "MemAvailable:")
