"""A real etcd member that has received a snapshot serves only after the next entry of the log."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from enum import Enum, auto
from functools import partial
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
NEW_MEMBERS = ("second", "third", "fourth", "fifth", "sixth", "seventh")
# Seconds. No test waits for it where all is well.
PATIENT = 30.0


class Outcome(Enum):
    """What becomes of a new member."""

    SERVES = auto()
    REFUSED = auto()


@pytest.fixture
def member(tmp_path: Path, version: str) -> Iterator[Callable[[str], RealMember]]:
    made: list[RealMember] = []

    def member(name: str) -> RealMember:
        made.append(RealMember(tmp_path, version, name))
        return made[-1]

    yield member
    for each in made:
        each.stop()


@pytest.fixture
async def pool() -> AsyncIterator[ConnectionPool]:
    async with ConnectionPool() as pool:
        yield pool


@pytest.mark.parametrize("version", VERSIONS[2:], ids=["3.6", "3.7"])
async def test_a_new_member_of_an_idle_cluster_starts_at_the_next_entry(
    member: Callable[[str], RealMember], pool: ConnectionPool, tmp_path: Path
) -> None:
    first = member("first")
    first.start()
    [etcd] = await serving(pool, first)
    await eventually(lambda: asyncio.to_thread(_has_settled, first), within=PATIENT)
    await write_entries(etcd, ENTRIES)
    # About one new member in ten serves at once: it publishes its name before the snapshot arrives.
    for name in NEW_MEMBERS:
        second = member(name)
        added = (await etcd.member_add([second.peer_url])).with_peer_urls([second.peer_url])
        assert added
        second.start([first], state="existing")
        log = tmp_path / name / "log"
        outcome = await eventually(partial(asyncio.to_thread, _outcome, second, log), within=PATIENT)
        if outcome is Outcome.REFUSED:
            break
        second.stop()
        await etcd.member_remove(added.id)
    else:
        pytest.fail(f"None of {len(NEW_MEMBERS)} new members was refused. The last log:\n{log.read_text()}")

    async def promoted() -> bool:
        await write_entries(etcd)
        return await _promoted(etcd, added.id)

    await eventually(promoted, within=PATIENT)
    await serving(pool, second)


async def _promoted(etcd: Etcd, member: int) -> bool:
    try:
        await etcd.member_promote(member)
    except errors.LearnerNotReady:
        return False
    return True


def _outcome(member: RealMember, log: Path) -> Outcome | None:
    """What has become of a new member, once it is known."""
    if REFUSAL in log.read_text():
        return Outcome.REFUSED
    try:
        _versions(member, within=1)  # It accepts connections before it serves.
    except OSError:
        return None
    return Outcome.SERVES


def _has_settled(member: RealMember) -> bool:
    """Whether etcd has written its own entries, which set the versions of the cluster and the storage."""
    found = _versions(member, within=PATIENT)
    minor = found["etcdserver"].rpartition(".")[0]
    return all(found[each].startswith(minor) for each in ("etcdcluster", "storage"))


def _versions(member: RealMember, within: float) -> dict[str, str]:
    with urlopen(f"{member.client_url}/version", timeout=within) as answer:
        versions: dict[str, str] = json.load(answer)
    return versions
