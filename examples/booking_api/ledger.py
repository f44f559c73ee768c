"""The durable store in SQLite. Every change is one transaction, which also writes the audit log."""

import asyncio
import secrets
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, ParamSpec, TypeVar

import msgspec
from msgspec import UNSET

from booking_api.model import (
    AuditEntry,
    AuditPage,
    Booking,
    BookingChange,
    BookingPage,
    Flight,
    NewBooking,
    ProblemError,
    price,
    timestamp,
)

# A record locator as airlines print it: six characters, without those that look alike (0 and O, 1 and I).
LOCATOR_ALPHABET = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"
LOCATOR_LENGTH = 6

SCHEMA = """
CREATE TABLE IF NOT EXISTS booking (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    reference TEXT NOT NULL UNIQUE,
    origin TEXT NOT NULL,
    destination TEXT NOT NULL,
    seats INTEGER NOT NULL,
    version INTEGER NOT NULL,
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS booking_by_route ON booking (origin, destination, seats);
CREATE TABLE IF NOT EXISTS closed_reference (reference TEXT PRIMARY KEY, closed_at TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS flight (
    origin TEXT NOT NULL,
    destination TEXT NOT NULL,
    capacity INTEGER NOT NULL,
    PRIMARY KEY (origin, destination)
);
CREATE TABLE IF NOT EXISTS idempotency (
    key TEXT PRIMARY KEY, fingerprint TEXT NOT NULL, status INTEGER NOT NULL, booking BLOB NOT NULL,
    created_at TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS audit (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    at TEXT NOT NULL,
    action TEXT NOT NULL,
    booking_id TEXT NOT NULL,
    reference TEXT NOT NULL,
    origin TEXT NOT NULL,
    destination TEXT NOT NULL,
    seats INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS audit_by_booking ON audit (booking_id);
CREATE INDEX IF NOT EXISTS idempotency_by_age ON idempotency (created_at);
"""

P = ParamSpec("P")
R = TypeVar("R")


class Answer(NamedTuple):
    """The answer to a change: the HTTP status and the booking."""

    status: int
    booking: Booking


class Idempotency(NamedTuple):
    """The client's Idempotency-Key and a digest of its request."""

    key: str
    fingerprint: str


class Ledger:
    """The store of all bookings, with its own thread.

    SQLite runs in WAL mode with synchronous=FULL, so that every answered change survives a power failure. Use
    `run` from the event loop. The other methods block and must run on the ledger's thread.

    Args:
        path: The database file. It is created if it does not exist.
        capacity: The number of seats of a route whose capacity was never set.

    Raises:
        sqlite3.Error: The file is not a database or cannot be written. Raised by `open`.
    """

    def __init__(self, path: Path, *, capacity: int) -> None:
        self.path = path
        self.capacity = capacity
        self.thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ledger")
        self.connection: sqlite3.Connection

    async def run(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Runs a blocking function on the ledger's thread."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.thread, lambda: work(*args, **kwargs))

    def open(self) -> None:
        """Opens the database and creates missing tables."""
        self.connection = sqlite3.connect(self.path, isolation_level=None)
        self.connection.row_factory = sqlite3.Row
        self.connection.execute("PRAGMA journal_mode = WAL")
        self.connection.execute("PRAGMA synchronous = FULL")
        self.connection.executescript(SCHEMA)

    async def close(self) -> None:
        """Closes the database and stops the thread, after the function that it is running."""
        await self.run(self.connection.close)
        self.thread.shutdown()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Runs the block in a transaction: commits at its end, rolls back if it raises an exception."""
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self.connection.execute("ROLLBACK")
            raise
        self.connection.execute("COMMIT")

    def once(self, idempotency: Idempotency | None, change: Callable[[], Answer]) -> Answer:
        """Makes a change, or returns the answer of an earlier request with the same key.

        Only successful requests are recorded. A rejected request can be retried with the same key.
        """
        with self.transaction():
            if idempotency and (earlier := self._replay(idempotency)):
                return earlier
            answer = change()
            if idempotency:
                self.connection.execute(
                    "INSERT INTO idempotency VALUES (?, ?, ?, ?, ?)",
                    (*idempotency, answer.status, msgspec.json.encode(answer.booking), timestamp()),
                )
            return answer

    def _replay(self, idempotency: Idempotency) -> Answer | None:
        self.connection.execute(
            "DELETE FROM idempotency WHERE created_at < strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-1 day')"
        )
        row = self.connection.execute(
            "SELECT * FROM idempotency WHERE key = ?", (idempotency.key,)
        ).fetchone()
        if row is None:
            return None
        if row["fingerprint"] != idempotency.fingerprint:
            detail = f"The Idempotency-Key {idempotency.key!r} was used for another request; send a new key."
            raise ProblemError(422, "idempotency_key_reused", detail)
        return Answer(row["status"], msgspec.json.decode(row["booking"], type=Booking))

    def create(self, new: NewBooking) -> Answer:
        """Books seats. Must run in a transaction."""
        existing = self.by_reference(new.reference)
        if existing:
            detail = f"Booking {existing.id} already has the reference {new.reference!r}."
            raise ProblemError(409, "reference_exists", detail, booking_id=existing.id)
        closed = "SELECT 1 FROM closed_reference WHERE reference = ?"
        if self.connection.execute(closed, (new.reference,)).fetchone():
            detail = (
                f"The reference {new.reference!r} is closed, because its booking was cancelled. "
                "Use another reference."
            )
            raise ProblemError(409, "reference_closed", detail)
        self._require_seats(new.from_, new.to, new.seats)
        now = timestamp()
        row = (self._free_locator(), new.reference, new.from_, new.to, new.seats, 1, now, now)
        self.connection.execute(
            "INSERT INTO booking (id, reference, origin, destination, seats, version, created_at, updated_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            row,
        )
        booking = self.get(row[0])
        self._audit("created", booking)
        return Answer(201, booking)

    def change(self, booking_id: str, change: BookingChange, *, version: int | None) -> Answer:
        """Changes seats or route, if `version` is None or the current version. Must run in a transaction."""
        old = self.get(booking_id)
        if version is not None and version != old.version:
            detail = f"Booking {old.id} is at version {old.version}, not {version}; read it again."
            raise ProblemError(412, "version_changed", detail, booking_id=old.id)
        origin = old.from_ if change.from_ is UNSET else change.from_
        destination = old.to if change.to is UNSET else change.to
        seats = old.seats if change.seats is UNSET else change.seats
        self._require_seats(origin, destination, seats, besides=old)
        self.connection.execute(
            "UPDATE booking SET origin = ?, destination = ?, seats = ?, version = version + 1, updated_at = ?"
            " WHERE id = ?",
            (origin, destination, seats, timestamp(), booking_id),
        )
        booking = self.get(booking_id)
        self._audit("changed", booking)
        return Answer(200, booking)

    def cancel(self, booking_id: str) -> Answer:
        """Cancels a booking, and frees its seats and its reference. Must run in a transaction."""
        booking = self.get(booking_id)
        self.connection.execute("DELETE FROM booking WHERE id = ?", (booking_id,))
        self._audit("cancelled", booking)
        return Answer(200, booking)

    def close_reference(self, reference: str) -> Booking | None:
        """Cancels the booking with this reference, if there is one, and closes the reference."""
        with self.transaction():
            booking = self.by_reference(reference)
            if booking:
                self.cancel(booking.id)
            added = self.connection.execute(
                "INSERT OR IGNORE INTO closed_reference VALUES (?, ?)", (reference, timestamp())
            )
            if added.rowcount:
                self._record("closed", "", reference, "", "", 0)
            return booking

    def get(self, booking_id: str) -> Booking:
        """Returns the booking with this id.

        Raises:
            ProblemError: There is no such booking (404).
        """
        row = self.connection.execute("SELECT * FROM booking WHERE id = ?", (booking_id,)).fetchone()
        if row is None:
            raise ProblemError(404, "not_found", f"There is no booking {booking_id!r}.")
        return to_booking(row)

    def by_reference(self, reference: str) -> Booking | None:
        """Returns the booking with this reference, or None if there is none."""
        row = self.connection.execute("SELECT * FROM booking WHERE reference = ?", (reference,)).fetchone()
        return to_booking(row) if row else None

    def page(self, *, after: int, limit: int) -> BookingPage:
        """Returns at most `limit` bookings after a sequence number, oldest first."""
        query = "SELECT * FROM booking WHERE sequence > ? ORDER BY sequence LIMIT ?"
        rows = self.connection.execute(query, (after, limit + 1)).fetchall()
        last = str(rows[limit - 1]["sequence"]) if len(rows) > limit else None
        return BookingPage([to_booking(row) for row in rows[:limit]], last)

    def audit(self, *, after: int, limit: int) -> AuditPage:
        """Returns at most `limit` audit entries after a sequence number, oldest first."""
        query = "SELECT * FROM audit WHERE sequence > ? ORDER BY sequence LIMIT ?"
        rows = self.connection.execute(query, (after, limit + 1)).fetchall()
        entries = [AuditEntry(*row) for row in rows[:limit]]
        return AuditPage(entries, str(entries[-1].sequence) if len(rows) > limit else None)

    def totals(self) -> tuple[int, int]:
        """Returns the number of bookings and the number of booked seats."""
        row = self.connection.execute("SELECT count(*), coalesce(sum(seats), 0) FROM booking").fetchone()
        return row[0], row[1]

    def set_capacity(self, origin: str, destination: str, capacity: int) -> Flight:
        """Sets the number of seats of a route. Existing bookings remain, even if they exceed it."""
        self.connection.execute(
            "INSERT OR REPLACE INTO flight VALUES (?, ?, ?)", (origin, destination, capacity)
        )
        return self.flight(origin, destination)

    def flight(self, origin: str, destination: str) -> Flight:
        """Returns the route with its capacity and its booked seats."""
        set_ = self.connection.execute(
            "SELECT capacity FROM flight WHERE origin = ? AND destination = ?", (origin, destination)
        ).fetchone()
        booked = self.connection.execute(
            "SELECT coalesce(sum(seats), 0) FROM booking WHERE origin = ? AND destination = ?",
            (origin, destination),
        ).fetchone()[0]
        return Flight(
            from_=origin,
            to=destination,
            capacity=set_[0] if set_ else self.capacity,
            booked=booked,
            fare=price(origin, destination, 1),
        )

    def _require_seats(
        self, origin: str, destination: str, seats: int, *, besides: Booking | None = None
    ) -> None:
        if origin == destination:
            raise ProblemError(
                422, "invalid_route", f"There is no flight from {origin} to {destination} itself."
            )
        flight = self.flight(origin, destination)
        own = besides.seats if besides and (besides.from_, besides.to) == (origin, destination) else 0
        free = max(flight.capacity - flight.booked + own, 0)
        if seats > max(free, own):  # an overbooked flight accepts fewer seats
            detail = (
                f"The flight from {origin} to {destination} is full: {seats} seats requested, {free} free."
            )
            raise ProblemError(409, "flight_full", detail)

    def _free_locator(self) -> str:
        while True:
            locator = "".join(secrets.choice(LOCATOR_ALPHABET) for _ in range(LOCATOR_LENGTH))
            taken = "SELECT 1 FROM audit WHERE booking_id = ? LIMIT 1"
            if not self.connection.execute(taken, (locator,)).fetchone():
                return locator

    def _audit(self, action: str, booking: Booking) -> None:
        self._record(action, booking.id, booking.reference, booking.from_, booking.to, booking.seats)

    def _record(
        self, action: str, booking_id: str, reference: str, origin: str, destination: str, seats: int
    ) -> None:
        self.connection.execute(
            "INSERT INTO audit (at, action, booking_id, reference, origin, destination, seats)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (timestamp(), action, booking_id, reference, origin, destination, seats),
        )


def to_booking(row: sqlite3.Row) -> Booking:
    """Converts a row of the booking table to a booking of the API."""
    return Booking(
        id=row["id"],
        reference=row["reference"],
        from_=row["origin"],
        to=row["destination"],
        seats=row["seats"],
        price=price(row["origin"], row["destination"], row["seats"]),
        version=row["version"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )
