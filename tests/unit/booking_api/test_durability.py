"""Answered bookings survive a killed process; mistakes on the command line are reported."""

import asyncio
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest

from booking_api.keys import ApiKeys
from pilothouse.testing import eventually
from tests.airline import KEY
from tests.unit.booking_api.conftest import MUMBAI_LONDON

ROOT = Path(__file__).parents[3]


class Service:
    """A process that runs booking_api on a free port."""

    def __init__(self, database: Path) -> None:
        self.database = database

    async def __aenter__(self) -> "Service":
        arguments = ["--address", "127.0.0.1:0", "--database", str(self.database)]
        self.process = await asyncio.create_subprocess_exec(
            *[sys.executable, "-m", "booking_api", *arguments],
            env=os.environ | {"PYTHONPATH": str(ROOT / "examples"), "BOOKING_API_KEY": KEY},
            stderr=asyncio.subprocess.PIPE,
        )
        assert self.process.stderr
        line = await asyncio.wait_for(self.process.stderr.readline(), 20)
        listening = re.search(rb"Listening on ([0-9.:]+)", line)
        assert listening, line + await self.process.stderr.read()
        self.http = aiohttp.ClientSession(f"http://{listening[1].decode()}/", headers={"X-API-Key": KEY})
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.close()
        if self.process.returncode is None:
            self.process.kill()
        await self.process.communicate()


async def test_no_answered_booking_is_lost_by_a_kill(tmp_path):
    answered: set[str] = set()
    enough = asyncio.Event()

    async def book(http: aiohttp.ClientSession, number: int) -> None:
        async with http.post("bookings", json=MUMBAI_LONDON | {"reference": f"r{number}"}) as answer:
            assert answer.status == 201
            answered.add((await answer.json())["id"])
        if len(answered) >= 20:
            enough.set()

    async with Service(tmp_path / "b.db") as service:
        work = asyncio.gather(*(book(service.http, n) for n in range(200)), return_exceptions=True)
        await asyncio.wait_for(enough.wait(), 20)
        service.process.kill()
        await work
    async with Service(tmp_path / "b.db") as service, service.http.get("bookings?limit=500") as answer:
        kept = {booking["id"] for booking in (await answer.json())["items"]}
    assert answered <= kept


async def test_sigterm_ends_it_cleanly_with_a_request_held(tmp_path):
    async with Service(tmp_path / "b.db") as service:

        async def held() -> bool:
            async with service.http.get("faults") as answer:
                return bool((await answer.json())["held"])

        await service.http.put("faults", json={"hold": {"methods": ["POST"]}})
        request = asyncio.create_task(service.http.post("bookings", json=MUMBAI_LONDON))
        await eventually(held)
        service.process.send_signal(signal.SIGTERM)
        assert (await request).status == 201
        assert await asyncio.wait_for(service.process.wait(), 10) == 0


async def test_a_rotated_key_is_accepted_immediately(tmp_path):
    file = tmp_path / "api-key"
    file.write_text("old\n")
    keys = ApiKeys(file)
    assert await keys.accepts("old")
    replacement = tmp_path / "next"
    replacement.write_text("new\nold\n")
    replacement.rename(file)
    assert await keys.accepts("new")
    assert await keys.accepts("old")
    assert not await keys.accepts("")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--address", "8080"], "--address is '8080'; use host:port, for example 0.0.0.0:8080"),
        ([], "no API key is set; set BOOKING_API_KEY or --api-key-file"),
    ],
)
def test_a_wrong_command_line_is_reported(arguments, words):
    ended = subprocess.run(
        [sys.executable, "-m", "booking_api", *arguments],
        env={"PYTHONPATH": str(ROOT / "examples")},
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert ended.returncode == 2
    assert words in ended.stderr
