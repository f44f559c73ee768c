"""OCI images without a container engine: packs them from files into a folder of blobs, and pushes them.

Layers are not compressed: they stay on one machine, where compression costs more time than it saves.
"""

from __future__ import annotations

import hashlib
import http.client
import io
import json
import os
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from devcluster.shell import ClusterError

_LAYER = "application/vnd.oci.image.layer.v1.tar"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
#: Timeout in seconds of one request to a registry. The largest layer has about 300 MB, sent over loopback.
_REQUEST_TIMEOUT = 120.0
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Descriptor:
    """One blob: its media type, its `sha256:` digest and its size in bytes."""

    media_type: str
    digest: str
    size: int

    def document(self) -> dict[str, Any]:
        """Returns the descriptor as it appears in a manifest."""
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size}

    @staticmethod
    def parse(document: Mapping[str, Any]) -> Descriptor:
        """Returns the descriptor from the result of `document`."""
        return Descriptor(document["mediaType"], document["digest"], document["size"])


@dataclass(frozen=True)
class Entry:
    """One path of a layer: a copy of a host file, a text, a link, or (if none of these is set) a folder."""

    path: str
    source: Path | None = None
    text: str | None = None
    link: str | None = None
    mode: int = 0o755


@dataclass(frozen=True)
class Image:
    """An image in a folder of blobs: the content of its manifest."""

    layers: tuple[Descriptor, ...]
    config: Descriptor

    def manifest(self) -> bytes:
        """Returns the exact bytes of the manifest, from which the digest is computed."""
        document = {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": self.config.document(),
            "layers": [layer.document() for layer in self.layers],
        }
        return json.dumps(document, sort_keys=True).encode()

    @property
    def digest(self) -> str:
        """The digest by which the image is pulled."""
        return "sha256:" + hashlib.sha256(self.manifest()).hexdigest()


@dataclass(frozen=True)
class Blobs:
    """A folder of blobs named by their digest, as in an OCI image layout."""

    folder: Path

    def path(self, digest: str) -> Path:
        """Returns the path of a blob, whether or not it exists."""
        return self.folder / "blobs" / digest.replace(":", "/")

    def put(self, data: bytes, media_type: str) -> Descriptor:
        """Stores a small blob."""
        draft = self._draft()
        draft.write_bytes(data)
        return self._adopt(draft, media_type)

    def put_layer(self, entries: Sequence[Entry]) -> Descriptor:
        """Packs a layer. The same entries result in the same bytes."""
        draft = self._draft()
        with tarfile.open(draft, "w", format=tarfile.PAX_FORMAT) as tar:
            for entry in sorted(entries, key=lambda entry: entry.path):
                _add(tar, entry)
        return self._adopt(draft, _LAYER)

    def adopt_tar(self, tar: Path) -> Descriptor:
        """Moves a finished tar file into the folder as a layer."""
        draft = self._draft()
        tar.replace(draft)
        return self._adopt(draft, _LAYER)

    def put_image(self, layers: Sequence[Descriptor], run_config: Mapping[str, Any]) -> Image:
        """Stores the configuration of an image whose layers are in the folder, and returns the image.

        Args:
            layers: The layers, lowest first.
            run_config: The `config` object of the OCI image configuration: User, Entrypoint, Env, Labels, ...
        """
        document = {
            "architecture": "amd64",
            "os": "linux",
            "config": run_config,
            "rootfs": {"type": "layers", "diff_ids": [layer.digest for layer in layers]},
            # Image builders expect one entry per layer when they add a layer.
            "history": [{"created_by": "pilothouse devcluster"} for _ in layers],
        }
        return Image(tuple(layers), self.put(json.dumps(document, sort_keys=True).encode(), _CONFIG))

    def _draft(self) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".draft-", dir=self.folder)
        os.close(handle)
        return Path(name)

    def _adopt(self, draft: Path, media_type: str) -> Descriptor:
        with draft.open("rb") as stream:
            digest = "sha256:" + hashlib.file_digest(stream, "sha256").hexdigest()
        descriptor = Descriptor(media_type, digest, draft.stat().st_size)
        self.path(digest).parent.mkdir(parents=True, exist_ok=True)
        draft.replace(self.path(digest))
        return descriptor


def _add(tar: tarfile.TarFile, entry: Entry) -> None:
    info = tarfile.TarInfo(entry.path.strip("/"))
    info.mode = entry.mode
    if entry.link is not None:
        info.type, info.linkname = tarfile.SYMTYPE, entry.link
        tar.addfile(info)
    elif entry.source is not None:
        info.size = entry.source.stat().st_size
        with entry.source.open("rb") as stream:
            tar.addfile(info, stream)
    elif entry.text is not None:
        data = entry.text.encode()
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
    else:
        info.type = tarfile.DIRTYPE
        tar.addfile(info)


@dataclass(frozen=True)
class Registry:
    """A plain-HTTP registry with the OCI distribution API, at `address` (host:port)."""

    address: str
    _headers: Mapping[str, str] = field(default_factory=lambda: {"Accept": _MANIFEST})

    def answers(self) -> bool:
        """Returns whether the registry responds."""
        try:
            return self._send("GET", "/v2/")[0] == 200
        except ClusterError:
            return False

    def digest(self, repository: str, reference: str) -> str:
        """Returns the digest of a tag or digest; empty if the registry does not have it."""
        status, headers = self._send("HEAD", f"/v2/{repository}/manifests/{reference}")
        return headers.get("docker-content-digest", "") if status == 200 else ""

    def push(self, blobs: Blobs, image: Image, repository: str, tags: Sequence[str]) -> None:
        """Uploads the parts of an image that the registry does not have, and sets the tags.

        Raises:
            ClusterError: The registry refused a part, or does not respond.
        """
        if all(self.digest(repository, tag) == image.digest for tag in tags):
            return
        for blob in (*image.layers, image.config):
            self._push_blob(repository, blob, blobs.path(blob.digest))
        for tag in tags:
            path = f"/v2/{repository}/manifests/{tag}"
            status, _ = self._send("PUT", path, io.BytesIO(image.manifest()), {"Content-Type": _MANIFEST})
            if status != 201:
                raise ClusterError(
                    f"The registry {self.address} refused {repository}:{tag} with status {status}."
                )

    def _push_blob(self, repository: str, blob: Descriptor, source: Path) -> None:
        if self._send("HEAD", f"/v2/{repository}/blobs/{blob.digest}")[0] == 200:
            return
        status, headers = self._send("POST", f"/v2/{repository}/blobs/uploads/")
        location = urlsplit(headers.get("location", ""))
        path = f"{location.path}?{location.query}&digest={blob.digest}"
        if status == 202:
            with source.open("rb") as stream:
                content = {"Content-Type": "application/octet-stream", "Content-Length": str(blob.size)}
                status, _ = self._send("PUT", path, stream, content)
        if status != 201:
            raise ClusterError(
                f"The registry {self.address} refused {repository}@{blob.digest} with status {status}."
            )

    def _send(
        self, method: str, path: str, body: io.IOBase | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, dict[str, str]]:
        connection = http.client.HTTPConnection(self.address, timeout=_REQUEST_TIMEOUT, blocksize=_CHUNK)
        try:
            connection.request(method, path, body=body, headers={**self._headers, **(headers or {})})
            response = connection.getresponse()
            response.read()
            return response.status, {name.lower(): value for name, value in response.getheaders()}
        except OSError as error:
            raise ClusterError(f"The registry {self.address} does not respond: {error}") from error
        finally:
            connection.close()
