"""The booking service in the test's own process, on a free loopback port."""

from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
from aiohttp import web

from booking_api.faults import Faults
from booking_api.keys import ApiKeys
from booking_api.ledger import Answer, Ledger
from booking_api.model import Booking, BookingChange
from booking_api.web import BookingApi

KEY = "only-for-tests"


class Airline:
    """The running service, and what a test wants to see of it or do to it behind the client's back."""

    def __init__(self, api: BookingApi, url: str, key_file: Path) -> None:
        self.api = api
        self.url = url
        self.key_file = key_file

    @property
    def requests(self) -> Counter[str]:
        """Requests under /bookings so far, by method."""
        return self.api.faults.requests

    @property
    def held(self) -> int:
        """How many requests are held at present."""
        return self.api.faults.held

    def set_faults(self, faults: Faults) -> None:
        """Switches faults on, in place of those that are on."""
        self.api.faults.faults = faults

    def clear_faults(self) -> None:
        """Switches faults off and releases what is held."""
        self.api.faults.clear()

    async def bookings(self) -> list[Booking]:
        """All bookings."""
        ledger = self.api.ledger
        return (await ledger.run(ledger.page, after=0, limit=100_000)).items

    async def actions(self, reference: str = "") -> list[str]:
        """The audit log's actions, all or those on one reference."""
        ledger = self.api.ledger
        entries = (await ledger.run(ledger.audit, after=0, limit=100_000)).items
        return [entry.action for entry in entries if reference in ("", entry.reference)]

    async def change(self, booking_id: str, **fields: str | int) -> None:
        """Changes a booking as the airline's desk would."""
        ledger, change = self.api.ledger, msgspec.convert(fields, BookingChange)
        await self._do(lambda: ledger.change(booking_id, change, version=None))

    async def cancel(self, booking_id: str) -> None:
        """Cancels a booking as the airline's desk would."""
        await self._do(lambda: self.api.ledger.cancel(booking_id))

    async def close_reference(self, reference: str) -> None:
        """Cancels for good what has a reference, as another client of the airline would."""
        await self.api.ledger.run(self.api.ledger.close_reference, reference)

    async def set_capacity(self, origin: str, destination: str, capacity: int) -> None:
        """Sets the seats of a route."""
        await self.api.ledger.run(self.api.ledger.set_capacity, origin, destination, capacity)

    async def _do(self, change: Callable[[], Answer]) -> None:
        await self.api.ledger.run(self.api.ledger.once, None, change)


@asynccontextmanager
async def running_airline(folder: Path, *, capacity: int = 100_000, port: int = 0) -> AsyncIterator[Airline]:
    """Runs the service with its database and its key file in a folder."""
    key_file = folder / "api-key"
    key_file.write_text(KEY)
    ledger = Ledger(folder / "bookings.db", capacity=capacity)
    await ledger.run(ledger.open)
    api = BookingApi(ledger, ApiKeys(key_file))
    runner = web.AppRunner(api.application(), access_log=None, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield Airline(api, f"http://127.0.0.1:{runner.addresses[0][1]}/", key_file)
    finally:
        await runner.cleanup()
        await ledger.close()
