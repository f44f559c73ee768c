"""The released images by digest. config/base/images holds them, for bundle and catalog alike."""

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
    """The reference, with its digest, of the released image of a name.

    Raises:
        ClusterError: that image has not been pinned.
    """
    for entry in yaml.safe_load(PINS.read_text())["images"]:
        if entry["name"] == name:
            return f"{name}@{entry['digest']}"
    raise ClusterError(f"{PINS.relative_to(CHECKOUT)} has no image {name}; ./inv image.pin adds it")


def pin(reference: str) -> None:
    """Makes the image of a reference the released one of its name.

    Raises:
        ClusterError: the reference has no digest.
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
    """Copies a folder of manifests with other image references in them.

    Args:
        source: The folder, with the released references.
        references: Which reference takes the place of which.
        output: Where the copy goes; files of the same names are overwritten.

    Raises:
        ClusterError: a reference to be replaced is nowhere in the folder, or the other one has no digest.
    """
    for new in references.values():
        _parts(new)
    files = {path: path.read_text() for path in sorted(source.rglob("*")) if path.is_file()}
    for old in references:
        if not any(old in text for text in files.values()):
            raise ClusterError(f"{source} does not mention {old}: run ./inv bundle and ./inv catalog first")
    mentioned = re.compile("|".join(map(re.escape, references)))
    for path, text in files.items():
        target = output / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(mentioned.sub(lambda match: references[match[0]], text))


def _parts(reference: str) -> tuple[str, str]:
    """Name and digest of a reference."""
    match = _REFERENCE.fullmatch(reference)
    if not match:
        raise ClusterError(f"'{reference}' is not NAME@sha256:DIGEST: a tag may move, a release may not")
    return match["name"], match["digest"]
