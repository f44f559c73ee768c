"""What a settled cluster costs: requests to the API server, and calls to etcd."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from etcd_operator.settings import EtcdSettings
from pilothouse.kube import Page, Resource
from pilothouse.testing import ModelApi
from tests.etcd.model.client import ModelMember
from tests.unit.etcd.operated import operated

pytestmark = pytest.mark.usefixtures("virtual_time")

MINUTES = 10


@pytest.fixture
def etcd_calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """The calls of all clients to etcd by their names."""
    counted: Counter[str] = Counter()
    call = ModelMember._call

    async def count(self: ModelMember, name: str, *arguments: Any) -> Any:
        counted[name] += 1
        return await call(self, name, *arguments)

    monkeypatch.setattr(ModelMember, "_call", count)
    return counted


def count_lists(client: ModelApi) -> list[str]:
    """Returns a list that gets the kind of each list request."""
    listed: list[str] = []
    pages = client.pages

    def count(resource: Resource[Any], **options: Any) -> AsyncGenerator[Page[Any], None]:
        listed.append(str(resource))
        return pages(resource, **options)

    client.pages = count  # type: ignore[method-assign]
    return listed


@pytest.mark.parametrize("size", [1, 3])
async def test_a_settled_cluster_costs_no_request_and_two_calls_per_member_and_poll(
    model: ModelApi, etcd_calls: Counter[str], size: int
) -> None:
    async with operated(model) as cluster:
        cluster.apply(size=size, version="3.5.33")
        await cluster.settled()
        await asyncio.sleep(30)
        listed = count_lists(cluster.client)
        version, requests = model.version, len(cluster.client.calls)
        etcd_calls.clear()
        await asyncio.sleep(MINUTES * 60)
        assert cluster.client.calls[requests:] == []
        assert listed == []
        assert model.version == version, "nothing writes, not even another stand-in"
        polls = MINUTES * 60 / EtcdSettings().poll
        assert etcd_calls.keys() == {"Status", "MemberList"}
        assert max(etcd_calls.values()) <= polls * size


async def test_writes_to_etcd_cause_no_write_to_kubernetes(model: ModelApi) -> None:
    async with operated(model) as cluster:
        cluster.apply(size=3, version="3.5.33")
        await cluster.settled()
        async with cluster.world.writing("example-client"):
            await asyncio.sleep(30)
            version = model.version
            await asyncio.sleep(300)
            assert model.version == version
