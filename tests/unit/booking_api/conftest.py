from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from tests.airline import KEY, Airline, running_airline

MUMBAI_LONDON = {"reference": "r1", "from": "Mumbai", "to": "London", "seats": 2}


@pytest.fixture
async def airline(tmp_path: Path) -> AsyncIterator[Airline]:
    async with running_airline(tmp_path, capacity=100) as airline:
        yield airline


@pytest.fixture
async def http(airline: Airline) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(airline.url, headers={"X-API-Key": KEY}) as session:
        yield session
