"""The images of etcd that the etcd operator is tested and demonstrated with."""

from __future__ import annotations

from collections.abc import Mapping

from devcluster import base_images
from devcluster.target import Target

#: Where the official images are. The local cluster maps this path to its own registry.
REPOSITORY = "quay.io/coreos/etcd"


def versions() -> tuple[str, ...]:
    """Returns the versions, such as 3.6.14, from the oldest to the newest."""
    return tuple(_version(name) for name in base_images.ETCD_IMAGES)


def official() -> Mapping[str, str]:
    """Returns the official image of every version, by tag."""
    return {version: f"{REPOSITORY}:v{version}" for version in versions()}


def ensure(target: Target) -> Mapping[str, str]:
    """Makes the image of every version available to a cluster.

    The local cluster gets images that are built from etcd's Go modules, which takes some minutes the first
    time. Another cluster pulls the official images itself, by their tags.

    Returns:
        Version -> image reference. For the local cluster, the reference contains the digest.

    Raises:
        ClusterError: A build failed, or the local registry does not respond.
    """
    if not target.cluster:
        return official()
    base_images.ensure(base_images.ETCD_IMAGES, target.cluster.registry)
    return {
        _version(name): f"{REPOSITORY}@{base_images.get(name).digest}" for name in base_images.ETCD_IMAGES
    }


def _version(name: str) -> str:
    [tag] = base_images.IMAGES[name].tags
    return tag.removeprefix("v")
