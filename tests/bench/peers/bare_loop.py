"""The floor: what a controller in Python costs with no framework around it, and no safety either.

List, watch, a queue without duplicates, 16 workers, one booking and one status write for each ticket. It is a
yardstick, not a model: there are no metrics, logs, Events, back-off, relist or guard against a stale cache.

Environment: API_URL, CA_FILE, TOKEN_FILE, AIRLINE_URL.
"""

import asyncio
import os
import ssl
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import msgspec

WORKERS = 16
COLLECTION = "/apis/flights.com/v1/flighttickets"


class Meta(msgspec.Struct, gc=False, rename="camel"):
    # A bookmark has the version alone.
    resource_version: str
    name: str = ""
    namespace: str = ""
    uid: str = ""
    generation: int = 0


class Spec(msgspec.Struct, gc=False, frozen=True, rename={"origin": "from", "destination": "to"}):
    origin: str = ""
    destination: str = ""
    number: int = 0


class Status(msgspec.Struct, gc=False, frozen=True):
    phase: str = ""
    booking_id: str = msgspec.field(name="bookingID", default="")
    observed_generation: int = msgspec.field(name="observedGeneration", default=0)


class Ticket(msgspec.Struct, gc=False):
    metadata: Meta
    spec: Spec = Spec()
    status: Status = Status()


class Event(msgspec.Struct, gc=False):
    type: str
    object: msgspec.Raw


class ListMeta(msgspec.Struct, rename="camel"):
    resource_version: str
    continue_: str = msgspec.field(name="continue", default="")


class Page(msgspec.Struct):
    metadata: ListMeta
    items: list[Ticket]


class Price(msgspec.Struct):
    amount: str
    currency: str


class Booking(msgspec.Struct, rename={"origin": "from", "destination": "to"}):
    id: str
    origin: str
    destination: str
    seats: int
    price: Price


events = msgspec.json.Decoder(Event)
tickets = msgspec.json.Decoder(Ticket)
pages = msgspec.json.Decoder(Page)
bookings = msgspec.json.Decoder(Booking)
encode = msgspec.json.Encoder().encode
DEADLINE = aiohttp.ClientTimeout(total=30)
UNTIL_CLOSED = aiohttp.ClientTimeout(total=None)


class Loop:
    """The controller."""

    def __init__(self, api: aiohttp.ClientSession, airline: aiohttp.ClientSession) -> None:
        self.api, self.airline = api, airline
        self.store: dict[str, Ticket] = {}
        self.queue: asyncio.Queue[str] = asyncio.Queue()
        self.dirty: set[str] = set()
        self.processing: set[str] = set()

    def see(self, ticket: Ticket) -> None:
        key = f"{ticket.metadata.namespace}/{ticket.metadata.name}"
        self.store[key] = ticket
        self.add(key)

    def add(self, key: str) -> None:
        if key not in self.dirty:
            self.dirty.add(key)
            if key not in self.processing:
                self.queue.put_nowait(key)

    async def work(self) -> None:
        while True:
            key = await self.queue.get()
            self.dirty.discard(key)
            self.processing.add(key)
            try:
                await self.sync(key)
            finally:
                self.processing.discard(key)
                if key in self.dirty:
                    self.queue.put_nowait(key)

    async def sync(self, key: str) -> None:
        ticket = self.store.get(key)
        if ticket is None:
            return
        meta, spec, status = ticket.metadata, ticket.spec, ticket.status
        if status.phase == "Booked" and status.booking_id and status.observed_generation == meta.generation:
            return
        trip = {"from": spec.origin, "to": spec.destination, "seats": spec.number}
        if status.booking_id:
            call = self.airline.patch(f"/bookings/{status.booking_id}", data=encode(trip), timeout=DEADLINE)
        else:
            call = self.airline.post(
                "/bookings", data=encode({"reference": meta.uid, **trip}), timeout=DEADLINE
            )
        async with call as answer:
            held = bookings.decode(await answer.read())
        patch = {
            "metadata": {"resourceVersion": meta.resource_version},
            "status": told(held, meta.generation),
        }
        async with self.api.patch(
            f"/apis/flights.com/v1/namespaces/{meta.namespace}/flighttickets/{meta.name}/status",
            data=encode(patch),
            headers={"Content-Type": "application/merge-patch+json"},
            timeout=DEADLINE,
        ) as answer:
            body = await answer.read()
        if answer.status == 200:
            self.store[key] = tickets.decode(body)
        elif answer.status == 409:
            asyncio.get_running_loop().call_later(0.01, self.add, key)
        else:
            print(answer.status, body[:200], flush=True)

    async def run(self) -> None:
        self.workers = [asyncio.ensure_future(self.work()) for _ in range(WORKERS)]
        token = ""
        while True:
            query = f"?limit=500&continue={token}" if token else "?limit=500"
            async with self.api.get(COLLECTION + query, timeout=DEADLINE) as answer:
                page = pages.decode(await answer.read())
            for ticket in page.items:
                self.see(ticket)
            token = page.metadata.continue_
            if not token:
                break
        version = page.metadata.resource_version
        while True:
            version = await self.watch(version)

    async def watch(self, version: str) -> str:
        """Until the server ends it, as it does with those who fall behind; returns how far it came."""
        query = f"?watch=1&allowWatchBookmarks=true&timeoutSeconds=3600&resourceVersion={version}"
        async with self.api.get(COLLECTION + query, timeout=UNTIL_CLOSED) as answer:
            answer.raise_for_status()
            rest = b""
            async for chunk in answer.content.iter_any():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    version = self.observe(events.decode(line))
        return version

    def observe(self, event: Event) -> str:
        ticket = tickets.decode(event.object)
        if event.type == "BOOKMARK":
            return ticket.metadata.resource_version
        if event.type == "DELETED":
            self.store.pop(f"{ticket.metadata.namespace}/{ticket.metadata.name}", None)
        else:
            self.see(ticket)
        return ticket.metadata.resource_version


def told(held: Booking, generation: int) -> dict[str, object]:
    """The status that tells a booking."""
    plural = "" if held.seats == 1 else "s"
    message = f"Booking {held.id} holds {held.seats} seat{plural} from {held.origin} to {held.destination}."
    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "Booked",
        "message": message,
        "lastTransitionTime": datetime.now(UTC).replace(microsecond=0),
        "observedGeneration": generation,
    }
    return {
        "phase": "Booked",
        "bookingID": held.id,
        "bookedSeats": held.seats,
        "price": f"{held.price.amount} {held.price.currency}",
        "observedGeneration": generation,
        "conditions": [ready],
    }


async def main(env: Mapping[str, str], token: str) -> None:
    tls = ssl.create_default_context(cafile=env["CA_FILE"])
    async with (
        aiohttp.ClientSession(
            env["API_URL"],
            connector=aiohttp.TCPConnector(ssl=tls, limit=WORKERS + 4),
            headers={"Authorization": f"Bearer {token}", "Accept-Encoding": "identity"},
        ) as api,
        aiohttp.ClientSession(env["AIRLINE_URL"], connector=aiohttp.TCPConnector(limit=WORKERS)) as airline,
    ):
        await Loop(api, airline).run()


if __name__ == "__main__":
    asyncio.run(main(os.environ, Path(os.environ["TOKEN_FILE"]).read_text()))
