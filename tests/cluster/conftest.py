"""The installations that all cluster tests share."""

from collections.abc import Iterator

import pytest

from tests.cluster import etcd as etcd_package
from tests.cluster import flights as flights_package
from tests.cluster.etcd import Etcd
from tests.cluster.flights import Flights


@pytest.fixture(scope="session")
def flights() -> Iterator[Flights]:
    """pilothouse-flights, installed by OLM after a user has created the CRD and a ticket manually."""
    with flights_package.installed() as found:
        yield found


@pytest.fixture(scope="session")
def etcd() -> Iterator[Etcd]:
    """pilothouse-etcd, installed by OLM, and a namespace for clusters."""
    with etcd_package.installed() as found:
        yield found
