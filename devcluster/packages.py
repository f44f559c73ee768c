"""Installs the Debian packages that the cluster needs on the host, and names them first."""

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

#: Package -> a program or file that shows whether it is installed.
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
#: Packages with systemd services, which are not needed: the cluster starts the programs itself.
_SERVICES = ("containerd", "docker-registry")
_POLICY = Path("/usr/sbin/policy-rc.d")
#: The content identifies our policy, which a killed run may leave behind. The user may have another one.
_OUR_POLICY = "#!/bin/sh\n# pilothouse: while packages are being installed\nexit 101\n"
_TIMEOUT = 900.0
#: Seconds to wait for another apt or dpkg, such as a new machine's first upgrade; seconds between retries.
_PATIENCE, _PAUSE = 900.0, 5.0


def missing() -> list[str]:
    """Returns the packages whose program or file does not exist."""
    return [package for package, probe in PACKAGES.items() if not _present(probe)]


def unfinished() -> bool:
    """Returns whether there is a package to install, or a killed installation to clean up after."""
    return bool(missing()) or _policy_is_ours()


def install() -> None:
    """Prints the names of the missing packages and installs them.

    Raises:
        ClusterError: There is no apt-get, or it failed.
    """
    if missing() and not shutil.which("apt-get"):
        programs = ", ".join(PACKAGES[package] for package in missing())
        raise ClusterError(
            f"These programs are missing, and there is no apt-get to install them: {programs}. Install them."
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
    except CommandError:  # Usually the package lists are missing or outdated.
        _apt_get("update")
        _apt_get(*words)
    if Path("/run/systemd/system").exists():
        for service in set(_SERVICES) & set(wanted):
            run(["systemctl", "disable", "--now", service], timeout=60)


def _apt_get(*words: str) -> None:
    """Runs apt-get, and retries while another program holds one of its locks."""
    # Not with DPkg::Lock::Timeout: `update` ignores it, and the user would not see that it waits.
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
    deadline = time.monotonic() + _PATIENCE
    reported = False
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
                    f"Another program has locked apt-get for {_PATIENCE:.0f} s. Run this command again when "
                    f"that program has ended. The error was: {held}"
                ) from error
        if not reported:
            say(f"      waiting for another program to end: {held.strip()}")
            reported = True
        time.sleep(_PAUSE)


def _present(probe: str) -> bool:
    return Path(probe).exists() if probe.startswith("/") else shutil.which(probe) is not None


@contextmanager
def _services_left_alone() -> Iterator[None]:
    """Prevents packages from starting services, with a policy (invoke-rc.d(8)). Keeps a user's policy."""
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
