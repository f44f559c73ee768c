"""Installing Debian packages, with a script in place of apt-get."""

from pathlib import Path

import pytest

from devcluster import packages
from devcluster.shell import ClusterError

HELD = "E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 7 (unattended-upgr)"
#: Records its arguments and the current policy for services. Fails once for each line of the file `busy`.
APT_GET = f"""#!/bin/sh
cd "$(dirname "$0")/.."
echo "$*" >> calls
cat policy-rc.d > met
if [ -s busy ]; then
    sed -i 1d busy
    echo "{HELD}" >&2
    exit 100
fi
touch thing
"""


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host whose apt-get installs its only package by creating the file `thing`."""
    program = tmp_path / "bin" / "apt-get"
    program.parent.mkdir()
    program.write_text(APT_GET)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(packages, "PACKAGES", {"package": str(tmp_path / "thing")})
    monkeypatch.setattr(packages, "_POLICY", tmp_path / "policy-rc.d")
    monkeypatch.setattr(packages, "_PAUSE", 0.0)
    return tmp_path


def test_services_do_not_start_while_packages_are_installed(host: Path) -> None:
    assert packages.unfinished()
    packages.install()
    assert "exit 101" in (host / "met").read_text()
    assert not (host / "policy-rc.d").exists()
    assert not packages.unfinished()


def test_the_user_s_policy_is_kept(host: Path) -> None:
    (host / "policy-rc.d").write_text("#!/bin/sh\nexit 101\n")
    packages.install()
    assert (host / "policy-rc.d").read_text() == "#!/bin/sh\nexit 101\n"
    assert not packages.unfinished()


@pytest.mark.parametrize("installed", [False, True])
def test_the_policy_left_by_a_killed_run_is_removed(host: Path, installed: bool) -> None:
    with packages._services_left_alone():
        left = (host / "policy-rc.d").read_text()
    (host / "policy-rc.d").write_text(left)
    if installed:
        (host / "thing").touch()
    assert packages.unfinished()
    packages.install()
    assert not (host / "policy-rc.d").exists()


def test_the_wait_for_another_program_s_lock_is_reported(
    host: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (host / "busy").write_text("1\n2\n")
    packages.install()
    assert [line.split()[0] for line in (host / "calls").read_text().splitlines()] == ["install"] * 3
    assert capsys.readouterr().err.count(f"waiting for another program to end: {HELD}") == 1


def test_a_lock_that_is_never_released_is_reported(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "_PATIENCE", 0.0)
    (host / "busy").write_text("again\n" * 9)
    with pytest.raises(
        ClusterError, match=r"Run this command again when that program has ended.*unattended-upgr"
    ):
        packages.install()
    assert not (host / "policy-rc.d").exists()
