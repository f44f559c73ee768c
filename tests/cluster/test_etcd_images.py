"""A pod of each image of etcd starts without root, a shell or an entrypoint, and serves reads and writes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pytest

from devcluster import etcd_images
from devcluster import target as targets
from devcluster.kubectl import Kubectl
from devcluster.shell import CommandError
from tests.cluster.etcd_pod import CLIENTS, pod

pytestmark = pytest.mark.timeout(900)
NAMESPACE = "pilothouse-etcd-images"


@dataclass
class Images:
    """The images of all versions, and a namespace for their pods."""

    kubectl: Kubectl
    references: Mapping[str, str]

    def run(self, name: str, image: str) -> None:
        """Creates a pod of one member and waits until it is ready."""
        self.kubectl("create", "-n", NAMESPACE, "-f", "-", stdin=json.dumps(pod(name, image)))
        words = ("wait", f"pod/{name}", "-n", NAMESPACE, "--for=condition=Ready", "--timeout=120s")
        try:
            self.kubectl(*words, timeout=130)
        except CommandError:
            pytest.fail(self.kubectl("describe", "pod", name, "-n", NAMESPACE))

    def execute(self, pod: str, *words: str) -> str:
        """Runs a program in the pod and returns what it printed."""
        return self.kubectl("exec", pod, "-n", NAMESPACE, "--", *words)


@pytest.fixture(scope="module")
def images() -> Iterator[Images]:
    """The images, in a namespace that accepts only restricted pods."""
    target = targets.ensure()
    target.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", timeout=120)
    target.kubectl("create", "namespace", NAMESPACE)
    level = "pod-security.kubernetes.io/enforce=restricted"
    target.kubectl("label", "namespace", NAMESPACE, level)
    try:
        yield Images(target.kubectl, etcd_images.ensure(target))
    finally:
        target.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


@pytest.mark.parametrize("version", etcd_images.versions())
def test_a_pod_of_each_version_serves_without_root(images: Images, version: str) -> None:
    name = f"etcd-{version.replace('.', '-')}"
    images.run(name, images.references[version])
    for program, option in (("etcd", "--version"), ("etcdctl", "version"), ("etcdutl", "version")):
        printed = images.execute(name, program, option)
        assert re.search(rf"^{program} [Vv]ersion: {re.escape(version)}$", printed, re.MULTILINE), printed
    etcdctl = ("etcdctl", f"--endpoints={CLIENTS}")
    assert images.execute(name, *etcdctl, "put", "key", "value") == "OK\n"
    assert images.execute(name, *etcdctl, "get", "key", "--print-value-only") == "value\n"
    [status] = json.loads(images.execute(name, *etcdctl, "endpoint", "status", "--write-out=json"))
    assert status["Status"]["version"] == version
    with pytest.raises(CommandError, match="executable file not found"):
        images.execute(name, "sh", "-c", "true")


def test_the_tag_of_a_version_names_the_same_image(images: Images) -> None:
    # The operator derives the tag from spec.repository and spec.version.
    digest = images.references["3.5.0"].partition("@")[2]
    if not digest:
        pytest.skip("another cluster pulls the official images by their tags")
    images.run("by-tag", f"{etcd_images.REPOSITORY}:v3.5.0")
    [status] = images.kubectl.read("pod", "by-tag", "-n", NAMESPACE)["status"]["containerStatuses"]
    assert digest in status["imageID"]
