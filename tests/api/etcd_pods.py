"""Runs the etcd container of a pod's manifest as a process, as the kubelet would."""

import json
import re
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

from devcluster import base_images, etcd_images, toolchain
from etcd_operator.blueprint import METRICS_PORT, PEER_PORT, Blueprint
from etcd_operator.etcd import CLIENT_PORT, Endpoint
from tests.api.etcd_members import free_ports

#: The binary of each version, by its suffix.
BINARIES = {
    version: tool.removeprefix("etcd")
    for version, tool in zip(etcd_images.versions(), base_images.ETCD_IMAGES, strict=True)
}
_REFERENCE = re.compile(r"metadata\.annotations\['(.+)'\]")
# Seconds. The longest that etcd waits for a quorum is 7 s.
_PROBE = 10.0


class PodNetwork:
    """The ports on the loopback address that stand for the ports of the pods of one cluster."""

    def __init__(self, cluster: Blueprint, names: tuple[str, ...]) -> None:
        self._cluster = cluster
        ports = iter(free_ports(3 * len(names)))
        self._ports = {
            (name, port): next(ports) for name in names for port in (CLIENT_PORT, PEER_PORT, METRICS_PORT)
        }

    def port(self, name: str, port: int) -> int:
        """Returns the port that stands for a port of a pod."""
        return self._ports[name, port]

    def translated(self, text: str, name: str) -> str:
        """Replaces addresses in an argument or variable of a pod."""
        for (pod, port), local in self._ports.items():
            text = text.replace(f"{self._cluster.host(pod)}:{port}", f"127.0.0.1:{local}")
            if pod == name:
                text = text.replace(f"0.0.0.0:{port}", f"127.0.0.1:{local}")
        return text


class PodProcess:
    """The container of a pod, with its volume.

    Args:
        folder: Contains the volume and the log, and the Secrets in `etcdtls`.
        network: The ports of the pods.
        manifest: The pod.
        version: The version of the binary.
    """

    def __init__(self, folder: Path, network: PodNetwork, manifest: dict[str, Any], version: str) -> None:
        self.manifest = manifest
        self.version = version
        self.name: str = manifest["metadata"]["name"]
        self.volume = folder / self.name
        self.volume.mkdir(exist_ok=True)
        self._log = folder / f"{self.name}.log"
        self.network = network
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def client_url(self) -> str:
        """The URL for etcdctl."""
        return f"http://127.0.0.1:{self.network.port(self.name, CLIENT_PORT)}"

    @property
    def endpoint(self) -> Endpoint:
        """The address for the operator's client."""
        return Endpoint("127.0.0.1", self.name, self.network.port(self.name, CLIENT_PORT))

    @property
    def log(self) -> str:
        """The log of the container that was started last."""
        return self._log.read_text()

    def start(self) -> None:
        """Starts the container."""
        [container] = self.manifest["spec"]["containers"]
        environment = {each["name"]: self._value(each) for each in container["env"]}
        flags = [self._expanded(each, environment) for each in container["args"]]
        with self._log.open("wb") as log:
            program = toolchain.binary(f"etcd{BINARIES[self.version]}")
            self._process = subprocess.Popen([program, *flags], env=environment, stdout=log, stderr=log)

    def stop(self) -> None:
        """Ends the container."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._process = None

    def exit_code(self) -> int:
        """Waits until the container exits by itself, and returns its exit code."""
        assert self._process is not None
        return self._process.wait(timeout=60)

    def runs(self) -> bool:
        """Whether the container runs."""
        return self._process is not None and self._process.poll() is None

    def probe(self, which: str) -> bool:
        """Whether a probe of the manifest succeeds."""
        [container] = self.manifest["spec"]["containers"]
        probe = container[which]
        kind, action = next((key, probe[key]) for key in ("tcpSocket", "httpGet") if key in probe)
        port = self.network.port(self.name, action["port"])
        # Any answer to a request shows that the port is open.
        path = action["path"] if kind == "httpGet" else "/"
        try:
            with urlopen(f"http://127.0.0.1:{port}{path}", timeout=_PROBE) as response:
                return kind == "tcpSocket" or response.status == 200
        except HTTPError:
            return kind == "tcpSocket"
        except (URLError, TimeoutError, ConnectionError):
            return False

    def etcdctl(self, *words: str) -> str:
        """Runs etcdctl of the same version against this member."""
        program = toolchain.binary(f"etcdctl{BINARIES[self.version]}")
        command: list[str | Path] = [program, f"--endpoints={self.client_url}", *words]
        done = subprocess.run(command, capture_output=True, timeout=60, check=False, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def is_cluster_version(self, version: str) -> bool:
        """Whether all members run a minor release, such as 3.6.0."""
        with urlopen(f"{self.client_url}/version", timeout=_PROBE) as response:
            found: str = json.load(response)["etcdcluster"]
        return found == version

    def serves(self) -> bool:
        """Whether the member serves a linearizable read."""
        with suppress(AssertionError):
            self.etcdctl("get", "key")
            return True
        return False

    def _value(self, variable: Mapping[str, Any]) -> str:
        if "value" in variable:
            return str(variable["value"])
        found = _REFERENCE.fullmatch(variable["valueFrom"]["fieldRef"]["fieldPath"])
        assert found
        annotations: Mapping[str, str] = self.manifest["metadata"]["annotations"]
        return self.network.translated(annotations.get(found[1], ""), self.name)

    def _expanded(self, text: str, environment: Mapping[str, str]) -> str:
        for name, value in environment.items():
            text = text.replace(f"$({name})", value)
        text = self.network.translated(text, self.name).replace("/var/etcd", str(self.volume))
        return text.replace("/etc/etcdtls", str(self.volume.parent / "etcdtls"))
