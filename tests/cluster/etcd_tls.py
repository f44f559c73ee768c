"""The Secrets with certificates that docs/howto/etcd/tls.md asks for, for one EtcdCluster."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from etcd_operator.certificates import OPERATOR, PEER, SERVER, Layout
from tests.cluster.etcd import NAMESPACE, EtcdClusterOnNode
from tests.unit.kube.authority import Authority

#: The Secrets by their use.
PEERS, SERVERS, CLIENTS = "etcd-peer", "etcd-server", "etcd-client"
#: `spec.TLS` with all of them.
TLS: Mapping[str, Any] = {
    "static": {"member": {"peerSecret": PEERS, "serverSecret": SERVERS}, "operatorSecret": CLIENTS}
}
_BOTH = "serverAuth,clientAuth"


class Certificates:
    """An authority, and the contents of the Secrets of one EtcdCluster.

    Each method issues a new certificate with a new key.

    Attributes:
        authority: The authority.

    Args:
        folder: An empty folder for the files.
        cluster: The name of the EtcdCluster.
    """

    def __init__(self, folder: Path, cluster: str) -> None:
        folder.mkdir(exist_ok=True)
        self.authority = Authority(folder)
        self._parent = f"{cluster}.{NAMESPACE}.svc"
        self._service = f"{cluster}-client.{NAMESPACE}.svc"

    def peer(self) -> dict[str, str]:
        """Returns the contents of the Secret for the connections between members."""
        names = f"DNS:*.{self._parent},DNS:*.{self._parent}.cluster.local"
        return self._issue(PEER, "peer", names, _BOTH)

    def server(self) -> dict[str, str]:
        """Returns the contents of the Secret for the connections of clients to members."""
        names = f"DNS:*.{self._parent},DNS:{self._service},DNS:localhost"
        return self._issue(SERVER, "server", names, _BOTH)

    def client(self) -> dict[str, str]:
        """Returns the contents of the Secret for the operator as a client."""
        return self._issue(OPERATOR, "etcd-client", "", "clientAuth")

    def all(self) -> dict[str, dict[str, str]]:
        """Returns the contents of all Secrets by their names."""
        return {PEERS: self.peer(), SERVERS: self.server(), CLIENTS: self.client()}

    def _issue(self, layout: Layout, name: str, alternative_names: str, usage: str) -> dict[str, str]:
        certificate, key = self.authority.issue(name, alternative_names, usage=usage)
        files = (self.authority.ca_file, certificate, key)
        return {name: file.read_text() for name, file in zip(layout, files, strict=True)}


def put_secret(cluster: EtcdClusterOnNode, name: str, contents: Mapping[str, str]) -> None:
    """Creates a Secret in the namespace of a cluster, or replaces its contents."""
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name},
        "data": {key: base64.b64encode(text.encode()).decode() for key, text in contents.items()},
    }
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps(secret))


def write_files(folder: Path, contents: Mapping[str, str]) -> None:
    """Writes the contents of a Secret to files, for the programs of a user. Earlier files are removed."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, text in contents.items():
        (folder / name).write_text(text)
