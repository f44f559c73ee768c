from typing import Any

import pytest

from devcluster.kubectl import pod_problem, wait_until
from devcluster.shell import ClusterError

STARTED = "2024-05-01T12:00:00Z"
STARTED_UNIX = 1714564800.0


def pod(*, ready: bool = True, **state: dict[str, str]) -> dict[str, Any]:
    states = state or {"running": {"startedAt": STARTED}}
    return {"status": {"phase": "Running", "containerStatuses": [{"ready": ready, "state": states}]}}


def test_a_ready_pod_has_no_problem() -> None:
    assert pod_problem(pod()) == ""
    assert pod_problem(pod(), since=STARTED_UNIX + 0.9) == ""  # startedAt has a resolution of one second


@pytest.mark.parametrize(
    ("unready", "words"),
    [
        (pod(waiting={"reason": "ImagePullBackOff", "message": "not found"}), "ImagePullBackOff not found"),
        (pod(ready=False), "not ready yet"),
        (pod(terminated={"reason": "Error"}), "not started yet"),
        ({"status": {"phase": "Pending"}}, "Pending: not started yet"),
    ],
)
def test_the_problem_of_an_unready_pod_is_described(unready: dict[str, Any], words: str) -> None:
    assert words in pod_problem(unready)


def test_a_pod_started_before_the_node_restart_counts_as_not_started() -> None:
    assert "not started yet" in pod_problem(pod(), since=STARTED_UNIX + 1)


def test_a_timeout_names_what_was_waited_for() -> None:
    with pytest.raises(ClusterError, match=r"Timed out after 0 s\. The moon is not blue"):
        wait_until(lambda: False, 0, lambda: "The moon is not blue")
