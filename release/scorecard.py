"""operator-sdk's scorecard, run in the cluster: six tests of how well the bundle tells what it is."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from devcluster import base_images, target, toolchain
from devcluster.shell import ClusterError
from release.documents import Document
from release.packages import Package

#: Seconds that all tests together may take; the tool's own 30 are too few for a first pull.
_WAIT = 180
_NAMESPACE = "default"


def score(package: Package) -> Mapping[str, str]:
    """Runs the tests of a package's committed bundle and returns the state of each: pass.

    Raises:
        ClusterError: no cluster, or what did not pass and why.
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
        # Elsewhere the tool's own defaults are pulled, by digest; these are what stands in for them here.
        for flag, name in (("untar", "scorecard-untar"), ("storage", "scorecard-storage")):
            command += [f"--{flag}-image", f"quay.io/operator-framework/{name}:{tag}"]
    results = _results(command)
    failed = [
        f"{r['name']}: {'; '.join(r.get('errors') or ['no reason given'])}"
        for r in results
        if r["state"] != "pass"
    ]
    if failed:
        raise ClusterError("the scorecard found:\n  " + "\n  ".join(failed))
    return {result["name"]: result["state"] for result in results}


def _results(command: Sequence[str | Path]) -> list[Document]:
    """Runs the tool, which says in its report what failed and ends with status 1 then."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=_WAIT + 30, check=False)
    try:
        report = json.loads(done.stdout)
    except ValueError:
        raise ClusterError(f"the scorecard did not run:\n{done.stderr[-2000:]}") from None
    return [result for item in report["items"] for result in item["status"]["results"]]
