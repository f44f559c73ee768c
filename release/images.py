"""The released images with their digests. Bundles and catalog use those in config/base/images."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import yaml

from devcluster.folders import CHECKOUT
from devcluster.shell import ClusterError

PINS = CHECKOUT / "config" / "base" / "images" / "kustomization.yaml"
_REFERENCE = re.compile(r"(?P<name>[a-z0-9.\-_/:]+)@(?P<digest>sha256:[0-9a-f]{64})")


def released(name: str) -> str:
    """Returns the reference of a released image, with its digest.

    Raises:
        ClusterError: The image has not been pinned.
    """
    for entry in yaml.safe_load(PINS.read_text())["images"]:
        if entry["name"] == name:
            return f"{name}@{entry['digest']}"
    raise ClusterError(f"{PINS.relative_to(CHECKOUT)} has no image {name}. Add it with ./inv image.pin.")


def pin(reference: str) -> None:
    """Pins an image as the released one of its name.

    Raises:
        ClusterError: The reference has no digest.
    """
    name, digest = _parts(reference)
    text = PINS.read_text()
    document = yaml.safe_load(text)
    entries = {entry["name"]: entry["digest"] for entry in document["images"]}
    entries[name] = digest
    head = text[: text.index("images:")]
    body = "".join(f"- name: {name}\n  digest: {digest}\n" for name, digest in sorted(entries.items()))
    PINS.write_text(f"{head}images:\n{body}")


def substitute(source: Path, references: Mapping[str, str], output: Path) -> None:
    """Copies a folder of manifests and replaces image references in the copy.

    Args:
        source: The folder, with the released references.
        references: The new reference for each released one.
        output: The folder of the copy. Files of the same names are overwritten.

    Raises:
        ClusterError: A released reference does not occur in the folder, or a new one has no digest.
    """
    for new in references.values():
        _parts(new)
    files = {path: path.read_text() for path in sorted(source.rglob("*")) if path.is_file()}
    for old in references:
        if not any(old in text for text in files.values()):
            raise ClusterError(f"{source} does not contain {old}. Run ./inv bundle and ./inv catalog first.")
    mentioned = re.compile("|".join(map(re.escape, references)))
    for path, text in files.items():
        target = output / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(mentioned.sub(lambda match: references[match[0]], text))


def _parts(reference: str) -> tuple[str, str]:
    """Returns the name and the digest of a reference."""
    match = _REFERENCE.fullmatch(reference)
    if not match:
        raise ClusterError(f"'{reference}' must be NAME@sha256:DIGEST, because a tag can change later")
    return match["name"], match["digest"]
