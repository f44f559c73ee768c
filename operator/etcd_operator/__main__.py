"""The operator's process: python3 -m etcd_operator."""

import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from etcd_operator.client import ConnectionPool
from etcd_operator.clusters import etcd_watch
from etcd_operator.settings import EtcdSettings
from pilothouse import Watch, main

NAME = "pilothouse-etcd"


@asynccontextmanager
async def watches(variables: Mapping[str, str]) -> AsyncIterator[Sequence[Watch]]:
    """Yields what the operator watches, and closes the connections to the members at the end.

    Raises:
        SettingsError: A variable has a wrong value.
    """
    settings = EtcdSettings.load(variables)
    async with ConnectionPool() as connections:
        yield [etcd_watch(connections, settings)]


if __name__ == "__main__":
    sys.exit(main(NAME, watches, settings=[EtcdSettings]))
