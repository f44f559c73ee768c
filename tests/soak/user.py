"""A user who follows the pages of docs/howto/etcd: a shell, and the programs of Kubernetes and etcd."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from devcluster import toolchain
from devcluster.kubectl import wait_until
from tests.cluster.etcd import NAMESPACE, EtcdClusterOnNode

_PROGRAMS = ("etcd", "etcdctl", "etcdutl")
#: Seconds for one command.
_PATIENCE = 300.0


class User:
    """Runs the commands of a page in the namespace of a cluster.

    Args:
        cluster: The cluster.
        folder: Where the commands run. They may write files.
        words: What to write in place of words of the page, such as the names of members.
    """

    def __init__(self, cluster: EtcdClusterOnNode, folder: Path, words: Mapping[str, str]) -> None:
        self._cluster = cluster
        self._folder = folder
        self._words = words
        programs = folder / "programs"
        programs.mkdir()
        kubectl = cluster.etcd.kubectl
        (programs / "kubectl").symlink_to(kubectl.program)
        for name in _PROGRAMS:
            (programs / name).symlink_to(toolchain.binary(name))
        config = folder / "kubeconfig"
        config.write_bytes(kubectl.kubeconfig.read_bytes())
        config.chmod(0o600)
        self._environment = {
            **os.environ,
            "KUBECONFIG": str(config),
            "PATH": f"{programs}:{os.environ['PATH']}",
        }
        self.run(f"kubectl config set-context --current --namespace={NAMESPACE}")

    def run(self, command: str, **variables: str) -> str:
        """Runs a command of the page, and returns its output.

        Args:
            command: The command.
            variables: More environment variables.
        """
        done = self._shell(command, variables)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}\n{self._cluster.explain()}"
        return done.stdout

    def succeeds(self, command: str) -> bool:
        """Returns whether a command succeeds: a user tries again until a pod has started."""
        return self._shell(command, {}).returncode == 0

    def _shell(self, command: str, variables: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", "-ec", self.translated(command)],
            cwd=self._folder,
            env={**self._environment, **variables},
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=False,
        )

    @contextmanager
    def running(self, command: str, **variables: str) -> Iterator[None]:
        """Runs a command that ends with `&` while the block runs.

        Args:
            command: The command. A port-forward is ready when the block begins.
            variables: More environment variables.
        """
        words = self.translated(command).removesuffix("&").strip()
        log = self._folder / f"{len([*self._folder.iterdir()])}.log"
        with log.open("wb") as sink:
            process = subprocess.Popen(
                ["sh", "-ec", f"exec {words}"],
                cwd=self._folder,
                env={**self._environment, **variables},
                stdout=sink,
                stderr=sink,
            )
        try:
            if "port-forward" in words:
                wait_until(lambda: "Forwarding from" in log.read_text(), 30, log.read_text)
            yield
        finally:
            process.terminate()
            process.wait()

    def create(self, *manifests: dict[str, Any]) -> None:
        """Creates objects of the page."""
        for manifest in manifests:
            self._cluster.kubectl("create", "-f", "-", stdin=self.translated(json.dumps(manifest)))

    def translated(self, text: str) -> str:
        """Returns a text of the page with the words of this cluster."""
        for word, other in self._words.items():
            text = text.replace(word, other)
        return text
