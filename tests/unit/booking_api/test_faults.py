import asyncio
import time
from typing import Any

import aiohttp
import pytest

from pilothouse.testing import eventually
from tests.unit.booking_api.conftest import MUMBAI_LONDON


async def set_faults(http: aiohttp.ClientSession, **faults) -> None:
    async with http.put("faults", json=faults) as answer:
        assert answer.status == 200, await answer.text()


async def report(http: aiohttp.ClientSession) -> dict[str, Any]:
    async with http.get("faults") as answer:
        return dict(await answer.json())


async def bookings(http: aiohttp.ClientSession) -> int:
    async with http.get("statistics") as answer:
        return int((await answer.json())["bookings"])


async def until_held(http: aiohttp.ClientSession, count: int) -> None:
    async def held() -> bool:
        return bool((await report(http))["held"] == count)

    await eventually(held)


async def test_429_has_a_retry_after_header(http):
    await set_faults(http, too_many_requests={"count": 1, "retry_after": 0.5})
    async with http.get("bookings") as answer:
        assert (answer.status, answer.headers["Retry-After"]) == (429, "0.5")
    async with http.get("bookings") as answer:
        assert answer.status == 200
    assert (await report(http))["faults"]["too_many_requests"]["count"] == 0


async def test_500_only_for_some_methods(http):
    await set_faults(http, server_error={"methods": ["POST"]})
    async with http.get("bookings") as answer:
        assert answer.status == 200
    async with http.post("bookings", json=MUMBAI_LONDON) as answer:
        assert (answer.status, (await answer.json())["code"]) == (500, "internal_error")
    assert await bookings(http) == 0


async def test_latency(http):
    await set_faults(http, latency={"seconds": 0.05})
    started = time.monotonic()
    async with http.get("bookings") as answer:
        assert answer.status == 200
    assert time.monotonic() - started >= 0.05


@pytest.mark.parametrize(("fault", "booked"), [("drop", 0), ("lost_reply", 1)])
async def test_the_connection_is_dropped(http, fault, booked):
    await set_faults(http, **{fault: {"count": 1}})
    with pytest.raises(aiohttp.ClientConnectionError):
        await http.post("bookings", json=MUMBAI_LONDON)
    assert await bookings(http) == booked


@pytest.mark.parametrize(("stage", "booked"), [("before", 0), ("after", 1)])
async def test_a_held_request_is_processed_after_its_client_disconnected(http, stage, booked):
    await set_faults(http, hold={"stage": stage, "methods": ["POST"]})
    request = asyncio.create_task(http.post("bookings", json=MUMBAI_LONDON))
    await until_held(http, 1)
    assert await bookings(http) == booked
    request.cancel()
    await asyncio.wait([request])
    await http.delete("faults")
    await until_held(http, 0)

    async def booked_once() -> bool:
        return await bookings(http) == 1

    await eventually(booked_once)


async def test_an_invalid_fault_is_rejected(http):
    wrong: list[dict[str, Any]] = [
        {"latency": {}},
        {"drop": {"rate": 2}},
        {"lightning": {}},
        {"drop": {"count": -1}},
    ]
    for faults in wrong:
        async with http.put("faults", json=faults) as answer:
            assert answer.status == 400, faults
