"""Images of this project: built from a Dockerfile, pushed, named by digest."""

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
    """Builds and pushes an image for the current target; the local one skips what is unchanged.

    Args:
        dockerfile: its FROM lines name public images, which a local cluster has in its registry.
        context: the folder that COPY is relative to.
        name: the last part of the image's name.
        tag: what it is pushed as, for manifests that people apply by hand.
        build_args: values for its ARG lines.

    Returns:
        The reference by which the target pulls it, such as quay.io/pilothouse/NAME@sha256:...

    Raises:
        ClusterError: there is no cluster, no registry to push to, or the build failed.
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
    """Pushes an image that lies on this machine into the local cluster's registry.

    Args:
        cluster: the running cluster.
        source: a tar file (docker or OCI archive), or the name of an image that docker or podman holds.

    Returns:
        The reference by which pods of the cluster name it.
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
    record = cluster.state / "builds" / f"{name}.json"
    if record.exists():
        built = json.loads(record.read_text())
        if built["key"] == key and cluster.registry.digest(repository, tag) == built["digest"]:
            return str(built["digest"])
    digest = buildah.build(cluster, dockerfile, context, f"{repository}:{tag}", arguments)
    record.parent.mkdir(exist_ok=True)
    record.write_text(json.dumps({"key": key, "digest": digest}))
    return digest


def _digest_of(registry: Registry, reference: str) -> str:
    """The digest in a reference, or that of a public image's namesake in the local registry."""
    if "@" in reference:
        return reference.rpartition("@")[2]
    repository, _, tag = buildah.registry_path(reference).partition(":")
    digest = registry.digest(repository, tag or "latest")
    if not digest:
        raise ClusterError(
            f"the local registry lacks the base image {reference}: './inv cluster.load-image' loads it"
        )
    return digest


def _build_elsewhere(
    target: targets.Target, name: str, dockerfile: Path, context: Path, words: Sequence[str]
) -> str:
    """Builds with an engine of the user's, for the kind of machine that the cluster has, and pushes."""
    engine = _engine()
    reference = f"{target.require_registry()}/{name}"
    kind = "jsonpath={.items[0].status.nodeInfo.architecture}"
    words = [*words, f"--platform=linux/{target.kubectl('get', 'nodes', '-o', kind)}"]
    with tempfile.TemporaryDirectory() as folder:
        if engine != "docker":
            # As docker does anyway: what is unchanged comes from the last build, with the same digest.
            words += ["--layers", *buildah.host_volumes(Path(folder))]
        run([engine, "build", *words, "-f", dockerfile, "-t", reference, context], timeout=_BUILD_TIMEOUT)
        try:
            return _push(engine, reference, Path(folder) / "digest")
        except CommandError as error:
            reason = str(error).splitlines()[-1].strip()
            raise ClusterError(
                f"{reference} could not be pushed: start that registry, or log in to it "
                f"({engine} login {reference.partition('/')[0]}), or correct REGISTRY ({reason})"
            ) from error


def _push(engine: str, reference: str, digest_file: Path) -> str:
    if engine == "docker":
        # Only the push's own words name the digest alike for all registries and stores of images.
        said = re.search(r"sha256:[0-9a-f]{64}", run([engine, "push", reference], timeout=_BUILD_TIMEOUT))
        if not said:
            raise CommandError(f"'docker push {reference}' named no digest")
        return said[0]
    # Only a registry on this machine may be without TLS, as with docker.
    host = reference.partition("/")[0].partition(":")[0]
    plain = ["--tls-verify=false"] if re.fullmatch(r"(.+\.)?localhost|127(\.\d+){3}", host) else []
    run([engine, "push", *plain, "--digestfile", digest_file, reference], timeout=_BUILD_TIMEOUT)
    return digest_file.read_text().strip()


def _engine() -> str:
    """The engine to build with, in the order in which people have a registry's login in it."""
    if shutil.which("docker") and succeeds(["docker", "version"], timeout=20):  # its daemon answers
        return "docker"
    found = next((engine for engine in ("podman", "buildah") if shutil.which(engine)), "")
    if not found:
        raise ClusterError("no program here builds images: start docker, or install podman or buildah")
    return found


def _save(name: str, archive: Path) -> None:
    holders = [engine for engine in ("docker", "podman") if shutil.which(engine)]
    for engine in holders:
        try:
            run([engine, "save", "-o", archive, name], timeout=300)
        except ClusterError:
            continue
        return
    where = " and ".join(holders) or "neither docker nor podman is here"
    raise ClusterError(f"'{name}' is no file, and no image was found by that name (asked: {where})")
