"""The supervisor with real processes, without namespaces."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from devcluster import folders, supervisor
from devcluster.supervisor import Component, Spec

PREPARE = """
import os, signal, sys, time
events, name = open(sys.argv[1], "a", buffering=1), sys.argv[2]
def stop(*_):
    events.write(f"stop {name}\\n")
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
events.write(f"start {name} {os.getpid()}\\n")
"""
POLITE = PREPARE + "time.sleep(60)"
BRIEF = PREPARE + "sys.exit(3)"


class Run:
    def __init__(self, folder: Path, components: list[Component]) -> None:
        self.events = folder / "events"
        self.status_file = folder / "status.json"
        spec = Spec(
            setup=[["touch", str(folder / "prepared")]],
            interface="lo",
            settings={},
            components=components,
            environment=dict(os.environ),
            authority="",
            logs=str(folder),
            status=str(self.status_file),
        )
        spec.save(folder / "spec.json")
        assert Spec.load(folder / "spec.json") == spec
        command = [sys.executable, "-m", "devcluster.supervisor", str(folder / "spec.json")]
        self.process = subprocess.Popen(command, cwd=folders.CHECKOUT, stdout=subprocess.DEVNULL)

    def lines(self) -> list[str]:
        return self.events.read_text().splitlines() if self.events.exists() else []

    def wait(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 20
        while not condition():
            assert self.process.poll() is None, "the supervisor ended"
            assert time.monotonic() < deadline, self.lines()
            time.sleep(0.02)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Run]]:
    runs: list[Run] = []

    def begin(scripts: dict[str, str], stages: dict[str, int], more: Sequence[Component] = ()) -> Run:
        events = str(tmp_path / "events")
        argv = {name: [sys.executable, "-c", script, events, name] for name, script in scripts.items()}
        components = [Component(name, argv[name], stages[name]) for name in scripts]
        runs.append(Run(tmp_path, [*more, *components]))
        return runs[0]

    yield begin
    for run in runs:
        run.process.terminate()
        run.process.wait(timeout=20)


def test_all_are_started_once_prepared_and_stopped_by_stage(
    start: Callable[..., Run], tmp_path: Path
) -> None:
    run = start({"store": POLITE, "server": POLITE, "client": POLITE}, {"store": 0, "server": 1, "client": 2})
    run.wait(lambda: len(run.lines()) == 3)
    assert (tmp_path / "prepared").exists()
    run.process.send_signal(signal.SIGTERM)
    run.process.wait(timeout=20)
    assert run.lines()[3:] == ["stop client", "stop server", "stop store"]


def test_a_killed_component_is_restarted(start: Callable[..., Run]) -> None:
    run = start({"store": POLITE}, {"store": 0})
    run.wait(lambda: len(run.lines()) == 1)
    os.kill(int(run.lines()[0].split()[2]), signal.SIGKILL)
    run.wait(lambda: len(run.lines()) == 2)
    status = supervisor.read_status(run.status_file)["store"]
    assert (status["running"], status["restarts"], status["last_exit"]) == (True, 1, "signal 9")


def test_a_component_that_keeps_failing_is_restarted_with_back_off(start: Callable[..., Run]) -> None:
    run = start({"broken": BRIEF}, {"broken": 0})
    began = time.monotonic()
    run.wait(lambda: len(run.lines()) == 3)
    # The pauses are FIRST_RESTART and twice that.
    assert time.monotonic() - began > 3 * supervisor.FIRST_RESTART
    assert supervisor.read_status(run.status_file)["broken"]["last_exit"] == "status 3"


def test_a_missing_program_does_not_stop_the_others(start: Callable[..., Run], tmp_path: Path) -> None:
    run = start({"store": POLITE}, {"store": 0}, [Component("gone", ["/no/such/program"], 1)])
    run.wait(lambda: len(run.lines()) == 1)
    status = supervisor.read_status(run.status_file)["gone"]
    assert not status["running"]
    assert "No such file" in status["last_exit"]


def test_a_status_that_has_not_been_written_is_empty(tmp_path: Path) -> None:
    assert supervisor.read_status(tmp_path / "status.json") == {}
