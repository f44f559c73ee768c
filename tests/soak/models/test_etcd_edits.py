"""Random edits and strikes on a whole operator, over the model of etcd and of the API server."""

import asyncio
import random

import pytest

from pilothouse.kube import ObjectKey
from pilothouse.testing import ModelApi
from pilothouse.testing.controllers.pods import CLAIM, POD
from tests.unit.etcd.operated import Operated, operated

pytestmark = [pytest.mark.usefixtures("virtual_time"), pytest.mark.timeout(600)]
EDITS = ("size", "version", "shape")
STRIKES = ("pod", "all pods", "volume", "kill")


async def edit(cluster: Operated, what: str, dice: random.Random) -> None:
    """Edits the spec in one of three ways."""
    match what:
        case "size":
            cluster.apply(size=dice.choice((3, 4, 5)))
        case "version":
            cluster.apply(version="3.6.14")
        case _:
            memory = f"{dice.randint(1, 9)}Gi"
            cluster.apply(pod={"resources": {"limits": {"memory": memory}}})


async def strike(cluster: Operated, what: str, dice: random.Random) -> None:
    """Hurts one member, or all pods. A volume is lost only while all others are well."""
    if what == "volume":
        await asyncio.sleep(10)
        await cluster.settled(300)
    if not cluster.pods:
        return
    victim = dice.choice(cluster.pods)
    match what:
        case "kill" if cluster.world.process(victim):
            cluster.world.kill(victim)
        case "kill":
            pass
        case "volume":
            cluster.api.remove(CLAIM, ObjectKey("default", victim))
            cluster.api.remove(POD, ObjectKey("default", victim))
        case _:
            for name in cluster.pods if what == "all pods" else [victim]:
                cluster.api.remove(POD, ObjectKey("default", name))


@pytest.mark.parametrize("seed", range(20))
async def test_edits_in_any_order_lose_no_write_and_fail_none(model: ModelApi, seed: int) -> None:
    dice = random.Random(seed)
    async with operated(model) as cluster:
        cluster.apply(size=3, version="3.5.33", upgradePolicy="Automatic")
        await cluster.settled()
        async with cluster.world.writing("example-client") as log:
            for _ in range(8):
                await asyncio.sleep(dice.choice((0.3, 1, 2, 4, 8)))
                await edit(cluster, dice.choice(EDITS), dice)
            await asyncio.sleep(5)
            await cluster.settled(400)
        assert cluster.world.lost() == []
        assert log.figures.failed_writes == 0


@pytest.mark.parametrize("seed", range(20))
async def test_edits_and_strikes_in_any_order_lose_no_write(model: ModelApi, seed: int) -> None:
    dice = random.Random(seed)
    async with operated(model) as cluster:
        cluster.apply(size=3, version="3.5.33", upgradePolicy="Automatic")
        await cluster.settled()
        async with cluster.world.writing("example-client"):
            for _ in range(8):
                await asyncio.sleep(dice.choice((0.3, 1, 2, 4, 8)))
                what = dice.choice((*EDITS, *STRIKES))
                await (edit if what in EDITS else strike)(cluster, what, dice)
            await asyncio.sleep(5)
            await cluster.settled(400)
        assert cluster.world.lost() == []
