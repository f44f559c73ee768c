"""The airline in the cluster, through a port-forward: its audit log, its bookings and its faults."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

from devcluster.kubectl import Kubectl
from release import airline

_DEADLINE = 60.0


class ClusterAirline:
    """A client of the booking API's Service. If the airline's pod changes, the port-forward is restarted."""

    def __init__(self, kubectl: Kubectl) -> None:
        self._kubectl = kubectl
        self._key = airline.api_key(kubectl)
        self._forward: subprocess.Popen[str] | None = None
        self._url = ""

    def close(self) -> None:
        """Stops the port-forward."""
        if self._forward:
            self._forward.kill()
            self._forward.communicate()
            self._forward = None

    def audit(self, *references: str) -> Counter[str]:
        """Returns how often each action happened to the references: created, changed, cancelled, closed."""
        wanted = set(references)
        return Counter(entry["action"] for entry in self._entries() if entry["reference"] in wanted)

    def booking(self, reference: str) -> dict[str, Any] | None:
        """Returns the booking with a reference."""
        found = self.request("GET", f"/bookings?reference={reference}")["items"]
        return found[0] if found else None

    def hold(self, stage: str) -> None:
        """Holds every POST, before or after it is executed, until `release` is called."""
        self.request("PUT", "/faults", {"hold": {"stage": stage, "methods": ["POST"]}})

    def held(self) -> int:
        """Returns how many requests are held."""
        return int(self.request("GET", "/faults")["held"])

    def release(self) -> None:
        """Turns the faults off, and continues the held requests."""
        self.request("DELETE", "/faults")

    def scale(self, replicas: int) -> None:
        """Stops (0) or starts (1) the airline, and waits until it has stopped or started."""
        self.close()
        self._kubectl("scale", "deployment/booking-api", "-n", airline.NAMESPACE, f"--replicas={replicas}")
        if replicas:
            words = ["rollout", "status", "deployment/booking-api", "-n", airline.NAMESPACE]
        else:
            selector = "app.kubernetes.io/name=booking-api"
            words = ["wait", "pod", "-l", selector, "-n", airline.NAMESPACE, "--for=delete"]
        self._kubectl(*words, "--timeout=90s", timeout=100)

    def request(self, method: str, path: str, body: object = None) -> Any:
        """Sends a request. While the airline cannot be reached, retries until the deadline."""
        deadline = time.monotonic() + _DEADLINE
        while True:
            try:
                return self._request(method, path, body)
            except (urllib.error.URLError, OSError) as error:
                if isinstance(error, urllib.error.HTTPError) or time.monotonic() > deadline:
                    raise
                self.close()
                time.sleep(0.2)

    def _request(self, method: str, path: str, body: object) -> Any:
        if not self._forward:
            self._start()
        data = None if body is None else json.dumps(body).encode()
        headers = {"X-API-Key": self._key, "Content-Type": "application/json"}
        request = urllib.request.Request(self._url + path, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=10) as response:
            text = response.read()
        return json.loads(text) if text else None

    def _entries(self) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = []
        after = "0"
        while after:
            page = self.request("GET", f"/audit?limit=500&after={after}")
            entries += page["items"]
            after = page.get("next") or ""
        return entries

    def _start(self) -> None:
        command: list[str | Path] = [
            self._kubectl.program,
            "port-forward",
            "-n",
            airline.NAMESPACE,
            "service/booking-api",
            ":80",
        ]
        environment = {**os.environ, "KUBECONFIG": str(self._kubectl.kubeconfig)}
        self._forward = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert self._forward.stdout is not None
        line = self._forward.stdout.readline()
        match = re.search(r"127\.0\.0\.1:(\d+)", line)
        if not match:
            self.close()
            raise OSError(f"port-forward to the airline said: {line.strip()}")
        self._url = f"http://127.0.0.1:{match[1]}"
