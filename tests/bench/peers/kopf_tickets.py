# mypy: ignore-errors
# kopf is installed in an environment of its own.
"""FlightTickets by kopf: the same booking, the same status.

With KOPF_TUNED=1 as one would write it for speed: no handler state in annotations, 16 workers, one session
for the status writes, uvloop. Without, as the tutorial of kopf has it: `on.create` and `on.update` and a
result in the status, all settings as they are.
"""

import asyncio
import os
import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import kopf

ENV = os.environ
TOKEN = Path(ENV["TOKEN_FILE"]).read_text()
TUNED = ENV.get("KOPF_TUNED") == "1"
WORKERS = 16
KIND = ("flights.com", "v1", "flighttickets")
DEADLINE = aiohttp.ClientTimeout(total=30)


@kopf.on.login()
def login(**_: Any) -> kopf.ConnectionInfo:
    return kopf.ConnectionInfo(
        server=ENV["API_URL"],
        ca_path=ENV["CA_FILE"],
        scheme="Bearer",
        token=TOKEN,
    )


async def book(uid: str, spec: Any, status: Any, airline: aiohttp.ClientSession) -> dict[str, Any]:
    trip = {"from": spec["from"], "to": spec["to"], "seats": spec["number"]}
    if status.get("bookingID"):
        call = airline.patch(f"/bookings/{status['bookingID']}", json=trip, timeout=DEADLINE)
    else:
        call = airline.post("/bookings", json={"reference": uid, **trip}, timeout=DEADLINE)
    async with call as answer:
        if answer.status == 409:
            async with airline.get("/bookings", params={"reference": uid}, timeout=DEADLINE) as found:
                return (await found.json())["items"][0]
        answer.raise_for_status()
        return await answer.json()


def told(held: dict[str, Any], generation: int) -> dict[str, Any]:
    plural = "" if held["seats"] == 1 else "s"
    return {
        "phase": "Booked",
        "bookingID": held["id"],
        "bookedSeats": held["seats"],
        "price": f"{held['price']['amount']} {held['price']['currency']}",
        "observedGeneration": generation,
        "conditions": [
            {
                "type": "Ready",
                "status": "True",
                "reason": "Booked",
                "message": f"Booking {held['id']} holds {held['seats']} seat{plural} "
                f"from {held['from']} to {held['to']}.",
                "lastTransitionTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
                "observedGeneration": generation,
            }
        ],
    }


@kopf.on.startup()
async def start(memo: kopf.Memo, settings: kopf.OperatorSettings, **_: Any) -> None:
    memo.airline = aiohttp.ClientSession(ENV["AIRLINE_URL"], connector=aiohttp.TCPConnector(limit=WORKERS))
    if not TUNED:
        return
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.watching.server_timeout = 600
    tls = ssl.create_default_context(cafile=ENV["CA_FILE"])
    memo.api = aiohttp.ClientSession(
        ENV["API_URL"],
        connector=aiohttp.TCPConnector(ssl=tls, limit=WORKERS),
        headers={"Authorization": f"Bearer {TOKEN}"},
    )
    # A worker of kopf's belongs to one object for a while: their number is no limit.
    memo.gate = asyncio.Semaphore(WORKERS)


@kopf.on.cleanup()
async def stop(memo: kopf.Memo, **_: Any) -> None:
    await memo.airline.close()
    if TUNED:
        await memo.api.close()


if TUNED:

    @kopf.on.event(*KIND)
    async def seen(event: Any, body: kopf.Body, memo: kopf.Memo, **_: Any) -> None:
        if event["type"] == "DELETED":
            return
        meta, status = body.metadata, body.status
        generation = meta["generation"]
        if status.get("phase") == "Booked" and status.get("observedGeneration") == generation:
            return
        async with memo.gate:
            held = await book(meta["uid"], body.spec, status, memo.airline)
            patch = {
                "metadata": {"resourceVersion": meta["resourceVersion"]},
                "status": told(held, generation),
            }
            path = f"/apis/flights.com/v1/namespaces/{meta['namespace']}/flighttickets/{meta['name']}/status"
            async with memo.api.patch(
                path, json=patch, headers={"Content-Type": "application/merge-patch+json"}, timeout=DEADLINE
            ) as answer:
                if answer.status != 409:
                    answer.raise_for_status()

else:

    @kopf.on.create(*KIND)
    @kopf.on.update(*KIND, field="spec")
    async def changed(
        body: kopf.Body, meta: Any, spec: Any, status: Any, patch: kopf.Patch, memo: kopf.Memo, **_: Any
    ) -> None:
        held = await book(meta["uid"], spec, status, memo.airline)
        patch.status.update(told(held, meta["generation"]))
