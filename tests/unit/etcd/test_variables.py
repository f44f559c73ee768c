"""Variables that users may not set: those that the flags of the operator shadow, and dangerous ones."""

import pytest

from etcd_operator.model import Configuration, PodPlan
from etcd_operator.options import option_variables, variable
from etcd_operator.pods import arguments
from etcd_operator.variables import BY_VALUE, GROUPS, why_reserved
from tests.unit.etcd.manifests import SECURE, blueprint


@pytest.mark.parametrize("spec", [{}, SECURE], ids=["plain", "secure"])
def test_every_flag_of_the_operator_is_reserved(spec: dict[str, object]) -> None:
    plan = PodPlan("a-1", "3.6.14", Configuration.POISONED)
    flags = [each.removeprefix("--").partition("=")[0] for each in arguments(blueprint(spec), plan)]
    assert len(flags) > 8
    assert [flag for flag in flags if not why_reserved(variable(flag))] == []


def test_useful_variables_are_not_reserved() -> None:
    for name in (
        "HEARTBEAT_INTERVAL",
        "ELECTION_TIMEOUT",
        "SNAPSHOT_COUNT",
        "MAX_REQUEST_BYTES",
        "LOG_LEVEL",
    ):
        assert not why_reserved(f"ETCD_{name}")
    assert not why_reserved("GOMAXPROCS")


def test_the_variables_that_go_through_annotations_are_reserved_or_need_a_value() -> None:
    assert {name for name in option_variables() if not why_reserved(name)} == {*BY_VALUE}


def test_a_group_is_small_enough_for_a_rule() -> None:
    assert all(1 <= len(names) <= 5 for names, _ in GROUPS)
