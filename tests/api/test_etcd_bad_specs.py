"""A user learns of every mistake in a spec: the row "bad specs" of the benchmark, without a node."""

from collections import Counter

from pilothouse.kube import Client
from pilothouse.testing import ApiServer
from tests.api.test_etcd_clusters import operated
from tests.api.versions import ON_BOTH
from tests.bench.etcd.bad_specs import BAD_SPECS, REFUSED, REPORTED, SILENT, WARNED, measure

pytestmark = ON_BOTH


async def test_no_bad_spec_is_accepted_silently(
    client: Client, api_server: ApiServer, namespace: str
) -> None:
    async with operated(client, api_server, namespace):
        found = await measure(client, namespace)
    assert [what for what, how in found.items() if how == SILENT] == []
    # docs/howto/etcd/spec.md lists what the API server cannot check.
    assert {what for what, how in found.items() if how == REPORTED} == {
        "a version that is too old",
        "a version that does not exist",
        "a variable without a name",
        "a label that Kubernetes refuses",
        "a priority class that cannot exist",
        "a Secret that does not exist",
    }
    assert {what for what, how in found.items() if how == WARNED} == {
        "an even size",
        "a version with a known defect",
        "a huge quota",
        "a quota above the volume",
        "emptyDir",
        "a variable that the version ignores",
        "a variable that the operator overrides",
    }
    assert Counter(found.values())[REFUSED] == len(BAD_SPECS) - 13
