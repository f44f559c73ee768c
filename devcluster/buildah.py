"""Builds images with buildah, without a container engine, and uses the local cluster's registry."""

from __future__ import annotations

import ast
import json
import os
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from devcluster.cluster import Cluster
from devcluster.shell import ClusterError, run, write_if_changed

_TIMEOUT = 1800.0
#: The annotation that names an image in an OCI layout (image-spec, annotations.md).
_OCI_NAME = "org.opencontainers.image.ref.name"
_CERTIFICATES = Path("/etc/ssl/certs")
#: Public registries whose images are pulled from the local registry instead.
_PUBLIC_REGISTRIES = ("docker.io", "quay.io", "registry.k8s.io", "ghcr.io")


def build(
    cluster: Cluster, dockerfile: Path, context: Path, tagged: str, arguments: Mapping[str, str]
) -> str:
    """Builds a Dockerfile, pushes the result as `tagged` (REPOSITORY:TAG), and returns its digest."""
    words = [f"--build-arg={key}={value}" for key, value in arguments.items()]
    words += host_volumes(cluster.state / "buildah")
    reference = f"{cluster.registry.address}/{tagged}"
    # With layers, a build reuses those of the last one, and only changed layers are pushed and pulled.
    _run(cluster, "build", "--layers", *words, "--file", str(dockerfile), "--tag", reference, str(context))
    return _push(cluster, reference)


def push_archive(cluster: Cluster, archive: Path) -> str:
    """Pushes a Docker or OCI archive and returns its name: the one in the archive, or that of its file."""
    transport, name = archived_name(archive)
    identity = _run(cluster, "pull", f"{transport}:{archive}").split()[-1]
    reference = f"{cluster.registry.address}/{registry_path(name)}"
    _run(cluster, "tag", identity, reference)
    _push(cluster, reference)
    return name


def archived_name(archive: Path) -> tuple[str, str]:
    """Returns (kind of archive for buildah, name of the image) for a tar file.

    Raises:
        ClusterError: The file is neither a Docker nor an OCI archive.
    """
    documents = _documents(archive)
    if "manifest.json" in documents:
        tags = documents["manifest.json"][0].get("RepoTags") or [f"{archive.stem}:latest"]
        return "docker-archive", str(tags[0])
    if "index.json" in documents:
        annotations = documents["index.json"]["manifests"][0].get("annotations", {})
        return "oci-archive", str(annotations.get(_OCI_NAME, f"{archive.stem}:latest"))
    raise ClusterError(
        f"{archive} is not a Docker or OCI archive of an image. Create one with 'docker save' or "
        f"'podman save'."
    )


def _documents(archive: Path) -> dict[str, Any]:
    """Returns the decoded index files of an image archive by name; empty for any other file."""
    found = {}
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                name = member.name.removeprefix("./")
                file = tar.extractfile(member) if name in ("manifest.json", "index.json") else None
                if file:
                    found[name] = json.load(file)
    except (tarfile.TarError, ValueError):
        return {}
    return found


def registry_path(name: str) -> str:
    """Returns the path in the local registry of the image `name`: containerd drops the registry's host."""
    first, _, rest = name.partition("/")
    if rest and ("." in first or ":" in first or first == "localhost"):
        return f"library/{rest}" if first == "docker.io" and "/" not in rest else rest
    return name if rest else f"library/{name}"


def _push(cluster: Cluster, reference: str) -> str:
    with tempfile.NamedTemporaryFile("r") as digest:
        _run(cluster, "push", "--quiet", "--tls-verify=false", "--digestfile", digest.name, reference)
        return digest.read().strip()


def _run(cluster: Cluster, command: str, *words: str) -> str:
    home = cluster.state / "buildah"
    home.mkdir(parents=True, exist_ok=True)
    registries = home / "registries.conf"
    registries.write_text(_registries(cluster.registry.address))
    environment = {
        **os.environ,
        "BUILDAH_ISOLATION": "chroot",  # Needs no container runtime.
        "STORAGE_DRIVER": "overlay",
        "CONTAINERS_REGISTRIES_CONF": str(registries),
    }
    storage = ["--root", str(home / "root"), "--runroot", str(home / "run")]
    # In a mount namespace of its own, so that an interrupted build leaves no mount on the host.
    program = ["unshare", "--mount", "buildah", *storage]
    return run([*program, command, *words], timeout=_TIMEOUT, env=environment)


def _registries(address: str) -> str:
    entries = [f'[[registry]]\nlocation = "{address}"\ninsecure = true\n']
    entries += [
        f'[[registry]]\nprefix = "{name}"\nlocation = "{address}"\ninsecure = true\n'
        for name in _PUBLIC_REGISTRIES
    ]
    return 'unqualified-search-registries = ["docker.io"]\n' + "\n".join(entries)


def host_volumes(folder: Path) -> list[str]:
    """Returns options that mount the host's certificates and pip settings in build steps, not in the image.

    Args:
        folder: Receives a file with the pip settings, which only its owner can read.
    """
    settings = pip_settings()
    file = folder / "pip.conf"
    folder.mkdir(parents=True, exist_ok=True)
    lines = "".join(f"{key} = {value}\n" for key, value in settings.items())
    write_if_changed(file, f"[global]\n{lines}", mode=0o600)
    volumes = [(path, path) for path in host_folders(settings)] + [(file, Path("/etc/pip.conf"))]
    return [f"--volume={source}:{target}:ro" for source, target in volumes]


def host_folders(settings: Mapping[str, str]) -> list[Path]:
    """Returns the folders of this host that pip may need with these settings: certificates and packages."""
    links = settings.get("find-links", "")
    return [path for path in (_CERTIFICATES, *([Path(links)] if links else [])) if path.is_dir()]


def pip_settings() -> dict[str, str]:
    """Returns the pip settings of this host from its files and environment: index, proxy, certificates."""
    settings = {}
    for line in run([sys.executable, "-m", "pip", "config", "list"], timeout=60).splitlines():
        key, _, value = line.partition("=")
        section, _, option = key.rpartition(".")
        if section in ("global", "install", ":env:"):
            settings[option] = str(ast.literal_eval(value)).replace("\n", " ")
    return settings
