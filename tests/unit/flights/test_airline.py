"""The client against the real booking service, and against servers that are not the booking service."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from booking_api.faults import Fault, Faults, Latency, TooMany
from flights_operator.airline import Airline as Client
from flights_operator.booking import Trip
from flights_operator.errors import (
    AirlineError,
    NoAnswerError,
    ReferenceExistsError,
    RejectedError,
    StaleBookingError,
    ThrottledError,
    UnauthorizedError,
    WrongAddressError,
)
from flights_operator.settings import FlightsSettings
from flights_operator.transport import KeyFile
from pilothouse.process import SettingsError
from pilothouse.process.environment import shown
from tests.airline import KEY

TRIP = Trip("Mumbai", "London", 2)


@pytest.fixture
async def client(settings: FlightsSettings) -> AsyncIterator[Client]:
    async with Client(settings) as client:
        yield client


async def test_books_finds_changes_and_cancels(client, airline):
    assert await client.find("r") is None
    booking = await client.book("r", TRIP)
    assert await client.find("r") == booking
    assert (booking.trip, str(booking.price)[-4:]) == (TRIP, " USD")
    changed = await client.change(booking, TRIP._replace(seats=3), key="r-2-1")
    assert (changed.seats, changed.version) == (3, 2)
    assert await client.cancel("r") == changed
    assert await client.cancel("r") is None


async def test_rejections_have_their_class_and_the_airlines_message(client, airline):
    booking = await client.book("r", TRIP)
    with pytest.raises(ReferenceExistsError, match=booking.id):
        await client.book("r", TRIP)
    await airline.change(booking.id, seats=4)
    with pytest.raises(StaleBookingError, match="at version 2, not 1"):
        await client.change(booking, TRIP._replace(seats=3), key="k")
    await airline.cancel(booking.id)
    with pytest.raises(StaleBookingError, match=booking.id):
        await client.change(booking, TRIP._replace(seats=3), key="k2")
    await airline.set_capacity("Mumbai", "London", 1)
    with pytest.raises(RejectedError, match="2 seats requested, 1 free") as refusal:
        await client.book("r2", TRIP)
    assert (refusal.value.status, refusal.value.code) == (409, "flight_full")
    assert airline.requests["POST"] == 3


@pytest.mark.usefixtures("airline")
async def test_a_key_that_is_caught_half_replaced_is_never_sent(settings):
    key = KeyFile(settings.key_file)
    assert key.read() == KEY
    settings.key_file.write_text("half\na key")
    assert key.read(now=True) == KEY, "the last good key stays in use"
    settings.key_file.write_text("another")
    assert key.read(now=True) == "another"


@pytest.mark.parametrize(
    "fault",
    [
        Faults(server_error=Fault(count=2)),
        Faults(drop=Fault(count=2)),
        Faults(too_many_requests=TooMany(count=2, retry_after=0.05)),
        Faults(latency=Latency(seconds=0.6, count=2)),
    ],
    ids=["500", "drop", "429", "timeout"],
)
async def test_transient_faults_are_retried(settings, airline, fault):
    airline.set_faults(fault)
    impatient = FlightsSettings(url=settings.url, key_file=settings.key_file, timeout=0.3)
    async with Client(impatient) as client:
        assert await client.find("r") is None
    assert airline.requests["GET"] == 3


async def test_a_lost_reply_is_detected(client, airline):
    airline.set_faults(Faults(lost_reply=Fault(count=1, methods=["POST"])))
    with pytest.raises(ReferenceExistsError):
        await client.book("r", TRIP)
    found = await client.find("r")
    airline.set_faults(Faults(lost_reply=Fault(count=1, methods=["PATCH"])))
    assert (await client.change(found, TRIP._replace(seats=3), key="k")).seats == 3
    airline.set_faults(Faults(lost_reply=Fault(count=1, methods=["DELETE"])))
    assert await client.cancel("r") is None
    assert await airline.actions() == ["created", "changed", "cancelled", "closed"]


async def test_permanent_faults_name_the_airline_and_the_cause(settings, airline, unused_port):
    airline.set_faults(Faults(server_error=Fault()))
    async with Client(settings) as client:
        with pytest.raises(NoAnswerError, match=r"at http://127.* answered 500: Something went wrong"):
            await client.find("r")
    airline.set_faults(Faults(latency=Latency(seconds=5)))
    async with Client(FlightsSettings(url=settings.url, key_file=settings.key_file, timeout=0.1)) as client:
        with pytest.raises(NoAnswerError, match=r"did not answer within 0.1 s"):
            await client.find("r")
    airline.set_faults(Faults(too_many_requests=TooMany(retry_after=60)))
    async with Client(settings) as client:
        with pytest.raises(ThrottledError) as throttled:
            await client.find("r")
        assert throttled.value.retry_after == 60
    for url, words in [
        (f"http://127.0.0.1:{unused_port}/", "connection refused"),
        ("http://no-such-host.invalid/", "its name does not resolve"),
    ]:
        async with Client(FlightsSettings(url=url, key_file=settings.key_file)) as client:
            with pytest.raises(NoAnswerError, match=words):
                await client.find("r")


@pytest.mark.parametrize("host", ["a..b", "a" * 64])
async def test_a_host_that_is_not_a_dns_name_is_a_wrong_address(settings, host):
    async with Client(FlightsSettings(url=f"http://{host}/", key_file=settings.key_file)) as client:
        with pytest.raises(WrongAddressError, match=r"its host is not a DNS name\. Check AIRLINE_URL"):
            await client.find("r")


@pytest.fixture
async def unused_port() -> int:
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    port = int(server.sockets[0].getsockname()[1])
    server.close()
    await server.wait_closed()
    return port


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda: web.Response(text="<html>"), "does not match its API description"),
        (lambda: web.json_response({"items": [{"id": 1}]}), "does not match its API description"),
        (lambda: web.Response(body=b"x" * 70_000), "more than 65536 bytes"),
        (lambda: web.Response(status=404), r"no booking API at .* \(status 404\)\. Check AIRLINE_URL"),
        (lambda: web.Response(status=302, headers={"Location": "http://elsewhere/"}), "Check AIRLINE_URL"),
        (lambda: web.Response(status=503, text="<html>"), "answered 503: HTTP status 503 without a message"),
    ],
)
async def test_answers_of_other_servers_are_reported(answer, words, tmp_path):
    async with answering(answer, tmp_path) as (client, _):
        with pytest.raises(AirlineError, match=words):
            await client.find("r")


@asynccontextmanager
async def answering(
    answer: Callable[[], web.Response], folder: Path
) -> AsyncIterator[tuple[Client, list[str]]]:
    """Yields a client of a server with a constant answer, and the methods of the requests it received."""
    asked = []

    async def handle(request: web.Request) -> web.Response:
        asked.append(request.method)
        return answer()

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    (folder / "key").write_text(KEY)
    settings = FlightsSettings(url=f"http://127.0.0.1:{runner.addresses[0][1]}/", key_file=folder / "key")
    try:
        async with Client(settings) as client:
            yield client, asked
    finally:
        await runner.cleanup()


def problem(status: int, detail: str = "The airline's own words.") -> Callable[[], web.Response]:
    return lambda: web.json_response({"detail": detail}, status=status)


REFUSALS = [400, 402, 403, 409, 410, 422, 451]


@pytest.mark.parametrize("status", REFUSALS)
async def test_a_rejection_is_not_retried_has_the_airlines_message_and_keeps_the_circuit_closed(
    status, tmp_path
):
    async with answering(problem(status), tmp_path) as (client, asked):
        for count in range(1, 8):
            with pytest.raises(RejectedError, match="The airline's own words") as refusal:
                await client.find("r")
            assert refusal.value.status == status
            assert len(asked) == count


@pytest.mark.parametrize(
    ("answer", "method", "error"),
    [
        (problem(401), "GET", UnauthorizedError),
        (problem(404), "GET", WrongAddressError),
        (lambda: web.Response(status=404), "POST", WrongAddressError),
        (lambda: web.Response(status=405), "POST", WrongAddressError),
        (problem(404), "POST", RejectedError),
        (lambda: web.Response(status=301), "GET", WrongAddressError),
    ],
)
async def test_errors_that_a_retry_cannot_fix_are_not_retried(answer, method, error, tmp_path):
    async with answering(answer, tmp_path) as (client, asked):
        with pytest.raises(error) as refusal:
            await (client.find("r") if method == "GET" else client.book("r", TRIP))
    assert type(refusal.value) is error
    assert asked == [method]
    assert ("The airline's own words." in str(refusal.value)) == (b"words" in (answer().body or b""))


async def test_a_request_that_did_not_arrive_in_time_is_sent_again(tmp_path):
    async with answering(problem(408), tmp_path) as (client, asked):
        with pytest.raises(NoAnswerError, match="The airline's own words"):
            await client.find("r")
    assert len(asked) == 3


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("60", 60), ("86400", 300), ("inf", None), ("nan", None), ("Fri, 01 Jan 2100 00:00:00 GMT", 300)],
)
async def test_retry_after_is_limited(header, seconds, tmp_path):
    def answer() -> web.Response:
        return web.Response(status=429, headers={"Retry-After": header})

    async with answering(answer, tmp_path) as (client, _):
        with pytest.raises(ThrottledError) as throttled:
            await client.find("r")
    assert throttled.value.retry_after == seconds


async def test_a_rotated_key_is_used_immediately(client, airline):
    await client.find("r")
    airline.key_file.write_text("rotated")
    assert await client.find("r") is None


async def test_a_rejected_key_and_a_missing_one_are_named(settings, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    wrong = tmp_path / "wrong"
    wrong.write_text("a-wrong-key\n")
    for content, words in [
        ("a-wrong-key", "does not accept the API key in"),
        ("", "it is empty, or not one line of ASCII text"),
    ]:
        wrong.write_text(content)
        async with Client(FlightsSettings(url=settings.url, key_file=wrong)) as client:
            with pytest.raises(UnauthorizedError, match=words) as error:
                await client.find("r")
        assert str(wrong) in str(error.value)
        assert "a-wrong-key" not in str(error.value)
    async with Client(FlightsSettings(url=settings.url, key_file=tmp_path / "none")) as client:
        with pytest.raises(UnauthorizedError, match=r"cannot be read from .*No such file"):
            await client.find("r")
    assert "a-wrong-key" not in caplog.text
    assert KEY not in caplog.text


async def test_connections_are_limited(settings, airline):
    airline.set_faults(Faults(latency=Latency(seconds=0.05)))
    narrow = FlightsSettings(url=settings.url, key_file=settings.key_file, connections=2)
    began = asyncio.get_running_loop().time()
    async with Client(narrow) as client:
        await asyncio.gather(*(client.find("r") for _ in range(10)))
    assert asyncio.get_running_loop().time() - began >= 0.25


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"AIRLINE_API_KEY_FILE": "/k"}, "AIRLINE_URL is not set"),
        ({"AIRLINE_URL": "http://a"}, "AIRLINE_API_KEY_FILE is not set"),
        ({"AIRLINE_URL": "a:80", "AIRLINE_API_KEY_FILE": "/k"}, "AIRLINE_URL is 'a:80'"),
        (
            {"AIRLINE_URL": "http://a:x", "AIRLINE_API_KEY_FILE": "/k"},
            "AIRLINE_URL is 'http://a:x', which is not a valid URL",
        ),
        (
            {"AIRLINE_URL": "http://[::1", "AIRLINE_API_KEY_FILE": "/k"},
            r"AIRLINE_URL is 'http://\[::1', which is not a valid URL",
        ),
        (
            {"AIRLINE_URL": "http://u:secret@[a", "AIRLINE_API_KEY_FILE": "/k"},
            "AIRLINE_URL is not a valid URL",
        ),
        ({"AIRLINE_URL": "http://u:secret@a", "AIRLINE_API_KEY_FILE": "/k"}, "contains credentials"),
        (
            {"AIRLINE_URL": "http://a", "AIRLINE_API_KEY_FILE": "/k", "AIRLINE_TIMEOUT": "no"},
            "AIRLINE_TIMEOUT",
        ),
    ],
)
def test_a_wrong_setting_is_named(variables, words):
    with pytest.raises(SettingsError, match=words) as error:
        FlightsSettings.load(variables)
    assert "secret" not in str(error.value)


def loaded(url: str) -> FlightsSettings:
    return FlightsSettings.load({"AIRLINE_URL": url, "AIRLINE_API_KEY_FILE": "/k"})


@pytest.mark.parametrize(
    "url",
    [
        "http://a..b",
        f"http://{'a' * 64}",
        f"http://{'.'.join(['a' * 63] * 4)}",
        r"http://x\y",
        r"http://x/\y",
        "http://x y",
        "http://exa mple.com",
        "http://exa\tmple.com",
        "http://exa\x00mple.com",
        "http://-a",
        "http://a_b",
        "http://flüge.example",
        "http://1.2.3",
        "http://1.2.3.256",
        "http://[v1.a]",
    ],
)
def test_an_invalid_host_is_named(url):
    with pytest.raises(SettingsError) as error:
        loaded(url)
    sentence = str(error.value)
    assert sentence.startswith(f"AIRLINE_URL is {shown(url)}")
    assert " Use a " in sentence
    assert sentence.endswith("such as http://booking-api.airline.svc.")


@pytest.mark.parametrize(
    "url",
    [
        "http://a",
        "http://A.b.",
        f"http://{'a' * 63}:80/v1",
        "https://10.0.0.1",
        "http://[::1]:8080",
        "http://1a",
    ],
)
def test_a_host_is_a_name_or_an_address(url):
    assert loaded(url).url == f"{url}/"


def test_settings_have_defaults_and_units():
    variables = {"AIRLINE_URL": "https://a/v1", "AIRLINE_API_KEY_FILE": "/k", "RESYNC_PERIOD": "10m"}
    settings = FlightsSettings.load(variables)
    assert (settings.url, settings.key_file, settings.resync) == ("https://a/v1/", Path("/k"), 600.0)


async def test_a_key_that_the_airline_repeats_is_hidden(tmp_path):
    async with answering(problem(400, f"you sent X-API-Key: {KEY}"), tmp_path) as (client, _):
        with pytest.raises(RejectedError, match=r"you sent X-API-Key: \*\*\*$"):
            await client.book("r", TRIP)


@pytest.mark.parametrize("wrong", [{"reference": "another"}, {"id": ""}, {"seats": -1}])
async def test_an_answer_with_another_booking_is_an_error(wrong, tmp_path):
    booking = {"id": "B", "reference": "r", "from": "Mumbai", "to": "London", "seats": 2, "version": 1}

    def answer() -> web.Response:
        return web.json_response(booking | wrong, status=201)

    async with answering(answer, tmp_path) as (client, _):
        with pytest.raises(
            NoAnswerError, match="not the requested booking with the reference r: it has the id"
        ):
            await client.book("r", TRIP)
