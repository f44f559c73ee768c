"""Leaves the log of 3.5 behind before the upgrade from 3.6 to 3.7.

Members of 3.5 write requests of the old API (v2) to the log, for their own attributes. 3.7 panics when it
reads one ("unmarshal should never fail"). It reads the log from the last snapshot on. By default, 3.6 takes a
snapshot only every 10,000 entries, so the log of a quiet cluster would keep the old entries. Members of 3.6
take one every `SNAPSHOT_COUNT` entries (see `options`), and the operator writes as many before the upgrade.
"""

from etcd_operator.entries import write_entries
from etcd_operator.etcd import Etcd
from etcd_operator.model import Action, Claim, Observation
from etcd_operator.options import SNAPSHOT_COUNT
from etcd_operator.versions import Minor, Version

# The last entry of 3.5 must be older than the last snapshot, which is at most SNAPSHOT_COUNT entries old.
_ENTRIES = SNAPSHOT_COUNT + 10


def may_have_old_log(observation: Observation, claim: Claim | None) -> bool:
    """Whether a claim restarts a member on 3.7 whose pod is still on 3.6."""
    if claim is None or claim.action is not Action.RESTART or not claim.version:
        return False
    pod = next((each for each in observation.pods if each.name == claim.name), None)
    return pod is not None and _is(pod.version, Minor(3, 6)) and not _is(claim.version, Minor(3, 6))


async def renew_logs(etcd: Etcd) -> None:
    """Writes entries, so that every member takes a snapshot that is newer than the entries of 3.5.

    Raises:
        EtcdError: A write failed. The next call starts again.
    """
    await write_entries(etcd, _ENTRIES)


def _is(version: str, minor: Minor) -> bool:
    try:
        return Version.parse(version).minor == minor
    except ValueError:
        return False
