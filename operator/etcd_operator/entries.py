"""Writes entries to etcd's log that change nothing."""

from etcd_operator.etcd import Etcd

# No user has this key. Its deletion is an entry in the log and does not change the revision.
_KEY = b"\0etcd.pilothouse.dev/entry"


async def write_entries(etcd: Etcd, count: int = 1) -> None:
    """Writes entries. Etcd accepts them also if its database is full.

    Args:
        etcd: A member.
        count: How many.

    Raises:
        EtcdError: A write failed.
    """
    for _ in range(count):
        await etcd.delete(_KEY)
