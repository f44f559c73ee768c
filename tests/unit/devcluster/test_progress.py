import time

import pytest

from devcluster import progress
from devcluster.progress import Step, run_steps


def test_every_step_shows_its_number_and_duration(capsys: pytest.CaptureFixture[str]) -> None:
    done: list[str] = []
    run_steps(
        [Step("packing", lambda: done.append("packed")), Step("pushing", lambda: done.append("pushed"))]
    )
    assert done == ["packed", "pushed"]
    assert capsys.readouterr().err.splitlines() == [
        "[1/2] packing ...",
        "[1/2] packing: 0 s (total 0 s)",
        "[2/2] pushing ...",
        "[2/2] pushing: 0 s (total 0 s)",
    ]


def test_a_long_step_shows_heartbeats(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "HEARTBEAT", 0.01)
    printed = ""

    def work_until_the_heartbeat() -> None:
        nonlocal printed
        deadline = time.monotonic() + 10
        while "still running" not in printed and time.monotonic() < deadline:
            printed += capsys.readouterr().err

    run_steps([Step("building", work_until_the_heartbeat)])
    assert "[1/1] building: still running after 0 s" in printed


def test_a_failed_step_ends_the_rest(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        run_steps([Step("failing", fail), Step("never", lambda: None)])
    assert "never" not in capsys.readouterr().err
