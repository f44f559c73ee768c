"""What the sync of a settled ticket costs, beside the client's CPU for one write of a status.

::

    python3 -m tests.bench.settled URL CA_FILE TOKEN_FILE NAMESPACE NAME

Both in one process, one after the other, in several alternating parts. Prints the microseconds of CPU of each
as JSON. The ticket is booked already; its status is written with changing seats and put right in the end.
"""

import asyncio
import json
import logging
import sys
import time
from pathlib import Path
from typing import Any
from unittest.mock import Mock

from flights_operator.airline import Airline
from flights_operator.settings import FlightsSettings
from flights_operator.tickets import ticket_playbook
from flights_operator.types import FLIGHT_TICKET, FlightTicket
from pilothouse.informer import Store
from pilothouse.kube import Client, ClientConfig, ObjectKey, PatchType, StaticToken, TlsFiles
from pilothouse.playbook import Reconciler

PARTS = 5
SYNCS = 2000
WRITES = 200


async def measure(client: Client, key: ObjectKey) -> dict[str, float]:
    """The medians of the parts, microseconds."""
    resource = FLIGHT_TICKET.resource
    ticket = await client.get(resource, key)
    async with Airline(FlightsSettings(url="http://127.0.0.1:9/", key_file=Path("/dev/null"))) as airline:
        store: Store[FlightTicket] = Store("FlightTicket")
        store.observe(ticket)
        recorder: Any = Mock()  # A settled ticket has no Events, and is never compared with its booking here.
        reconciler = Reconciler(client, resource, store, ticket_playbook(airline, 0.0), recorder)
        await reconciler.sync(key)
        syncs, writes = [], []
        for _ in range(PARTS):
            began = time.process_time()
            for _ in range(SYNCS):
                await reconciler.sync(key)
            syncs.append((time.process_time() - began) / SYNCS)
            began = time.process_time()
            for number in range(WRITES):
                patch = {"status": {"bookedSeats": number % 2 + 1}}
                await client.patch(resource, key, patch, type=PatchType.MERGE, subresource="status")
            writes.append((time.process_time() - began) / WRITES)
        seats = {"status": {"bookedSeats": ticket.status.booked_seats}}
        await client.patch(resource, key, seats, type=PatchType.MERGE, subresource="status")
    return {"sync": sorted(syncs)[PARTS // 2] * 1e6, "write": sorted(writes)[PARTS // 2] * 1e6}


async def main(url: str, ca_file: str, token: str, namespace: str, name: str) -> None:
    """Prints the result."""
    logging.disable(logging.DEBUG)
    config = ClientConfig(url, tls=TlsFiles(ca_file=ca_file), token=StaticToken(token))
    async with Client(config, user_agent="pilothouse-flights") as client:
        print(json.dumps(await measure(client, ObjectKey(namespace, name))))


if __name__ == "__main__":
    url, ca_file, token_file, *ticket = sys.argv[1:]
    asyncio.run(main(url, ca_file, Path(token_file).read_text(), *ticket))
