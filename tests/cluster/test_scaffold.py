"""`inv new`, then the steps of the new project's README: image, manifests, sample, manual play."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from devcluster import target as targets
from devcluster.kubectl import Kubectl, wait_until
from devcluster.shell import ClusterError
from pilothouse.packaging.names import Names
from tests.cluster.commands import inv

pytestmark = pytest.mark.timeout(600)

NAMES = Names("scaffold-trial", "trial.pilothouse.dev", "Trial")
#: The namespace of the sample. It is not the operator's, so the permissions must cover other namespaces.
NAMESPACE = "scaffold-trial-objects"


@dataclass(frozen=True)
class Trial:
    """The folder of a new operator, and its author's steps."""

    kubectl: Kubectl
    folder: Path

    def inv(self, *words: str, timeout: float = 120) -> str:
        """Runs `inv WORDS`, which must succeed, and returns what it printed."""
        done = inv(self.kubectl, *words, timeout=timeout)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout

    def config(self, verb: str, room: str = "", *options: str) -> None:
        """Applies or deletes config/ or one of its folders."""
        self.kubectl(verb, "-k", str(self.folder / "config" / room), *options, timeout=120)

    def read(self, kind: str) -> dict[str, Any]:
        """Returns the sample, or the object that the operator created for it; empty if it does not exist."""
        found = self.kubectl("get", kind, "sample", "-n", NAMESPACE, "--ignore-not-found", "-o", "json")
        decoded: dict[str, Any] = json.loads(found or "{}")
        return decoded

    def until(self, condition: Callable[[], object], what: str, seconds: float = 60) -> None:
        """Waits for a condition. A failure shows the state of the operator and its pods."""
        wait_until(condition, seconds, lambda: f"{what}\n{self.scene()}\n")

    def scene(self) -> str:
        """Returns the state of the cluster and the operator's log, for failures."""
        own = ("-n", NAMES.name)
        views = (
            ("get", "pods", *own, "-o", "wide"),
            ("get", "events", *own, "--sort-by=.lastTimestamp"),
            ("logs", f"deployment/{NAMES.name}", *own, "--tail=30"),
            ("get", f"trials.{NAMES.group}", "-n", NAMESPACE, "-o", "yaml"),
        )
        parts = []
        for words in views:
            try:
                parts.append(self.kubectl(*words).rstrip())
            except ClusterError as error:
                parts.append(str(error))
        return "\n".join(parts)


@pytest.fixture
def trial(tmp_path: Path) -> Iterator[Trial]:
    """A new operator, created with a strict umask. Its objects are always deleted from the cluster."""
    kubectl = targets.ensure().kubectl
    folder = tmp_path / "trial"
    words = ("new", NAMES.name, f"--group={NAMES.group}", f"--kind={NAMES.kind}", f"--output={folder}")
    made = inv(kubectl, *words, umask=0o077)
    assert made.returncode == 0, made
    kubectl.apply(json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}))
    found = Trial(kubectl, folder)
    try:
        yield found
    finally:
        try:  # The objects first, as the README says, while the operator can clean up.
            kubectl("delete", "namespace", NAMESPACE, "--timeout=60s", timeout=70)
        finally:
            found.config("delete", "", "--ignore-not-found", "--timeout=90s")


def test_a_new_operator_is_built_and_runs_in_a_pod(trial: Trial) -> None:
    image = trial.inv("image.build", str(trial.folder), timeout=300).strip()
    manager = trial.folder / "config" / "manager" / "manager.yaml"
    manager.write_text(re.sub(r"image: .*", f"image: {image}", manager.read_text()))
    trial.inv("project", str(trial.folder))
    trial.config("apply")
    trial.until(lambda: runs(trial), "the operator's pod is ready", seconds=90)
    trial.config("apply", "samples", "-n", NAMESPACE)
    trial.until(lambda: ready(trial), "the sample is Ready")
    assert trial.read("configmap")["data"] == {"message": "Hello"}
    place = (f"trial/{NAMESPACE}/sample", "--project", str(trial.folder))
    assert "Nothing to change." in trial.inv("play", *place, "--check", "--diff")
    log = trial.kubectl("logs", f"deployment/{NAMES.name}", "-n", NAMES.name)
    assert "forbidden" not in log.lower(), log

    trial.config("delete", "samples", "-n", NAMESPACE, "--timeout=60s")
    trial.until(lambda: not trial.read("configmap"), "the ConfigMap is deleted with the sample")


def runs(trial: Trial) -> bool:
    """Returns whether the pod of the operator's Deployment is ready."""
    words = ("deployment", NAMES.name, "-n", NAMES.name, "-o", "jsonpath={.status.readyReplicas}")
    return trial.kubectl("get", *words) == "1"


def ready(trial: Trial) -> bool:
    """Returns whether the sample's condition Ready is True for its current generation."""
    found = trial.read(f"trials.{NAMES.group}")
    conditions = found.get("status", {}).get("conditions", ())
    current = found.get("status", {}).get("observedGeneration") == found["metadata"]["generation"]
    return current and any((each["type"], each["status"]) == ("Ready", "True") for each in conditions)
