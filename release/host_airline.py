"""An airline for an operator on this host: the cluster's through a port-forward, or one on this host."""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from devcluster import folders
from devcluster.folders import CHECKOUT
from devcluster.kubectl import Kubectl, wait_until
from devcluster.progress import say
from devcluster.shell import ClusterError
from pilothouse.cli.children import start, stop
from release import airline

_START_PATIENCE = 15.0


class HostAirline:
    """The airline's process on this host.

    Attributes:
        environment: The operator's environment variables for it.
        what: A description for users.
    """

    def __init__(self, kubectl: Kubectl) -> None:
        state = folders.clusters() / folders.cluster_id()
        state.mkdir(parents=True, exist_ok=True)
        self._kubectl = kubectl
        self._log = state / "run-airline.log"
        self._database = state / "bookings.db"
        self._key_file = state / "airline-api-key"
        key = airline.api_key(kubectl)
        self._key_file.touch(mode=0o600)
        self._key_file.write_text(key or secrets.token_urlsafe(24))
        self._forwards = bool(key)
        self.what = (
            "the cluster's airline, through a port-forward"
            if self._forwards
            else f"an airline on this host with its bookings in {self._database}"
        )
        self._process = self._start(0)
        try:
            port = wait_until(self._port, _START_PATIENCE, lambda: f"{self.what} did not start")
        except BaseException:
            self.close()
            raise
        self._at = int(port)
        url = f"http://127.0.0.1:{self._at}"
        self.environment: Mapping[str, str] = {
            "AIRLINE_URL": url,
            "AIRLINE_API_KEY_FILE": str(self._key_file),
        }

    def keep(self) -> None:
        """Restarts the process on the same port if it has ended. A port-forward ends with its pod."""
        if self._process.poll() is not None:
            self._process = self._start(self._at)

    def close(self) -> None:
        """Stops the process."""
        stop(self._process)

    def _start(self, port: int) -> subprocess.Popen[bytes]:
        if self._forwards:
            service = (f"--namespace={airline.NAMESPACE}", "service/booking-api", f"{port or ''}:80")
            command: list[str | Path] = [self._kubectl.program, "port-forward", *service]
        else:
            where = [f"--address=127.0.0.1:{port}", f"--database={self._database}"]
            command = [sys.executable, "-m", "booking_api", *where, f"--api-key-file={self._key_file}"]
        environment = {
            **os.environ,
            "KUBECONFIG": str(self._kubectl.kubeconfig),
            "PYTHONPATH": str(CHECKOUT / "examples"),
        }
        with self._log.open("w") as sink:
            return start(command, environment, output=sink)

    def _port(self) -> str:
        if self._process.poll() is not None:
            raise ClusterError(f"{self.what} has ended:\n{self._log.read_text().strip()}")
        pattern = r"127\.0\.0\.1:(\d+)" if self._forwards else r"Listening on \S+:(\d+)"
        found = re.search(pattern, self._log.read_text())
        return found[1] if found else ""


@contextmanager
def host_airline(kubectl: Kubectl) -> Iterator[HostAirline | None]:
    """Runs an airline while the block runs. Yields None if AIRLINE_URL is set.

    Raises:
        ClusterError: The airline did not start.
    """
    if "AIRLINE_URL" in os.environ:
        yield None
        return
    found = HostAirline(kubectl)
    try:
        say(f"using {found.what}: {found.environment['AIRLINE_URL']}")
        yield found
    finally:
        found.close()
