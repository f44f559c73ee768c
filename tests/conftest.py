"""Fixtures of `pilothouse.testing` for all tests: virtual time, the model, the API server, a namespace."""

import logging
import threading
from collections.abc import Iterator

import pytest

pytest_plugins = ["pilothouse.testing.plugin"]

_SWITCHES = ("_srcfile", "logThreads", "logProcesses", "logMultiprocessing")
_LIBRARIES = ("asyncio", "aiohttp")


@pytest.fixture(autouse=True)
def logging_restored() -> Iterator[None]:
    """Undoes what `pilothouse.telemetry.configure` does to the process.

    Its handler writes to the standard error of one test, which is closed when that test is over.
    """
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    excepthook = threading.excepthook
    switches = {name: getattr(logging, name) for name in _SWITCHES}
    levels = {name: logging.getLogger(name).level for name in _LIBRARIES}
    yield
    threading.excepthook = excepthook
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, value in switches.items():
        setattr(logging, name, value)
    for name, value in levels.items():
        logging.getLogger(name).setLevel(value)
