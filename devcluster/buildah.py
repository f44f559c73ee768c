"""Builds images with buildah, without a container engine, against the local cluster's registry."""

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
#: Names under which public images are asked for, all served by the local registry.
_PUBLIC_REGISTRIES = ("docker.io", "quay.io", "registry.k8s.io", "ghcr.io")


def build(
    cluster: Cluster, dockerfile: Path, context: Path, tagged: str, arguments: Mapping[str, str]
) -> str:
    """Builds a Dockerfile, pushes the result as `tagged` (REPOSITORY:TAG), and returns its digest."""
    words = [f"--build-arg={key}={value}" for key, value in arguments.items()]
    words += host_volumes(cluster.state / "buildah")
    reference = f"{cluster.registry.address}/{tagged}"
    # With layers, a build goes on from the last one, and pushes and pulls are of what changed.
    _run(cluster, "build", "--layers", *words, "--file", str(dockerfile), "--tag", reference, str(context))
    return _push(cluster, reference)


def push_archive(cluster: Cluster, archive: Path) -> str:
    """Pushes a docker or OCI archive under the name that it carries (else its file's), which it returns."""
    transport, name = archived_name(archive)
    identity = _run(cluster, "pull", f"{transport}:{archive}").split()[-1]
    reference = f"{cluster.registry.address}/{registry_path(name)}"
    _run(cluster, "tag", identity, reference)
    _push(cluster, reference)
    return name


def archived_name(archive: Path) -> tuple[str, str]:
    """(kind of archive for buildah, name of the image) of a tar file.

    Raises:
        ClusterError: it is neither kind.
    """
    documents = _documents(archive)
    if "manifest.json" in documents:
        tags = documents["manifest.json"][0].get("RepoTags") or [f"{archive.stem}:latest"]
        return "docker-archive", str(tags[0])
    if "index.json" in documents:
        annotations = documents["index.json"]["manifests"][0].get("annotations", {})
        return "oci-archive", str(annotations.get(_OCI_NAME, f"{archive.stem}:latest"))
    raise ClusterError(f"{archive} is no image: 'docker save' or 'podman save' makes a file that is one")


def _documents(archive: Path) -> dict[str, Any]:
    """What says which image an archive holds, by file name; nothing when it is no archive of an image."""
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
    """Where the local registry has what pods call `name`: containerd leaves the registry's host out there."""
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
        "BUILDAH_ISOLATION": "chroot",  # needs no container runtime
        "STORAGE_DRIVER": "overlay",
        "CONTAINERS_REGISTRIES_CONF": str(registries),
    }
    storage = ["--root", str(home / "root"), "--runroot", str(home / "run")]
    # In a mount namespace of its own: an interrupted build leaves no mount on the host.
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
    """Options by which build steps see certificates and pip's settings of the host; the image keeps neither.

    Args:
        folder: where a file with pip's settings is written, which only its owner can read.
    """
    settings = pip_settings()
    file = folder / "pip.conf"
    folder.mkdir(parents=True, exist_ok=True)
    lines = "".join(f"{key} = {value}\n" for key, value in settings.items())
    write_if_changed(file, f"[global]\n{lines}", mode=0o600)
    volumes = [(path, path) for path in host_folders(settings)] + [(file, Path("/etc/pip.conf"))]
    return [f"--volume={source}:{target}:ro" for source, target in volumes]


def host_folders(settings: Mapping[str, str]) -> list[Path]:
    """The folders of this host that pip may need under these settings: certificates, and one of packages."""
    links = settings.get("find-links", "")
    return [path for path in (_CERTIFICATES, *([Path(links)] if links else [])) if path.is_dir()]


def pip_settings() -> dict[str, str]:
    """What pip is set to on this host, from its files and environment alike: index, proxy, certificates."""
    settings = {}
    for line in run([sys.executable, "-m", "pip", "config", "list"], timeout=60).splitlines():
        key, _, value = line.partition("=")
        section, _, option = key.rpartition(".")
        if section in ("global", "install", ":env:"):
            settings[option] = str(ast.literal_eval(value)).replace("\n", " ")
    return settings
