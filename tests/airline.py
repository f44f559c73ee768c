"""The booking service in the test's process, on a free loopback port."""

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
    """The running service, which a test can inspect and change without the operator's client."""

    def __init__(self, api: BookingApi, url: str, key_file: Path) -> None:
        self.api = api
        self.url = url
        self.key_file = key_file

    @property
    def requests(self) -> Counter[str]:
        """The requests under /bookings so far, by method."""
        return self.api.faults.requests

    @property
    def held(self) -> int:
        """The number of held requests."""
        return self.api.faults.held

    def set_faults(self, faults: Faults) -> None:
        """Replaces the active faults."""
        self.api.faults.faults = faults

    def clear_faults(self) -> None:
        """Turns all faults off and releases the held requests."""
        self.api.faults.clear()

    async def bookings(self) -> list[Booking]:
        """Returns all bookings."""
        ledger = self.api.ledger
        return (await ledger.run(ledger.page, after=0, limit=100_000)).items

    async def actions(self, reference: str = "") -> list[str]:
        """Returns the actions in the audit log: all of them, or those of one reference."""
        ledger = self.api.ledger
        entries = (await ledger.run(ledger.audit, after=0, limit=100_000)).items
        return [entry.action for entry in entries if reference in ("", entry.reference)]

    async def change(self, booking_id: str, **fields: str | int) -> None:
        """Changes a booking as the airline's staff would."""
        ledger, change = self.api.ledger, msgspec.convert(fields, BookingChange)
        await self._do(lambda: ledger.change(booking_id, change, version=None))

    async def cancel(self, booking_id: str) -> None:
        """Cancels a booking as the airline's staff would."""
        await self._do(lambda: self.api.ledger.cancel(booking_id))

    async def close_reference(self, reference: str) -> None:
        """Cancels by reference and closes it, as another client of the airline would."""
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
