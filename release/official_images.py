"""Finds the digests of official images in their public registry (OCI distribution specification)."""

from __future__ import annotations

import hashlib
import json
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping

from devcluster.shell import ClusterError

#: Seconds per request.
_TIMEOUT = 30.0
#: The largest manifest that registries must accept, in bytes.
_LARGEST = 4 << 20
#: Indexes before manifests: the digest of an index fits every architecture.
_TYPES = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)
_REFERENCE = re.compile(r"(?P<host>[^/]+)/(?P<path>[^:@]+):(?P<tag>[^:@]+)")
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')


def resolve(references: Mapping[str, str]) -> dict[str, str]:
    """Asks the registries for the current digests of images.

    Args:
        references: Images as HOST/PATH:TAG, by any names. HTTP is used on this machine, HTTPS elsewhere.

    Returns:
        The images as HOST/PATH@DIGEST, by the same names.

    Raises:
        ClusterError: A registry does not respond, does not have an image, or sent another content than that
            of its digest.
    """
    return {name: _resolve(reference) for name, reference in references.items()}


def _resolve(reference: str) -> str:
    match = _REFERENCE.fullmatch(reference)
    if not match:
        raise ClusterError(f"'{reference}' must be HOST/PATH:TAG")
    host, path, tag = match["host"], match["path"], match["tag"]
    scheme = "http" if host.partition(":")[0] in ("localhost", "127.0.0.1") else "https"
    try:
        content, digest = _manifest(f"{scheme}://{host}/v2/{path}/manifests/{tag}")
    except (OSError, ValueError) as error:
        raise ClusterError(
            f"Could not find the digest of {reference}: {error}. Check the connection to {host} and retry."
        ) from error
    computed = f"sha256:{hashlib.sha256(content).hexdigest()}"
    if digest not in ("", computed):
        raise ClusterError(
            f"The registry sent another content for {reference} ({computed}) than that of its digest "
            f"{digest}. Check the proxies between this machine and {host}."
        )
    return f"{host}/{path}@{computed}"


def _manifest(url: str) -> tuple[bytes, str]:
    """Returns a manifest, and the digest that the registry reports for it ("" if none)."""
    try:
        return _get(url)
    except urllib.error.HTTPError as error:
        challenge = error.headers.get("WWW-Authenticate", "")
        if error.code != 401 or not challenge.lower().startswith("bearer "):
            raise
    return _get(url, _anonymous_token(challenge))


def _anonymous_token(challenge: str) -> str:
    """Gets a token without logging in, as the challenge of a registry describes (token specification)."""
    values = dict(_CHALLENGE.findall(challenge))
    realm = values.pop("realm", "")
    if not realm.startswith(("https://", "http://")):
        raise ValueError(f"the registry sent no address for tokens: {challenge!r}")
    answer = json.loads(_get(f"{realm}?{urllib.parse.urlencode(values)}")[0])
    token = answer.get("token") or answer.get("access_token")
    if not isinstance(token, str):
        raise ValueError("the registry sent no token")
    return token


def _get(url: str, token: str = "") -> tuple[bytes, str]:
    headers = {"Accept": _TYPES, **({"Authorization": f"Bearer {token}"} if token else {})}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - the callers check the scheme
    with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:  # noqa: S310
        content = answer.read(_LARGEST + 1)
        if len(content) > _LARGEST:
            raise ValueError(f"the answer has more than {_LARGEST} bytes")
        return content, answer.headers.get("Docker-Content-Digest", "")
