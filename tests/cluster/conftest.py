"""The installation that all tests on the cluster share."""

from collections.abc import Iterator

import pytest

from tests.cluster.flights import Flights, installed


@pytest.fixture(scope="session")
def flights() -> Iterator[Flights]:
    """pilothouse-flights, installed by OLM over a CRD and a ticket that a user had made by hand."""
    with installed() as found:
        yield found
