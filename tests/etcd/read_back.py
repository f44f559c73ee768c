"""Reads every written key from every member, and finds the acknowledged writes that are lost."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from etcd_operator.errors import EtcdError
from etcd_operator.etcd import KeyValue
from tests.etcd.history import History, Kind, Operation, Outcome
from tests.etcd.writer import CLIENTS, Calls

#: Reads of one member at the same time.
_IN_FLIGHT = 32
#: Seconds for one attempt of a read, and before the next one; and the number of attempts.
_DEADLINE, _PAUSE, _ATTEMPTS = 2.0, 0.5, 10


class Contents(msgspec.Struct, frozen=True):
    """What one member has.

    Attributes:
        member: The member's name.
        found: Key -> what the member has. None: there is no such key.
        reads: The reads. They continue the history: a linearizable read sees every acknowledged write.
    """

    member: str
    found: Mapping[str, KeyValue | None]
    reads: Sequence[Operation]


async def read_back(history: History, members: Mapping[str, Calls]) -> list[Contents]:
    """Reads every key of a history from every member, one member after the other.

    A linearizable read returns what is in the store of the member that is asked, once that member has applied
    everything that a quorum has committed.

    Raises:
        EtcdError: A member did not answer a read, in several attempts.
    """
    return [await _contents(history, *each) for each in enumerate(members.items())]


async def _contents(history: History, index: int, member: tuple[str, Calls]) -> Contents:
    name, calls = member
    gate = asyncio.Semaphore(_IN_FLIGHT)

    async def one(number: int, key: str) -> tuple[KeyValue | None, Operation]:
        async with gate:
            called = _now()
            found = await _get(calls, key)
        value = found.value.decode() if found else None
        return found, Operation(CLIENTS + index, number, Kind.READ, key, called, _now(), value=value)

    keys = list(history.writes)
    answers = await asyncio.gather(*(one(*each) for each in enumerate(keys)))
    found = dict(zip(keys, (found for found, _ in answers), strict=True))
    return Contents(name, found, [operation for _, operation in answers])


async def _get(calls: Calls, key: str) -> KeyValue | None:
    for _ in range(_ATTEMPTS - 1):
        try:
            return await calls.get(key.encode(), linearizable=True, deadline=_DEADLINE)
        except EtcdError:
            await asyncio.sleep(_PAUSE)
    return await calls.get(key.encode(), linearizable=True, deadline=_DEADLINE)


def losses(history: History, contents: Iterable[Contents]) -> list[str]:
    """Returns a sentence for each key of each member that contradicts the history. None: nothing is lost."""
    return [
        f"{each.member}: {key} {problem}"
        for each in contents
        for key, attempts in history.writes.items()
        if (problem := _problem(attempts, each.found[key]))
    ]


def differences(contents: Sequence[Contents]) -> list[str]:
    """Returns a sentence for each key that two members have with different values or revisions."""
    first, *others = contents
    return [
        f"{key}: {first.member} has {_shown(found)}, but {other.member} has {_shown(other.found[key])}"
        for other in others
        for key, found in first.found.items()
        if found != other.found[key]
    ]


def _problem(attempts: Sequence[Operation], found: KeyValue | None) -> str:
    """Returns how the value of a key contradicts the attempts to write it; empty if it does not.

    A key has the value of its last acknowledged write, or that of an attempt without an answer with a higher
    revision. Its version counts the writes, because nothing deletes a key: so it also proves the writes whose
    value has been overwritten.
    """
    acknowledged = [each for each in attempts if each.outcome is Outcome.OK]
    unknown = [each for each in attempts if each.outcome is Outcome.UNKNOWN]
    last = max(acknowledged, key=lambda each: each.revision, default=None)
    if found is None:
        return f"does not exist, but {len(acknowledged)} writes were acknowledged" if last else ""
    if last and found.mod_revision < last.revision:
        return f"has {_shown(found)}, older than the write acknowledged at revision {last.revision}"
    newest = [last] if last and found.mod_revision == last.revision else unknown
    if found.value.decode() not in {each.value for each in newest}:
        return f"has {_shown(found)}, which no client wrote at that revision"
    if not len(acknowledged) <= found.version <= len(acknowledged) + len(unknown):
        return (
            f"was written {found.version} times, but {len(acknowledged)} writes were acknowledged and "
            f"{len(unknown)} had no answer"
        )
    return ""


def _shown(found: KeyValue | None) -> str:
    return f"{found.value.decode()!r} at revision {found.mod_revision}" if found else "no such key"


def _now() -> int:
    return round(asyncio.get_running_loop().time() * 1e9)
