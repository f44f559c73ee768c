"""The released images with their digests. Bundles and catalog use those in config/base/images.

The images that an operator runs are in its config/OPERATOR/manifests/related_images.yaml. An operator finds
them in its variables RELATED_IMAGE_*, and tools that mirror a catalog copy them. The first line of that file
states whether they are the official images or local builds. A cluster gets its own references in their place
(`publish`), so the file decides only what a release contains.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import yaml

from devcluster.folders import CHECKOUT
from devcluster.shell import ClusterError
from release.documents import dump, load, write

PINS = CHECKOUT / "config" / "base" / "images" / "kustomization.yaml"
_RELATED = Path("manifests") / "related_images.yaml"
_OFFICIAL = (
    "The official images that the operator runs. `inv image.release` found their digests in their registry."
)
_LOCAL_BUILDS = (
    "Local builds of the images that the operator runs. No public registry has these digests: run "
    "`inv image.release` before you publish."
)
_REFERENCE = re.compile(r"(?P<name>[a-z0-9.\-_/:]+)@(?P<digest>sha256:[0-9a-f]{64})")


def released(name: str) -> str:
    """Returns the reference of a released image, with its digest.

    Raises:
        ClusterError: The image has not been pinned.
    """
    return pinned(name, PINS.read_text())


def pinned(name: str, pins: str) -> str:
    """Returns the reference of an image that the text of a file of pins has, with its digest.

    Raises:
        ClusterError: The image has not been pinned.
    """
    for entry in yaml.safe_load(pins)["images"]:
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


def related(config: Path) -> dict[str, str]:
    """Returns the released images that an operator runs, by the names of its variables.

    Args:
        config: The folder with the operator's kustomizations.
    """
    file = config / _RELATED
    if not file.exists():
        return {}
    [container] = load(file)["spec"]["template"]["spec"]["containers"]
    return {entry["name"]: entry["value"] for entry in container["env"]}


def related_are_official(config: Path) -> bool:
    """Returns whether the pinned images that an operator runs are the official ones, not local builds.

    Args:
        config: The folder with the operator's kustomizations.
    """
    return (config / _RELATED).read_text().startswith(f"# {_OFFICIAL}\n")


def pin_related(config: Path, references: Mapping[str, str], *, official: bool) -> list[Path]:
    """Pins the images that an operator runs, and returns the path of the file that has changed, if any.

    Args:
        config: The folder with the operator's kustomizations.
        references: The images by the names of the operator's variables.
        official: Whether these are the official images. The file states it.

    Raises:
        ClusterError: A reference has no digest.
    """
    if not references:
        return []
    for reference in references.values():
        require_digest(reference)
    variables = [{"name": name, "value": reference} for name, reference in references.items()]
    patch = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": f"pilothouse-{config.name}"},
        "spec": {"template": {"spec": {"containers": [{"name": "manager", "env": variables}]}}},
    }
    return write({config / _RELATED: dump(patch, comment=_OFFICIAL if official else _LOCAL_BUILDS)})


def substitute(source: Path, references: Mapping[str, str], output: Path) -> None:
    """Copies a folder of manifests and replaces image references in the copy.

    Args:
        source: The folder, with the released references.
        references: The new reference for each released one.
        output: The folder of the copy. Files of the same names are overwritten.

    Raises:
        ClusterError: A released reference does not occur in the folder.
    """
    files = {path: path.read_text() for path in sorted(source.rglob("*")) if path.is_file()}
    for old in references:
        if not any(old in text for text in files.values()):
            raise ClusterError(f"{source} does not contain {old}. Run ./inv bundle and ./inv catalog first.")
    mentioned = re.compile("|".join(map(re.escape, references)))
    for path, text in files.items():
        target = output / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(mentioned.sub(lambda match: references[match[0]], text))


def require_digest(reference: str) -> None:
    """Checks that a reference has a digest.

    Raises:
        ClusterError: It has none.
    """
    _parts(reference)


def _parts(reference: str) -> tuple[str, str]:
    """Returns the name and the digest of a reference."""
    match = _REFERENCE.fullmatch(reference)
    if not match:
        raise ClusterError(f"'{reference}' must be NAME@sha256:DIGEST, because a tag can change later")
    return match["name"], match["digest"]
