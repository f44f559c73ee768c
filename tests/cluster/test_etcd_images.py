"""A pod of each image of etcd starts without root, a shell or an entrypoint, and serves reads and writes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pytest

from devcluster import etcd_images
from devcluster import target as targets
from devcluster.shell import CommandError
from release import images as pinned
from release.packages import find
from tests.cluster.etcd_pod import CLIENTS, Pods, pods

pytestmark = pytest.mark.timeout(900)


@dataclass(frozen=True)
class Images:
    """The images of all versions, and their pods."""

    references: Mapping[str, str]
    pods: Pods


@pytest.fixture(scope="module")
def images() -> Iterator[Images]:
    """The images, and a namespace for their pods."""
    target = targets.ensure()
    references = etcd_images.ensure(target)
    with pods(target.kubectl, "pilothouse-etcd-images") as found:
        yield Images(references, found)


@pytest.mark.parametrize("version", etcd_images.versions())
def test_a_pod_of_each_version_serves_without_root(images: Images, version: str) -> None:
    name = f"etcd-{version.replace('.', '-')}"
    images.pods.run(name, images.references[version])
    for program, option in (("etcd", "--version"), ("etcdctl", "version"), ("etcdutl", "version")):
        printed = images.pods.execute(name, program, option)
        assert re.search(rf"^{program} [Vv]ersion: {re.escape(version)}$", printed, re.MULTILINE), printed
    etcdctl = ("etcdctl", f"--endpoints={CLIENTS}")
    assert images.pods.execute(name, *etcdctl, "put", "key", "value") == "OK\n"
    assert images.pods.execute(name, *etcdctl, "get", "key", "--print-value-only") == "value\n"
    [status] = json.loads(images.pods.execute(name, *etcdctl, "endpoint", "status", "--write-out=json"))
    assert status["Status"]["version"] == version
    with pytest.raises(CommandError, match="executable file not found"):
        images.pods.execute(name, "sh", "-c", "true")


def test_a_pod_finds_the_same_image_by_its_tag(images: Images) -> None:
    # The operator derives the tag from spec.repository and spec.version.
    images.pods.run("by-tag", f"{etcd_images.REPOSITORY}:v3.5.0")
    cluster = targets.current().cluster
    if cluster:  # Another cluster has no other reference than the tag.
        digest = cluster.registry.digest(etcd_images.REPOSITORY.partition("/")[2], "v3.5.0")
        assert images.references["3.5.0"] == f"{etcd_images.REPOSITORY}@{digest}"


def test_the_file_of_pinned_images_is_true_about_local_builds(images: Images) -> None:
    if not targets.current().local:
        pytest.skip("only the local cluster builds images of etcd")
    config = find("pilothouse-etcd").config
    local = set(images.references.values()) & set(pinned.related(config).values())
    assert not (local and pinned.related_are_official(config)), local
