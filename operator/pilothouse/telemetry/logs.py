"""Logs on standard error: one line per record, with the object that is being reconciled.

The object is held in a context variable. So every line that is logged inside `object_context` names the
object, also from tasks that the code awaits, from threads started by `asyncio.to_thread`, and from libraries.
"""

import logging
import sys
import threading
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import msgspec

from pilothouse.telemetry import redaction
from pilothouse.telemetry.redaction import redacted

log = logging.getLogger(__name__)

LogFormat = Literal["json", "console"]
"""The format of log lines: JSON, or text for people."""

# The attributes that logging itself sets on a record. All others came through `extra=` and are logged.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
# The number of attributes of a record without `extra=`.
_PLAIN = len(vars(logging.makeLogRecord({})))


class ObjectContext(NamedTuple):
    """The object that the current task or thread is working on."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


_current: ContextVar[ObjectContext | None] = ContextVar("pilothouse_object", default=None)


class object_context:  # noqa: N801 - used as a function; a generator would cost two microseconds more
    """Adds the object to every log line inside the block, and hides the secret values found there.

    Args:
        kind: The object's kind, such as `FlightTicket`.
        namespace: The object's namespace. Empty for a cluster-scoped object.
        name: The object's name.
    """

    __slots__ = ("_context", "_secrets", "_token")

    def __init__(self, kind: str, namespace: str, name: str) -> None:
        self._context = ObjectContext(kind, namespace, name)

    def __enter__(self) -> None:
        self._token = _current.set(self._context)
        # These words are not hidden, even if a Secret contains one of them, for example as a database name.
        self._secrets = redaction.enter(*self._context)

    def __exit__(self, *_: object) -> None:
        redaction.leave(self._secrets)
        _current.reset(self._token)


def current_object() -> ObjectContext | None:
    """Returns the object of the innermost `object_context`, or None outside of one."""
    return _current.get()


class JsonFormatter(logging.Formatter):
    """Writes one JSON object per line: time, level, logger, msg, the object, values from `extra=`, error."""

    _encode = msgspec.json.Encoder(enc_hook=str).encode

    def format(self, record: logging.LogRecord) -> str:
        """Returns the record as one line of JSON."""
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
    """Writes text for people: local time, level, the object, the message, values from `extra=`."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns the record as one line, followed by the traceback if there is one."""
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
    """Returns a value unchanged, or as redacted text if it contains a secret."""
    text = value if isinstance(value, str) else str(value)
    shown = redacted(text)
    return value if shown == text else shown


def configure(format: LogFormat, level: str) -> None:  # noqa: A002 - the setting's own name
    """Sends the logs of the whole process to standard error. A later call replaces an earlier one.

    Args:
        format: `json` for machines, `console` for people.
        level: `debug`, `info`, `warning` or `error`, in upper or lower case.

    Raises:
        ValueError: The format or level is unknown. The message names the value and the choices.
    """
    if format not in ("json", "console"):
        raise ValueError(f"unknown log format {format!r}; use json or console")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if format == "json" else ConsoleFormatter())
    set_level(level)
    # Python would print the traceback to standard error, with the secrets that it quotes.
    threading.excepthook = _log_thread_error
    logging.basicConfig(handlers=[handler], force=True)
    # Log lines contain neither source location nor thread. Collecting these takes half of the time of a line
    # (docs.python.org/3/howto/logging.html#optimization).
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    # The debug lines of these libraries would bury the operator's own lines.
    for library in ("asyncio", "aiohttp"):
        logging.getLogger(library).setLevel(logging.WARNING)


def _log_thread_error(error: threading.ExceptHookArgs) -> None:
    """Logs an uncaught error of a thread: the process's `threading.excepthook`."""
    if error.exc_value is None or isinstance(error.exc_value, SystemExit):
        return
    name = error.thread.name if error.thread is not None else "unknown"
    log.error("Uncaught error in the thread %s", name, exc_info=error.exc_value)


def set_level(level: str) -> None:
    """Sets the lowest level that the process logs. It can be changed at any time.

    Args:
        level: `debug`, `info`, `warning` or `error`, in upper or lower case.

    Raises:
        ValueError: The level is unknown. The message names the value and the choices.
    """
    if level.lower() not in ("debug", "info", "warning", "error"):
        raise ValueError(f"unknown log level {level!r}; use debug, info, warning or error")
    logging.getLogger().setLevel(level.upper())
