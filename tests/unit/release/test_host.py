"""`inv run`: when the operator is restarted, and the airline beside it."""

import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from devcluster.folders import CHECKOUT
from devcluster.kubectl import Kubectl
from devcluster.shell import ClusterError
from pilothouse.cli import children, supervise
from pilothouse.packaging.mistakes import ProjectError
from pilothouse.packaging.scaffold import TEMPLATE
from release import host
from release.host_airline import host_airline

KUBECTL = Kubectl(Path("kubectl"), Path("config"))


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The arguments of each call of kubectl."""
    calls: list[str] = []

    def call(self: Kubectl, *words: str) -> str:
        calls.append(" ".join(words))
        return ""

    monkeypatch.setattr(Kubectl, "__call__", call)
    return calls


def test_without_an_airline_in_the_cluster_one_is_started_here_and_takes_the_key(
    commands: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    with host_airline(KUBECTL) as found:
        assert found
        key = Path(found.environment["AIRLINE_API_KEY_FILE"])
        assert key.stat().st_mode & 0o077 == 0
        request = urllib.request.Request(
            f"{found.environment['AIRLINE_URL']}/bookings", headers={"X-API-Key": key.read_text()}
        )

        def answers() -> bool:
            found.keep()
            with suppress(OSError), urllib.request.urlopen(request, timeout=10) as answer:
                return bool(answer.status == 200)
            return False

        assert answers()
        found._process.kill()
        _until(answers)  # Restarted on the same port.
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(request, timeout=10)


def test_an_unknown_operator_names_the_known_ones() -> None:
    with pytest.raises(ClusterError, match=r"there is no operator 'etc'\. Use etcd, flights, or"):
        host.run("etc")


def test_a_project_is_run_with_its_own_sources_and_the_runtime() -> None:
    found = host._package(str(TEMPLATE))
    assert (found.module, found.source) == ("greeter_operator", TEMPLATE)
    assert found.python_path == f"{CHECKOUT / 'operator'}{os.pathsep}{TEMPLATE}"


def test_a_folder_is_relative_to_the_callers_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INV_CALLED_FROM", str(TEMPLATE.parent))
    assert host._package("./greeter").source == TEMPLATE


def test_a_project_needs_its_kinds_in_the_cluster(commands: list[str]) -> None:
    crds = TEMPLATE / "config" / "crd"
    with pytest.raises(
        ClusterError,
        match=f"has no kind greetings.demo.pilothouse.dev. .* kubectl apply --server-side -k {crds}",
    ):
        host._require_kinds(KUBECTL, host._package(str(TEMPLATE)))


# The signal is blocked, so that it is not lost if it arrives between 'started' and the wait: a handler that
# runs before signal.pause() would leave the process paused.
PROGRAM = (
    "import signal, sys\n"
    "log = open(sys.argv[1], 'a', buffering=1)\n"
    "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})\n"
    "print('started', file=log)\n"
    "signal.sigwait({signal.SIGTERM})\n"
    "print('ended', file=log)\n"
)


@dataclass
class Supervised:
    """A program under `supervise`, and a simulated user."""

    folder: Path
    why: str = ""
    pids: list[int] = field(default_factory=list)

    def lines(self) -> list[str]:
        """The output of the program, over all its starts."""
        log = self.folder / "log"
        return log.read_text().split() if log.exists() else []

    def started(self, times: int) -> bool:
        """Whether the program has started so often, and this process knows it."""
        return self.lines().count("started") == len(self.pids) == times

    def run(self, person: Callable[[], None]) -> None:
        """Supervises the program until the user has done what they do, and then interrupts it."""
        sources = self.folder / "sources"
        sources.mkdir()

        def begin() -> subprocess.Popen[bytes]:
            command = [sys.executable, "-c", PROGRAM, str(self.folder / "log")]
            process = children.start(command, dict(os.environ))
            self.pids.append(process.pid)
            return process

        def look() -> str:
            why, self.why = self.why, ""
            return why

        failures: list[BaseException] = []

        def act() -> None:
            try:
                person()
            except BaseException as failure:
                failures.append(failure)
            finally:
                # Also after a failure: otherwise the supervision would never end.
                os.kill(os.getpid(), signal.SIGTERM)

        thread = threading.Thread(target=act)
        with supervise.interrupted_by(signal.SIGTERM):
            thread.start()
            try:
                supervise.supervise(begin, sources, look)
            finally:
                with suppress(KeyboardInterrupt):
                    thread.join()
        if failures:
            raise failures[0]


@pytest.fixture
def supervised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Supervised:
    for name in ("CHECK", "CHECK_MORE", "PAUSE"):
        monkeypatch.setattr(supervise, name, 0.05)
    return Supervised(tmp_path)


def test_a_changed_source_restarts_the_operator_and_ctrl_c_stops_it_gracefully(
    supervised: Supervised,
) -> None:
    def person() -> None:
        _until(lambda: supervised.started(1))
        (supervised.folder / "sources" / "b.py").write_text("x = 1")
        _until(lambda: supervised.started(2))

    supervised.run(person)
    assert supervised.lines() == ["started", "ended", "started", "ended"]


def test_a_file_that_is_written_in_two_steps_is_one_change(tmp_path: Path) -> None:
    source = tmp_path / "a.py"
    source.write_text("x = 1")
    due = supervise._due(tmp_path, str)
    assert due() == ""
    source.write_text("")
    assert due() == "", "the editor may still write"
    source.write_text("x = 2")
    assert due() == ""
    assert due() == "the sources have changed"


def test_a_file_that_is_saved_without_a_change_is_not_a_change(tmp_path: Path) -> None:
    source = tmp_path / "a.py"
    source.write_text("x = 1")
    due = supervise._due(tmp_path, str)
    os.utime(source, ns=(1, 1))
    assert [due(), due(), due()] == ["", "", ""]
    source.unlink()
    assert due() == ""
    source.write_text("x = 1")
    assert [due(), due()] == ["", ""]


def test_ctrl_c_during_a_start_ends_the_supervision(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def begin() -> subprocess.Popen[bytes]:
        raise KeyboardInterrupt

    supervise.supervise(begin, tmp_path)
    assert capsys.readouterr().err == "stopping\n"


def test_a_second_signal_does_not_disturb_the_stop() -> None:
    ended = []

    def end() -> None:
        with supervise.interrupted_by(signal.SIGTERM, signal.SIGHUP):
            try:
                os.kill(os.getpid(), signal.SIGHUP)
            finally:
                os.kill(os.getpid(), signal.SIGTERM)
                ended.append(True)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        end()
    assert ended
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_reason_from_the_cluster_restarts_the_operator(
    supervised: Supervised, capsys: pytest.CaptureFixture[str]
) -> None:
    def person() -> None:
        _until(lambda: supervised.started(1))
        supervised.why = "its Lease belongs into namespace b now"
        _until(lambda: supervised.started(2))

    supervised.run(person)
    assert "its Lease belongs into namespace b now: restarting" in capsys.readouterr().err


def test_an_operator_that_exits_is_restarted_with_back_off(
    supervised: Supervised, capsys: pytest.CaptureFixture[str]
) -> None:
    def person() -> None:
        for times in (1, 2):
            _until(lambda times=times: supervised.started(times))
            os.kill(supervised.pids[-1], signal.SIGKILL)
        _until(lambda: supervised.started(3))

    supervised.run(person)
    assert capsys.readouterr().err.count("the operator has exited with code -9; restarting in") == 2


def test_wrong_settings_end_the_supervision(tmp_path: Path) -> None:
    def begin() -> subprocess.Popen[bytes]:
        return children.start([sys.executable, "-c", "import sys; sys.exit(2)"], dict(os.environ))

    with pytest.raises(ProjectError, match="the operator's settings are wrong"):
        supervise.supervise(begin, tmp_path, str)


def test_a_process_that_ends_with_0_at_its_start_is_not_restarted(tmp_path: Path) -> None:
    def begin() -> subprocess.Popen[bytes]:
        return children.start([sys.executable, "-c", ""], dict(os.environ))

    with pytest.raises(ProjectError, match="with code 0 soon after its start, so it is not an operator"):
        supervise.supervise(begin, tmp_path, str)


def test_a_child_stops_gracefully_when_its_parent_is_killed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    parent = (
        "import os, sys, time\n"
        "from pilothouse.cli import children\n"
        "children.start([sys.executable, '-c', *sys.argv[1:]], dict(os.environ))\n"
        "time.sleep(600)\n"
    )
    path = os.pathsep.join(str(CHECKOUT / each) for each in (".", "operator", "examples"))
    killed = subprocess.Popen(
        [sys.executable, "-c", parent, PROGRAM, str(log)], env={**os.environ, "PYTHONPATH": path}
    )
    _until(lambda: log.exists() and log.read_text() == "started\n")
    killed.kill()
    killed.wait()
    _until(lambda: log.read_text() == "started\nended\n")


def _until(condition: Any) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
