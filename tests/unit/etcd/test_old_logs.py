"""The log of etcd 3.5, which 3.7 cannot read. tests/api has the test with real members."""

from datetime import UTC, datetime

import pytest

from etcd_operator.model import Action, Claim, Configuration, Desired, Observation, PodState
from etcd_operator.old_logs import may_have_old_log
from etcd_operator.options import SNAPSHOT_COUNT, option_annotations
from tests.unit.etcd.manifests import blueprint

NAME = "example-aaaaa"


@pytest.mark.parametrize(
    ("running", "claim", "expected"),
    [
        ("3.6.14", Claim(Action.RESTART, NAME, version="3.7.1"), True),
        ("3.6.14", Claim(Action.RESTART, NAME, version="3.6.15"), False),
        ("3.6.14", Claim(Action.RESTART, NAME), False),
        ("3.6.14", Claim(Action.REMOVE, NAME), False),
        ("3.6.14", Claim(Action.RESTART, "example-bbbbb", version="3.7.1"), False),
        ("3.6.14", None, False),
        ("3.7.0", Claim(Action.RESTART, NAME, version="3.7.1"), False),
        ("mine", Claim(Action.RESTART, NAME, version="3.7.1"), False),
        ("3.5.33", Claim(Action.RESTART, NAME, version="3.6.14"), False),
    ],
)
def test_only_a_restart_from_3_6_to_3_7_needs_new_logs(
    running: str, claim: Claim | None, expected: bool
) -> None:
    pod = PodState(
        name=NAME, uid="1", owner="2", version=running, shape="", configuration=Configuration.POISONED
    )
    observation = Observation(
        name="example",
        uid="2",
        now=datetime(2026, 1, 1, tzinfo=UTC),
        desired=Desired(size=1, version="3.7.1", shape=""),
        pods=(pod,),
    )
    assert may_have_old_log(observation, claim) is expected


def test_members_take_a_snapshot_within_the_entries_that_are_written() -> None:
    written = option_annotations(blueprint({}).spec, "3.6.14")["etcd.pilothouse.dev/snapshot-count"]
    assert int(written) == SNAPSHOT_COUNT
