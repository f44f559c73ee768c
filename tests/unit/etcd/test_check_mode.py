"""`pilothouse play --check` for EtcdClusters: what the operator would do next, and why."""

import asyncio
import re

import pytest

from etcd_operator.clusters import etcd_watch
from etcd_operator.settings import EtcdSettings
from pilothouse.cli import report
from pilothouse.cli.by_hand import Hand, Played
from pilothouse.playbook import PAUSED
from pilothouse.process import Settings
from pilothouse.testing import ModelApi
from tests.etcd_howto import FOLDER, commands
from tests.unit.etcd.operated import CLUSTERS, KEY, Operated, operated

pytestmark = pytest.mark.usefixtures("virtual_time")


async def checked(cluster: Operated) -> str:
    """Returns the recap of a play in check mode, after a check that nothing was written."""
    before = cluster.api.version
    found = await played(cluster)
    assert cluster.api.version == before
    return str(found.recap)


async def played(cluster: Operated) -> Played:
    watch = etcd_watch(cluster.world.connections(), EtcdSettings())
    found = await Hand("pilothouse-etcd", Settings(), cluster.api.another_client()).check(watch, KEY)
    assert found.recap.failure is None
    return found


def next_step(text: str) -> str:
    """Returns what a play in check mode shows of the next step, with X instead of what a name ends with."""
    _, _, rest = text.partition("TASK [the next step is taken]")
    return re.sub(
        r"\(\d\.\d+ s\)", "(0.000 s)", re.sub(r"example-\w{5}\b", "example-X", rest.partition("\n\n")[0])
    )


async def test_a_check_shows_the_founding(model: ModelApi) -> None:
    async with operated(model, operator=False) as cluster:
        cluster.apply(size=3, version="3.6.14")
        shown = await checked(cluster)
        assert "Founding a cluster of" in shown
        assert "create PersistentVolumeClaim example-" in shown
        assert "create Service example-client" in shown


async def test_a_check_shows_the_change_of_the_membership_that_is_next(model: ModelApi) -> None:
    async with operated(model) as cluster:
        cluster.apply(size=3, version="3.6.14")
        await cluster.settled()
        await asyncio.sleep(5)
        assert "changed=0" in await checked(cluster)
    # The operator is stopped now, and the nodes, too. Members in the model run on.
    cluster.apply(size=1)
    assert "leaves, to scale from 3 to 1 voters: removing it from etcd" in await checked(cluster)
    assert cluster.world.lost() == []


async def test_a_change_is_previewed_while_the_operator_is_paused(model: ModelApi) -> None:
    pause, _, play, resume = commands("create.md", "Preview a change")
    assert (pause.split()[-1], resume.split()[-1]) == (f"{PAUSED}=true", f"{PAUSED}-")
    assert play.endswith("--check --diff")
    async with operated(model) as cluster:
        cluster.apply(size=3, version="3.6.14")
        await cluster.settled()
        cluster.api.put(CLUSTERS, KEY.name, metadata={"annotations": {PAUSED: "true"}})
        cluster.apply(size=5)
        await asyncio.sleep(10)
        before = cluster.api.read(CLUSTERS, KEY), cluster.pods, cluster.claims
        shown = await played(cluster)
        assert (cluster.api.read(CLUSTERS, KEY), cluster.pods, cluster.claims) == before
        assert (shown.changes, len(cluster.claims)) == (True, 3)
        step = "TASK [the next step is taken]" + next_step(report.as_text(shown, diff=True))
        page = (FOLDER / "create.md").read_text()
        assert step.replace("example-", "example-etcd-cluster-") in re.sub(
            r"cluster-\w{5}\b", "cluster-X", page
        )
        cluster.api.put(CLUSTERS, KEY.name, metadata={"annotations": {}})
        await cluster.until(lambda: len(cluster.pods) == 5)
