"""Whatever the schema accepts, the spec is judged without an error, and manifests follow from it."""

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from etcd_operator.blueprint import Blueprint
from etcd_operator.model import Configuration, PodPlan, Record
from etcd_operator.pods import member_pod
from etcd_operator.types import ETCD_CLUSTER, EtcdCluster
from etcd_operator.validation import Verdict, judge
from etcd_operator.versions import NEWEST, Version
from etcd_operator.volumes import volume_claim
from pilothouse.api.crd import object_schema
from tests.unit.api.strategies import valid

SCHEMA: dict[str, Any] = object_schema(ETCD_CLUSTER)["properties"]["spec"]["properties"]
VERSIONS = st.sampled_from(["", "3.5.0", "3.5.33", "3.6.14", "3.7.3", "v3.6.5-0", "3.4.1", "3.8.0", "x"])
RUNS = st.sampled_from(["", "3.5.0", "3.6.14", "damaged"])
SPECS = st.fixed_dictionaries(
    {"size": st.integers(-1, 9)},
    optional={
        **{name: valid(part) for name, part in SCHEMA.items() if name not in ("size", "version")},
        "version": VERSIONS,
        "repository": st.sampled_from(["", "a/b", "a:b"]),
    },
)


def cluster(spec: dict[str, Any], before: dict[str, Any], runs: str) -> EtcdCluster:
    status = {"lastValidSpec": before, "currentVersion": runs}
    return msgspec.convert({"metadata": {"name": "a"}, "spec": spec, "status": status}, EtcdCluster)


def check(found: Verdict, spec: dict[str, Any]) -> None:
    assert all(str(each) for each in found.mistakes)
    assert (found.desired is None) == (found.spec is None)
    if found.desired is None or found.spec is None:
        assert found.mistakes
        return
    assert 1 <= found.desired.size <= 7
    assert Version.parse(found.desired.version).minor in NEWEST
    blueprint = Blueprint("a", "default", "uid", 1, found.spec)
    plan = PodPlan("a-1", found.desired.version, Configuration.POISONED)
    assert member_pod(blueprint, plan, image=found.desired.image)["spec"]
    assert volume_claim(blueprint, "a-1")["spec"]


@given(spec=SPECS, other=SPECS, runs=RUNS)
def test_every_spec_is_judged(spec: dict[str, Any], other: dict[str, Any], runs: str) -> None:
    found = judge(cluster(spec, {}, ""), Record())
    check(found, spec)
    before = found.last_valid_spec
    founded = Record(incarnation=1, founded=True)
    after = judge(cluster(other, before, runs), founded)
    check(after, other)
    if after.mistakes:
        # A spec with a mistake can switch to Retain.
        assert _without_retention(after.last_valid_spec) == _without_retention(before)
        if found.desired is not None:
            assert after.desired is not None
    again = judge(cluster(other, after.last_valid_spec, runs), founded)
    assert again.desired == after.desired, "a verdict is stable"


def _without_retention(spec: dict[str, Any]) -> dict[str, Any]:
    storage = spec.get("storage", {})
    return {**spec, "storage": {name: storage[name] for name in {*storage} - {"whenScaled", "whenDeleted"}}}
