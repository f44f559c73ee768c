"""Logs on standard error, one line per record, each carrying the object that is being worked on.

The object is held in a context variable, so whatever runs inside `object_context` (tasks that it awaits,
threads started by `asyncio.to_thread`, libraries) says in its lines which object it was about, without being
told.
"""

import logging
import sys
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import msgspec

from pilothouse.telemetry import redaction
from pilothouse.telemetry.redaction import redacted

LogFormat = Literal["json", "console"]
"""How log lines are written: as JSON, or for people."""

# What logging itself puts on a record; anything beyond came through `extra=` and belongs in the line.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
# How much that is: a record that has no more brings nothing of its own.
_PLAIN = len(vars(logging.makeLogRecord({})))


class ObjectContext(NamedTuple):
    """The object that the current line of execution works on."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


_current: ContextVar[ObjectContext | None] = ContextVar("pilothouse_object", default=None)


class object_context:  # noqa: N801 - used as a function; a generator would cost two microseconds more
    """Name the object in every log line written inside the block, and know its secret values there.

    Args:
        kind: the object's kind, such as `FlightTicket`.
        namespace: its namespace, empty when it is cluster-scoped.
        name: its name.
    """

    __slots__ = ("_context", "_secrets", "_token")

    def __init__(self, kind: str, namespace: str, name: str) -> None:
        self._context = ObjectContext(kind, namespace, name)

    def __enter__(self) -> None:
        self._token = _current.set(self._context)
        # The names are public, even if a Secret has one of them for a value: as the name of a database.
        self._secrets = redaction.enter(*self._context)

    def __exit__(self, *_: object) -> None:
        redaction.leave(self._secrets)
        _current.reset(self._token)


def current_object() -> ObjectContext | None:
    """Return the object named by the innermost `object_context`, None outside of any."""
    return _current.get()


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time, level, logger, msg, the object, what `extra=` gave, the error."""

    _encode = msgspec.json.Encoder(enc_hook=str).encode

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line of JSON."""
        line: dict[str, Any] = {
            "time": f"{_second(int(record.created))}.{int(record.msecs):03d}+00:00",
            "level": record.levelname.lower(),
            "logger": record.name,
            "msg": redacted(record.getMessage()),
        }
        if (current := _current.get()) is not None:
            line |= current._asdict()
        line |= _extra(record)
        if record.exc_info:
            line["error"] = redacted(self.formatException(record.exc_info))
        return self._encode(line).decode()


class ConsoleFormatter(logging.Formatter):
    """For people: local time, level, the object, the message, what `extra=` gave."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line, followed by the traceback if there is one."""
        time = datetime.fromtimestamp(record.created, UTC).astimezone().strftime("%H:%M:%S")
        current = _current.get()
        about = f"{current}: " if current is not None else ""
        extra = "".join(f" {key}={value}" for key, value in _extra(record).items())
        line = f"{time} {record.levelname:<7} {about}{redacted(record.getMessage())}{extra}"
        if record.exc_info:
            line += "\n" + redacted(self.formatException(record.exc_info))
        return line


@lru_cache(maxsize=1)
def _second(timestamp: int) -> str:
    return datetime.fromtimestamp(timestamp, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _extra(record: logging.LogRecord) -> Mapping[str, Any]:
    if len(vars(record)) == _PLAIN:
        return {}
    return {key: _shown(value) for key, value in vars(record).items() if key not in _STANDARD}


def _shown(value: Any) -> Any:
    """Return a value as it is, or its text where that would show a secret."""
    text = value if isinstance(value, str) else str(value)
    shown = redacted(text)
    return value if shown == text else shown


def configure(format: LogFormat, level: str) -> None:  # noqa: A002 - the setting's own name
    """Send the logs of the whole process to standard error; calling it again replaces the earlier choice.

    Args:
        format: `json` for machines, `console` for people.
        level: `debug`, `info`, `warning` or `error`, in any case.

    Raises:
        ValueError: for another format or level; the message names the value and the choices.
    """
    if format not in ("json", "console"):
        raise ValueError(f"log format {format!r} is not known; choose json or console")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if format == "json" else ConsoleFormatter())
    set_level(level)
    logging.basicConfig(handlers=[handler], force=True)
    # No line shows where it was written, and by which thread: to find that out is half of what a line costs
    # (docs.python.org/3/howto/logging.html#optimization).
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    # Libraries say in debug what would bury an operator's own lines.
    for library in ("asyncio", "aiohttp"):
        logging.getLogger(library).setLevel(logging.WARNING)


def set_level(level: str) -> None:
    """Say from which level on the process logs; may be changed at any time.

    Args:
        level: `debug`, `info`, `warning` or `error`, in any case.

    Raises:
        ValueError: for another level; the message names it and the choices.
    """
    if level.lower() not in ("debug", "info", "warning", "error"):
        raise ValueError(f"log level {level!r} is not known; choose debug, info, warning or error")
    logging.getLogger().setLevel(level.upper())
