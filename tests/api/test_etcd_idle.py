"""A real etcd member that has received a snapshot serves only after the next entry of the log."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from etcd_operator import errors
from etcd_operator.client import ConnectionPool
from etcd_operator.entries import write_entries
from etcd_operator.etcd import Etcd
from pilothouse.testing import eventually
from tests.api.etcd_members import VERSIONS, RealMember, serving

# More than etcd keeps for members that are behind (5,000), so that a new member gets a snapshot.
ENTRIES = 5_200
# With this, the new member refuses its own request to publish its name, and does not serve.
REFUSAL = "etcdserver: too many requests"
# Seconds. No test waits for it where all is well.
PATIENT = 30.0


@pytest.fixture
def members(tmp_path: Path, version: str) -> Iterator[tuple[RealMember, RealMember]]:
    first, second = (RealMember(tmp_path, version, name) for name in ("first", "second"))
    yield first, second
    for each in (first, second):
        each.stop()


@pytest.fixture
async def pool() -> AsyncIterator[ConnectionPool]:
    async with ConnectionPool() as pool:
        yield pool


@pytest.mark.parametrize("version", VERSIONS[2:], ids=["3.6", "3.7"])
async def test_a_new_member_of_an_idle_cluster_starts_at_the_next_entry(
    members: tuple[RealMember, RealMember], pool: ConnectionPool, tmp_path: Path
) -> None:
    first, second = members
    first.start()
    [etcd] = await serving(pool, first)
    await eventually(lambda: asyncio.to_thread(_has_settled, first), within=PATIENT)
    await write_entries(etcd, ENTRIES)
    listed = await etcd.member_add([second.peer_url])
    added = listed.with_peer_urls([second.peer_url])
    assert added
    second.start([first], state="existing")
    await eventually(lambda: REFUSAL in (tmp_path / "second" / "log").read_text(), within=PATIENT)

    async def promoted() -> bool:
        await write_entries(etcd)
        return await _promoted(etcd, added.id)

    await eventually(promoted, within=PATIENT)


async def _promoted(etcd: Etcd, member: int) -> bool:
    try:
        await etcd.member_promote(member)
    except errors.LearnerNotReady:
        return False
    return True


def _has_settled(member: RealMember) -> bool:
    """Whether etcd has written its own entries, which set the versions of the cluster and the storage."""
    with urlopen(f"{member.client_url}/version", timeout=PATIENT) as answer:
        found: dict[str, str] = json.load(answer)
    minor = found["etcdserver"].rpartition(".")[0]
    return all(found[each].startswith(minor) for each in ("etcdcluster", "storage"))
