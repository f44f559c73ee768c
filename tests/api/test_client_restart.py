"""The API server is restarted on its port while requests are running."""

import asyncio
from collections import Counter

import pytest

from pilothouse.kube import KubeError, ServerError, Unreachable
from pilothouse.testing import eventually
from tests.api.versions import ON_BOTH
from tests.api.widgets import WIDGETS, crd, install, widget
from tests.listing import listed

pytestmark = ON_BOTH

WORKERS = 16
AFTERWARDS = 3


@pytest.fixture(autouse=True)
async def widgets(client):
    await install(client, crd(WIDGETS))


async def test_the_pool_survives_a_restart_of_the_server(api_server, client, namespace):
    """Requests fail with a clear error and never hang. After the restart, all succeed immediately."""
    felt: list[KubeError] = []
    late: list[KubeError] = []
    served: Counter[bool] = Counter()
    back = asyncio.Event()

    async def work(worker: int) -> None:
        number = after = 0
        while after < AFTERWARDS:
            number += 1
            # A request that began during the outage may still fail after the restart.
            was_back = back.is_set()
            after += was_back
            try:
                await client.create(WIDGETS, widget(f"w-{worker}-{number}"), namespace=namespace)
                served[was_back] += 1
            except (Unreachable, ServerError) as error:
                (late if was_back else felt).append(error)

    async def restart() -> None:
        await eventually(lambda: served[False] > 5 * WORKERS, within=30)
        api_server.stop("kube-apiserver")
        api_server.start_api_server()
        await asyncio.to_thread(api_server.wait_ready)
        back.set()

    async with asyncio.timeout(100):
        await asyncio.gather(restart(), *map(work, range(WORKERS)))
    assert felt, "the restart went unnoticed, so nothing was tested"
    assert late == []
    found = await listed(client, WIDGETS, namespace=namespace)
    assert len(found) >= served.total(), "what was acknowledged is there"
