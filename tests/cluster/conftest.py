"""The installation that all cluster tests share."""

from collections.abc import Iterator

import pytest

from tests.cluster.flights import Flights, installed


@pytest.fixture(scope="session")
def flights() -> Iterator[Flights]:
    """pilothouse-flights, installed by OLM after a user has created the CRD and a ticket manually."""
    with installed() as found:
        yield found
