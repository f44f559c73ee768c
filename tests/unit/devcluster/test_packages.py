"""Installing Debian packages, with an apt-get played by a script."""

from pathlib import Path

import pytest

from devcluster import packages
from devcluster.shell import ClusterError

HELD = "E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 7 (unattended-upgr)"
#: Notes its arguments and the policy that services meet; refuses as often as the file `busy` has lines.
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
    """A host whose apt-get installs the one package there is, by making the file `thing`."""
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


def test_services_are_kept_from_starting_while_packages_are_installed(host: Path) -> None:
    assert packages.unfinished()
    packages.install()
    assert "exit 101" in (host / "met").read_text()
    assert not (host / "policy-rc.d").exists()
    assert not packages.unfinished()


def test_the_user_s_policy_stays(host: Path) -> None:
    (host / "policy-rc.d").write_text("#!/bin/sh\nexit 101\n")
    packages.install()
    assert (host / "policy-rc.d").read_text() == "#!/bin/sh\nexit 101\n"
    assert not packages.unfinished()


@pytest.mark.parametrize("installed", [False, True])
def test_the_policy_that_a_killed_run_left_goes(host: Path, installed: bool) -> None:
    with packages._services_left_alone():
        left = (host / "policy-rc.d").read_text()
    (host / "policy-rc.d").write_text(left)
    if installed:
        (host / "thing").touch()
    assert packages.unfinished()
    packages.install()
    assert not (host / "policy-rc.d").exists()


def test_another_program_s_lock_is_waited_for_and_named(
    host: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (host / "busy").write_text("1\n2\n")
    packages.install()
    assert [line.split()[0] for line in (host / "calls").read_text().splitlines()] == ["install"] * 3
    assert capsys.readouterr().err.count(f"waiting until another program is done: {HELD}") == 1


def test_a_lock_that_is_held_for_ever_is_named(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "_PATIENCE", 0.0)
    (host / "busy").write_text("again\n" * 9)
    with pytest.raises(ClusterError, match=r"run this again when it has ended.*unattended-upgr"):
        packages.install()
    assert not (host / "policy-rc.d").exists()
