"""The installation that the soak tests of the etcd operator share."""

from collections.abc import Iterator

import pytest

from tests.cluster.etcd import Etcd, installed


@pytest.fixture(scope="session")
def etcd() -> Iterator[Etcd]:
    """pilothouse-etcd, installed by OLM, and a namespace for clusters."""
    with installed() as found:
        yield found
