from typing import Any

import pytest

from devcluster.kubectl import pod_problem, wait_until
from devcluster.shell import ClusterError

STARTED = "2024-05-01T12:00:00Z"
STARTED_UNIX = 1714564800.0


def pod(*, ready: bool = True, **state: dict[str, str]) -> dict[str, Any]:
    states = state or {"running": {"startedAt": STARTED}}
    return {"status": {"phase": "Running", "containerStatuses": [{"ready": ready, "state": states}]}}


def test_a_ready_pod_is_no_problem() -> None:
    assert pod_problem(pod()) == ""
    assert pod_problem(pod(), since=STARTED_UNIX + 0.9) == ""  # startedAt has whole seconds


@pytest.mark.parametrize(
    ("unready", "words"),
    [
        (pod(waiting={"reason": "ImagePullBackOff", "message": "not found"}), "ImagePullBackOff not found"),
        (pod(ready=False), "not ready yet"),
        (pod(terminated={"reason": "Error"}), "not started yet"),
        ({"status": {"phase": "Pending"}}, "Pending: not started yet"),
    ],
)
def test_an_unready_pod_says_why(unready: dict[str, Any], words: str) -> None:
    assert words in pod_problem(unready)


def test_a_pod_of_before_the_node_s_restart_is_not_believed() -> None:
    assert "not started yet" in pod_problem(pod(), since=STARTED_UNIX + 1)


def test_waiting_ends_with_the_complaint() -> None:
    with pytest.raises(ClusterError, match="the moon is not blue"):
        wait_until(lambda: False, 0, lambda: "the moon is not blue")
