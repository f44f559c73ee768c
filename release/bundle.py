"""An operator's OLM bundle: the output of kustomize and operator-sdk, with what operator-sdk omits added."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from devcluster import toolchain
from devcluster.shell import ClusterError, run
from release import images
from release.documents import Document, dump, load, tree
from release.packages import CHANNEL, IMAGE, Package

#: Seconds per command. Each takes less than one; building operator-sdk is not counted.
_TIMEOUT = 60.0
_LAYOUT = "pilothouse.dev/v1"


def files(package: Package) -> dict[Path, str]:
    """Returns the files of the committed bundle and their expected text. The output is reproducible.

    Raises:
        ClusterError: A tool failed. The error contains its output.
    """
    stream = run([toolchain.binary("kubectl"), "kustomize", package.config / "manifests"], timeout=_TIMEOUT)
    with tempfile.TemporaryDirectory() as folder:
        run(
            [
                *(toolchain.binary("operator-sdk"), "generate", "bundle", "--quiet", "--overwrite"),
                *("--package", package.name, "--version", package.version),
                *("--channels", CHANNEL, "--default-channel", CHANNEL),
            ],
            timeout=_TIMEOUT,
            stdin=stream,
            cwd=Path(folder),
        )
        generated = tree(Path(folder) / "bundle")
    return {
        package.bundle / path: dump(_finished(package, yaml.safe_load(text)))
        for path, text in generated.items()
    }


def validate(folder: Path) -> None:
    """Validates a bundle with operator-sdk and its operatorframework suite.

    Raises:
        ClusterError: There are errors or warnings. The text lists them, one per line.
    """
    output = run(
        [
            *(toolchain.binary("operator-sdk"), "bundle", "validate", folder),
            *("--output", "json-alpha1", "--select-optional", "suite=operatorframework"),
        ],
        timeout=_TIMEOUT,
    )
    report = json.loads(output)
    findings = [f"{entry['type']}: {entry['message']}" for entry in report.get("outputs") or ()]
    if findings or not report["passed"]:
        raise ClusterError(f"the bundle {folder} is not valid:\n  " + "\n  ".join(findings))


def substitute(bundle: Path, image: str, output: Path, related: Mapping[str, str] | None = None) -> None:
    """Writes a copy of a committed bundle with other images. Needs no tools.

    Args:
        bundle: The folder of the committed bundle.
        image: The reference that the cluster pulls, with a digest.
        output: The folder of the copy. Existing files are replaced.
        related: The new reference for each released image that the operator runs. Default: those stay.

    Raises:
        ClusterError: The image has no digest.
    """
    images.require_digest(image)
    shutil.rmtree(output, ignore_errors=True)
    images.substitute(bundle, {images.released(IMAGE): image, **(related or {})}, output)


def _finished(package: Package, document: Document) -> Document:
    """Returns a document of operator-sdk without what differs between runs, and with what it omits."""
    if document.get("kind") == "ClusterServiceVersion":
        _finish_csv(package, document)
    if document.get("kind") == "Configuration":
        _finish_scorecard(document)
    if "annotations" in document:
        prefix = "operators.operatorframework.io.metrics"
        document["annotations"][f"{prefix}.builder"] = _builder()
        document["annotations"][f"{prefix}.project_layout"] = _LAYOUT
    # Go writes this field although the pointer is nil.
    document.get("metadata", {}).pop("creationTimestamp", None)
    return document


def _finish_csv(package: Package, csv: Document) -> None:
    base = load(package.csv_base)
    spec = csv["spec"]
    containers = _containers(spec)
    annotations = csv["metadata"]["annotations"]
    # operator-sdk sets the time of its run. The base has the date of the release.
    annotations["createdAt"] = base["metadata"]["annotations"]["createdAt"]
    annotations["containerImage"] = containers[0]["image"]
    annotations["operators.operatorframework.io/builder"] = _builder()
    annotations["operators.operatorframework.io/project_layout"] = _LAYOUT
    csv["metadata"]["annotations"] = dict(sorted(annotations.items()))
    # operator-sdk lists only the images of RELATED_IMAGE_ variables. Mirrors need all images of a pod.
    related = {entry["image"]: entry["name"] for entry in spec.get("relatedImages") or ()}
    for container in containers:
        related.setdefault(container["image"], container["name"])
    spec["relatedImages"] = [{"name": name, "image": image} for image, name in sorted(related.items())]
    if not spec.get("apiservicedefinitions"):
        spec.pop("apiservicedefinitions", None)


def _finish_scorecard(configuration: Document) -> None:
    """Removes the empty storage settings that operator-sdk writes everywhere."""
    empty: Document = {"spec": {"mountPath": {}}}
    for holder in (configuration, *(test for stage in configuration["stages"] for test in stage["tests"])):
        if holder.get("storage") == empty:
            del holder["storage"]


def _containers(spec: Document) -> list[Document]:
    found: list[Any] = []
    for deployment in spec["install"]["spec"]["deployments"]:
        pod = deployment["spec"]["template"]["spec"]
        found += [*pod["containers"], *pod.get("initContainers", ())]
    return found


def _builder() -> str:
    return f"operator-sdk-{toolchain.TOOLS['operator-sdk'].version}"
