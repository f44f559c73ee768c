import asyncio
from http import HTTPStatus
from typing import Any

import aiohttp

from tests.airline import KEY
from tests.unit.booking_api.conftest import MUMBAI_LONDON


async def book(http: aiohttp.ClientSession, **fields) -> dict[str, Any]:
    async with http.post("bookings", json=MUMBAI_LONDON | fields) as answer:
        assert answer.status == HTTPStatus.CREATED, await answer.text()
        return dict(await answer.json())


async def problem(answer: aiohttp.ClientResponse, status: int, code: str) -> dict[str, Any]:
    body = await answer.json()
    assert (answer.status, body["status"], body["code"]) == (status, status, code), body
    assert answer.content_type == "application/problem+json"
    return dict(body)


async def audit(http: aiohttp.ClientSession) -> list[tuple[str, str, int]]:
    async with http.get("audit") as answer:
        return [(e["action"], e["reference"], e["seats"]) for e in (await answer.json())["items"]]


async def test_books_and_finds_by_id_and_reference(http):
    booking = await book(http)
    assert booking["version"] == 1
    assert booking["price"]["currency"] == "USD"
    async with http.get(f"bookings/{booking['id']}") as answer:
        assert await answer.json() == booking
        assert answer.headers["ETag"] == '"1"'
    async with http.get("bookings", params={"reference": "r1"}) as answer:
        assert await answer.json() == {"items": [booking], "next": None}
    async with http.get("bookings", params={"reference": "other"}) as answer:
        assert (await answer.json())["items"] == []


async def test_a_reference_is_booked_once(http):
    booking = await book(http)
    async with http.post("bookings", json=MUMBAI_LONDON) as answer:
        body = await problem(answer, 409, "reference_exists")
        assert body["booking_id"] == booking["id"]
        assert booking["id"] in body["detail"]


async def test_requests_at_the_same_time_make_one_booking(http):
    answers = await asyncio.gather(*(http.post("bookings", json=MUMBAI_LONDON) for _ in range(20)))
    assert sorted(answer.status for answer in answers) == [201] + [409] * 19
    assert await audit(http) == [("created", "r1", 2)]


async def test_a_repeated_idempotency_key_gets_the_first_answer(http):
    headers = {"Idempotency-Key": "k1"}
    async with http.post("bookings", json=MUMBAI_LONDON, headers=headers) as answer:
        first = (answer.status, await answer.read(), answer.headers["ETag"])
    async with http.post("bookings", json=MUMBAI_LONDON, headers=headers) as answer:
        assert (answer.status, await answer.read(), answer.headers["ETag"]) == first
    async with http.post("bookings", json=MUMBAI_LONDON | {"seats": 3}, headers=headers) as answer:
        await problem(answer, 422, "idempotency_key_reused")
    assert await audit(http) == [("created", "r1", 2)]


async def test_a_rejected_request_can_be_retried_with_its_key(http):
    await http.put("flights/Mumbai/London", json={"capacity": 1})
    headers = {"Idempotency-Key": "k1"}
    async with http.post("bookings", json=MUMBAI_LONDON, headers=headers) as answer:
        await problem(answer, 409, "flight_full")
    await http.put("flights/Mumbai/London", json={"capacity": 2})
    async with http.post("bookings", json=MUMBAI_LONDON, headers=headers) as answer:
        assert answer.status == HTTPStatus.CREATED


async def test_changes_seats_and_route(http):
    booking = await book(http)
    async with http.patch(f"bookings/{booking['id']}", json={"seats": 4}) as answer:
        changed = await answer.json()
    assert (changed["seats"], changed["version"], changed["id"]) == (4, 2, booking["id"])
    assert float(changed["price"]["amount"]) == 2 * float(booking["price"]["amount"])
    async with http.patch(f"bookings/{booking['id']}", json={"from": "Delhi", "to": "Paris"}) as answer:
        moved = await answer.json()
    assert (moved["from"], moved["to"], moved["seats"]) == ("Delhi", "Paris", 4)
    assert await audit(http) == [("created", "r1", 2), ("changed", "r1", 4), ("changed", "r1", 4)]


async def test_a_change_for_an_older_version_is_rejected_but_a_repeated_one_is_not(http):
    booking = await book(http)
    path, guard = f"bookings/{booking['id']}", {"If-Match": '"1"', "Idempotency-Key": "r1-2-1"}
    for _ in range(2):
        async with http.patch(path, json={"seats": 4}, headers=guard) as answer:
            assert (answer.status, (await answer.json())["version"]) == (200, 2)
    async with http.patch(path, json={"seats": 5}, headers={"If-Match": '"1"'}) as answer:
        await problem(answer, 412, "version_changed")
    async with http.patch(path, json={"seats": 5}, headers={"If-Match": "W/x"}) as answer:
        await problem(answer, 400, "invalid_request")
    assert await audit(http) == [("created", "r1", 2), ("changed", "r1", 4)]


async def test_a_cancelled_booking_frees_its_seats_and_reference(http):
    await http.put("flights/Mumbai/London", json={"capacity": 2})
    booking = await book(http)
    async with http.delete(f"bookings/{booking['id']}") as answer:
        assert (answer.status, await answer.json()) == (200, booking)
    async with http.delete(f"bookings/{booking['id']}") as answer:
        await problem(answer, 404, "not_found")
    assert (await book(http))["id"] != booking["id"]


async def test_cancelling_by_reference_rejects_later_bookings(http):
    booking = await book(http)
    async with http.delete("bookings", params={"reference": "r1"}) as answer:
        assert (answer.status, await answer.json()) == (200, booking)
    async with http.delete("bookings", params={"reference": "r1"}) as answer:
        assert answer.status == HTTPStatus.NO_CONTENT
    async with http.post("bookings", json=MUMBAI_LONDON) as answer:
        await problem(answer, 409, "reference_closed")
    assert await audit(http) == [("created", "r1", 2), ("cancelled", "r1", 2), ("closed", "r1", 0)]


async def test_a_full_flight_names_the_free_seats(http):
    await http.put("flights/Mumbai/London", json={"capacity": 5})
    booking = await book(http, seats=4)
    async with http.post("bookings", json=MUMBAI_LONDON | {"reference": "r2"}) as answer:
        body = await problem(answer, 409, "flight_full")
        assert body["detail"] == "The flight from Mumbai to London is full: 2 seats requested, 1 free."
    async with http.patch(f"bookings/{booking['id']}", json={"seats": 6}) as answer:
        await problem(answer, 409, "flight_full")
    async with http.patch(f"bookings/{booking['id']}", json={"seats": 5}) as answer:
        assert answer.status == HTTPStatus.OK
    async with http.get("flights/Mumbai/London") as answer:
        flight = await answer.json()
        assert (flight["capacity"], flight["booked"]) == (5, 5)


async def test_an_overbooked_flight_accepts_fewer_seats(http):
    booking = await book(http, seats=4)
    await http.put("flights/Mumbai/London", json={"capacity": 1})
    async with http.patch(f"bookings/{booking['id']}", json={"seats": 3}) as answer:
        assert answer.status == HTTPStatus.OK


async def test_mistakes_are_named(http):
    for body, words in [
        (MUMBAI_LONDON | {"seats": 11}, "$.seats"),
        (MUMBAI_LONDON | {"seats": "2"}, "$.seats"),
        (MUMBAI_LONDON | {"from": ""}, "$.from"),
        (MUMBAI_LONDON | {"meal": "veg"}, "meal"),
        ({"reference": "r"}, "from"),
    ]:
        async with http.post("bookings", json=body) as answer:
            assert words in (await problem(answer, 400, "invalid_request"))["detail"]
    async with http.post("bookings", json=MUMBAI_LONDON | {"to": "Mumbai"}) as answer:
        await problem(answer, 422, "invalid_route")
    async with http.get("bookings", params={"limit": "many"}) as answer:
        assert "'many'" in (await problem(answer, 400, "invalid_request"))["detail"]
    async with http.delete("bookings") as answer:
        await problem(answer, 400, "invalid_request")
    async with http.get("nowhere") as answer:
        await problem(answer, 404, "not_found")
    async with http.put("bookings") as answer:
        await problem(answer, 405, "method_not_allowed")
        assert answer.headers["Allow"] == "DELETE,GET,POST"


async def test_lists_in_pages(http):
    made = [(await book(http, reference=f"r{n}"))["id"] for n in range(5)]
    seen, after = [], "0"
    while after:
        async with http.get("bookings", params={"limit": "2", "after": after}) as answer:
            page = await answer.json()
        assert len(page["items"]) <= 2
        seen += [booking["id"] for booking in page["items"]]
        after = page["next"]
    assert seen == made


async def test_a_key_is_required(airline):
    async with aiohttp.ClientSession(airline.url) as http:
        for path in ("bookings", "bookings/x", "audit", "faults", "statistics", "flights/a/b"):
            async with http.get(path) as answer:
                await problem(answer, 401, "unauthorized")
        for headers in ({"X-API-Key": "wrong"}, {"Authorization": "Bearer wrong"}, {"Authorization": KEY}):
            async with http.get("bookings", headers=headers) as answer:
                await problem(answer, 401, "unauthorized")
        async with http.get("bookings", headers={"Authorization": f"Bearer {KEY}"}) as answer:
            assert answer.status == HTTPStatus.OK
        for path in ("healthz", "openapi.json"):
            async with http.get(path) as answer:
                assert answer.status == HTTPStatus.OK


async def test_statistics(http):
    await book(http)
    async with http.get("statistics") as answer:
        assert await answer.json() == {"bookings": 1, "seats": 2, "requests": {"POST": 1}}
