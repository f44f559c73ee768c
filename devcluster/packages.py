"""Debian packages that the cluster needs on the host: named, then installed, once."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from devcluster import folders
from devcluster.progress import say
from devcluster.shell import ClusterError, CommandError, run

#: Package -> the program or file by which its presence is known.
PACKAGES: Mapping[str, str] = {
    "containerd": "containerd",
    "runc": "runc",
    "containernetworking-plugins": "/usr/lib/cni/bridge",
    "docker-registry": "docker-registry",
    "buildah": "buildah",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "ipset": "ipset",
    "iproute2": "ip",
    "util-linux": "unshare",
    "openssl": "openssl",
    "busybox-static": "/bin/busybox",
    "debootstrap": "debootstrap",
    "gcc": "gcc",
    "libc6-dev": "/usr/lib/x86_64-linux-gnu/libc.a",
}
#: Packages that bring services which a machine with systemd would run; the cluster starts its own.
_SERVICES = ("containerd", "docker-registry")
_POLICY = Path("/usr/sbin/policy-rc.d")
#: Tells our policy, which a killed run may leave, from one that the user put there.
_OUR_POLICY = "#!/bin/sh\n# pilothouse: while packages are being installed\nexit 101\n"
_TIMEOUT = 900.0
#: Seconds that another apt or dpkg may take, such as a new machine's first upgrade; seconds between tries.
_PATIENCE, _PAUSE = 900.0, 5.0


def missing() -> list[str]:
    """The packages whose program or file is not here."""
    return [package for package, probe in PACKAGES.items() if not _present(probe)]


def unfinished() -> bool:
    """Whether there is something to install, or to clean after an installation that was killed."""
    return bool(missing()) or _policy_is_ours()


def install() -> None:
    """Installs what is missing; says what before it does.

    Raises:
        ClusterError: this is no Debian, or apt-get failed.
    """
    if missing() and not shutil.which("apt-get"):
        programs = ", ".join(PACKAGES[package] for package in missing())
        raise ClusterError(
            f"these programs are needed, and there is no apt-get to install them with: {programs}"
        )
    with (
        folders.locked(folders.cache() / "packages.lock", "installing Debian packages"),
        _services_left_alone(),
    ):
        wanted = missing()
        if wanted:
            _install(wanted)


def _install(wanted: list[str]) -> None:
    say(f"      installing the Debian packages {' '.join(wanted)}")
    words = ("install", "--yes", "--no-install-recommends", *wanted)
    try:
        _apt_get(*words)
    except CommandError:  # usually package lists that are missing or old
        _apt_get("update")
        _apt_get(*words)
    if Path("/run/systemd/system").exists():
        for service in set(_SERVICES) & set(wanted):
            run(["systemctl", "disable", "--now", service], timeout=60)


def _apt_get(*words: str) -> None:
    """Runs apt-get, again and again while another program holds one of its locks."""
    # Not with DPkg::Lock::Timeout: `update` does not heed it, and nobody would see it wait.
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
    deadline = time.monotonic() + _PATIENCE
    said = False
    while True:
        try:
            run(["apt-get", *words], timeout=_TIMEOUT, env=environment)
            return
        except CommandError as error:
            held = next((line for line in str(error).splitlines() if "Could not get lock" in line), "")
            if not held:
                raise
            if time.monotonic() > deadline:
                raise ClusterError(
                    f"another program keeps apt-get from its work: run this again when it has ended ({held})"
                ) from error
        if not said:
            say(f"      waiting until another program is done: {held.strip()}")
            said = True
        time.sleep(_PAUSE)


def _present(probe: str) -> bool:
    return Path(probe).exists() if probe.startswith("/") else shutil.which(probe) is not None


@contextmanager
def _services_left_alone() -> Iterator[None]:
    """Keeps packages from starting their services, Debian's way (invoke-rc.d(8)); the user's policy stays."""
    if _POLICY.exists() and not _policy_is_ours():
        yield
        return
    _POLICY.write_text(_OUR_POLICY)
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        _POLICY.unlink()


def _policy_is_ours() -> bool:
    return _POLICY.exists() and _POLICY.read_text() == _OUR_POLICY
