"""Runs operator-sdk's scorecard in the cluster: six tests of the bundle's metadata."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from devcluster import base_images, target, toolchain
from devcluster.shell import ClusterError
from release.documents import Document
from release.packages import Package

#: Seconds for all tests together. The tool's default of 30 is too short if images must be pulled.
_WAIT = 180
_NAMESPACE = "default"


def score(package: Package) -> Mapping[str, str]:
    """Runs the tests of a package's committed bundle, and returns the state of each test.

    Raises:
        ClusterError: There is no cluster, or a test failed. The text says why.
    """
    place = target.current()
    command: list[str | Path] = [
        *(toolchain.binary("operator-sdk"), "scorecard", package.bundle, "--output", "json"),
        *("--kubeconfig", place.kubeconfig, "--namespace", _NAMESPACE, "--wait-time", f"{_WAIT}s"),
        *("--pod-security", "restricted"),
    ]
    if place.cluster:
        base_images.ensure(("scorecard-test", "scorecard-untar", "scorecard-storage"), place.cluster.registry)
        tag = toolchain.TOOLS["operator-sdk"].version
        # The local cluster uses these images from its own registry. Other clusters pull the tool's defaults.
        for flag, name in (("untar", "scorecard-untar"), ("storage", "scorecard-storage")):
            command += [f"--{flag}-image", f"quay.io/operator-framework/{name}:{tag}"]
    results = _results(command)
    failed = [
        f"{r['name']}: {'; '.join(r.get('errors') or ['no reason given'])}"
        for r in results
        if r["state"] != "pass"
    ]
    if failed:
        raise ClusterError("the scorecard failed:\n  " + "\n  ".join(failed))
    return {result["name"]: result["state"] for result in results}


def _results(command: Sequence[str | Path]) -> list[Document]:
    """Runs the tool and returns its results. It exits with code 1 if a test fails."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=_WAIT + 30, check=False)
    try:
        report = json.loads(done.stdout)
    except ValueError:
        raise ClusterError(f"the scorecard did not run:\n{done.stderr[-2000:]}") from None
    return [result for item in report["items"] for result in item["status"]["results"]]
