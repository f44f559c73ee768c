from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from flights_operator.settings import FlightsSettings
from tests.airline import Airline, running_airline
from tests.unit.flights.cluster import Cluster, Process


@pytest.fixture
async def airline(tmp_path: Path) -> AsyncIterator[Airline]:
    async with running_airline(tmp_path, capacity=100) as airline:
        yield airline


@pytest.fixture
def settings(airline: Airline) -> FlightsSettings:
    return FlightsSettings(url=airline.url, key_file=airline.key_file, timeout=2.0, resync=600.0)


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
async def process(cluster: Cluster, settings: FlightsSettings) -> AsyncIterator[Process]:
    async with Process(cluster, settings) as process:
        yield process
