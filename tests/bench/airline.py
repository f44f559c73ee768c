"""The booking API of the benchmark: peers/airline, on this machine."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from devcluster import toolchain


@contextmanager
def running_airline() -> Iterator[str]:
    """The booking API; yields its URL."""
    with subprocess.Popen([toolchain.binary("bench-airline")], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def get(url: str) -> dict[str, Any]:
    """The answer of the booking API."""
    with urllib.request.urlopen(url, timeout=10) as answer:
        body: dict[str, Any] = json.loads(answer.read())
        return body


def post(url: str) -> None:
    """Tells the booking API to do something."""
    urllib.request.urlopen(urllib.request.Request(url, method="POST"), timeout=10).close()
