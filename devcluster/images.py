"""Builds this project's images from Dockerfiles and pushes them. Images are named by digest."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from devcluster import buildah, dockerfiles
from devcluster import target as targets
from devcluster.cluster import Cluster
from devcluster.folders import given
from devcluster.oci import Registry
from devcluster.shell import ClusterError, CommandError, run, succeeds

_BUILD_TIMEOUT = 1800.0


def build(
    dockerfile: Path,
    context: Path,
    name: str,
    *,
    tag: str = "latest",
    build_args: Mapping[str, str] | None = None,
) -> str:
    """Builds an image and pushes it for the current target. For the local cluster, skips unchanged images.

    Args:
        dockerfile: Its FROM lines name public images, which a local cluster has in its registry.
        context: The folder that COPY is relative to.
        name: The last part of the image's name.
        tag: The tag to push, for manifests that a user applies manually.
        build_args: Values for the ARG lines.

    Returns:
        The reference by which the target pulls the image, such as quay.io/pilothouse/NAME@sha256:...

    Raises:
        ClusterError: There is no cluster, there is no registry to push to, or the build failed.
    """
    target = targets.current()
    arguments = dict(build_args or {})
    if target.cluster:
        digest = _build_locally(target.cluster, dockerfile, context, name, tag, arguments)
    else:
        words = [f"--build-arg={key}={value}" for key, value in arguments.items()]
        digest = _build_elsewhere(target, f"{name}:{tag}", dockerfile, context, words)
    return f"{target.images}/{name}@{digest}"


def load(cluster: Cluster, source: str) -> str:
    """Pushes an image from this machine to the local cluster's registry.

    Args:
        cluster: The running cluster.
        source: A tar file (Docker or OCI archive), or the name of an image in docker or podman.

    Returns:
        The reference of the image for pods of the cluster.

    Raises:
        ClusterError: There is no such image, or the push failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        archive = given(source)
        if not archive.is_file():
            archive = Path(folder) / "image.tar"
            _save(source, archive)
        return buildah.push_archive(cluster, archive)


def _build_locally(
    cluster: Cluster, dockerfile: Path, context: Path, name: str, tag: str, arguments: Mapping[str, str]
) -> str:
    repository = f"{targets.LOCAL_IMAGES.partition('/')[2]}/{name}"
    bases = [
        f"{base}={_digest_of(cluster.registry, base)}" for base in dockerfiles.bases(dockerfile, arguments)
    ]
    key = dockerfiles.content_key(dockerfile, context, arguments, bases)
    record = cluster.state / "builds" / f"{name}-{tag}.json"
    if record.exists():
        built = json.loads(record.read_text())
        if built["key"] == key and cluster.registry.digest(repository, tag) == built["digest"]:
            return str(built["digest"])
    digest = buildah.build(cluster, dockerfile, context, f"{repository}:{tag}", arguments)
    record.parent.mkdir(exist_ok=True)
    record.write_text(json.dumps({"key": key, "digest": digest}))
    return digest


def _digest_of(registry: Registry, reference: str) -> str:
    """Returns the digest in a reference, or the digest of that image in the local registry."""
    if "@" in reference:
        return reference.rpartition("@")[2]
    repository, _, tag = buildah.registry_path(reference).partition(":")
    digest = registry.digest(repository, tag or "latest")
    if not digest:
        raise ClusterError(
            f"The base image {reference} is not in the local registry. Push it there with "
            f"'./inv cluster.load-image'."
        )
    return digest


def _build_elsewhere(
    target: targets.Target, name: str, dockerfile: Path, context: Path, words: Sequence[str]
) -> str:
    """Builds an image with the user's engine, for the architecture of the cluster, and pushes it."""
    engine = _engine()
    reference = f"{target.require_registry()}/{name}"
    kind = "jsonpath={.items[0].status.nodeInfo.architecture}"
    words = [*words, f"--platform=linux/{target.kubectl('get', 'nodes', '-o', kind)}"]
    with tempfile.TemporaryDirectory() as folder:
        if engine != "docker":
            # Reuses unchanged layers, so that the digest stays the same. docker does this by default.
            words += ["--layers", *buildah.host_volumes(Path(folder))]
        run([engine, "build", *words, "-f", dockerfile, "-t", reference, context], timeout=_BUILD_TIMEOUT)
        try:
            return _push(engine, reference, Path(folder) / "digest")
        except CommandError as error:
            reason = str(error).splitlines()[-1].strip()
            raise ClusterError(
                f"Could not push {reference}. Start that registry, log in to it "
                f"({engine} login {reference.partition('/')[0]}), or correct REGISTRY. "
                f"The error was: {reason}"
            ) from error


def _push(engine: str, reference: str, digest_file: Path) -> str:
    if engine == "docker":
        # The output of the push is the only place with the digest for all registries and image stores.
        digest = re.search(r"sha256:[0-9a-f]{64}", run([engine, "push", reference], timeout=_BUILD_TIMEOUT))
        if not digest:
            raise CommandError(f"'docker push {reference}' printed no digest.")
        return digest[0]
    # As with docker, only a registry on this machine may be used without TLS.
    host = reference.partition("/")[0].partition(":")[0]
    plain = ["--tls-verify=false"] if re.fullmatch(r"(.+\.)?localhost|127(\.\d+){3}", host) else []
    run([engine, "push", *plain, "--digestfile", digest_file, reference], timeout=_BUILD_TIMEOUT)
    return digest_file.read_text().strip()


def _engine() -> str:
    """Returns the engine to build with. The order is how likely users are logged in to a registry with it."""
    if shutil.which("docker") and succeeds(["docker", "version"], timeout=20):  # Its daemon is running.
        return "docker"
    found = next((engine for engine in ("podman", "buildah") if shutil.which(engine)), "")
    if not found:
        raise ClusterError(
            "No program to build images was found. Start docker, or install podman or buildah."
        )
    return found


def _save(name: str, archive: Path) -> None:
    holders = [engine for engine in ("docker", "podman") if shutil.which(engine)]
    for engine in holders:
        try:
            run([engine, "save", "-o", archive, name], timeout=300)
        except ClusterError:
            continue
        return
    where = " or ".join(holders)
    reason = f"an image in {where}" if where else "an image: neither docker nor podman is installed"
    raise ClusterError(f"'{name}' is neither a file nor {reason}.")
