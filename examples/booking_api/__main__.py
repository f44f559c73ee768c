"""The command python3 -m booking_api."""

import argparse
import asyncio
import logging
import os
import signal
import sqlite3
import sys
from pathlib import Path

from aiohttp import web

from booking_api.keys import ApiKeys
from booking_api.ledger import Ledger
from booking_api.web import BookingApi

log = logging.getLogger("booking_api")


def parse(arguments: list[str]) -> argparse.Namespace:
    """Reads the command line. Options that it does not set come from the environment."""
    parser = argparse.ArgumentParser(prog="booking_api", description="The airline: a small booking service.")
    add, env = parser.add_argument, os.environ.get
    add("--address", default=env("BOOKING_ADDRESS", "127.0.0.1:8080"), help="host:port to listen on")
    add("--database", type=Path, default=env("BOOKING_DATABASE", "bookings.db"), help="SQLite file")
    add(
        "--api-key-file",
        type=Path,
        default=env("BOOKING_API_KEY_FILE") or None,
        help="file with the accepted API keys, one per line, read again when it changes;"
        " to accept a single key, set BOOKING_API_KEY instead",
    )
    add(
        "--capacity",
        type=int,
        default=env("BOOKING_CAPACITY", "100000"),
        help="seats of a route whose capacity is not set",
    )
    options = parser.parse_args(arguments)
    host, colon, port = options.address.rpartition(":")
    if not (colon and port.isascii() and port.isdecimal() and int(port) <= 65535):
        parser.error(f"--address is {options.address!r}; use host:port, for example 0.0.0.0:8080")
    options.host, options.port = host.strip("[]"), int(port)
    if not (options.api_key_file or env("BOOKING_API_KEY")):
        parser.error("no API key is set; set BOOKING_API_KEY or --api-key-file")
    return options


async def serve(options: argparse.Namespace) -> None:
    """Serves until SIGTERM or SIGINT, then finishes the requests in flight."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    ledger = Ledger(options.database, capacity=options.capacity)
    await ledger.run(ledger.open)
    keys = ApiKeys(options.api_key_file, os.environ.get("BOOKING_API_KEY", ""))
    runner = web.AppRunner(BookingApi(ledger, keys).application(), access_log=None, shutdown_timeout=5.0)
    try:
        await runner.setup()
        await web.TCPSite(runner, options.host, options.port).start()
        host, port = runner.addresses[0][:2]
        log.info("Listening on %s:%s with database %s", host, port, options.database)
        await stop.wait()
    finally:
        await runner.cleanup()
        await ledger.close()


def main() -> int:
    """Runs the service and returns the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    options = parse(sys.argv[1:])
    try:
        asyncio.run(serve(options))
    except (OSError, sqlite3.Error) as error:
        log.error("Cannot serve on %s with database %s: %s", options.address, options.database, error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
