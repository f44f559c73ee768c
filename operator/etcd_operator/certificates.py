"""The Secrets with certificates: their mistakes, and the operator's credentials."""

import binascii
import re
import ssl
from collections.abc import Iterator, Mapping
from contextlib import suppress
from hashlib import sha256
from typing import NamedTuple

import msgspec

from etcd_operator.blueprint import Blueprint
from etcd_operator.etcd import Credentials
from pilothouse.views import Secret

# Everything around the blocks is a comment.
_BLOCK = re.compile(rb"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", re.S)


class Layout(NamedTuple):
    """The keys of a Secret.

    Attributes:
        ca: The key of the certificate authorities.
        certificate: The key of the certificate with its chain.
        key: The key of the private key.
    """

    ca: str
    certificate: str
    key: str


PEER = Layout("peer-ca.crt", "peer.crt", "peer.key")
SERVER = Layout("server-ca.crt", "server.crt", "server.key")
OPERATOR = Layout("etcd-client-ca.crt", "etcd-client.crt", "etcd-client.key")


class Mistake(msgspec.Struct, frozen=True):
    """A Secret that cannot be used.

    Attributes:
        secret: The name of the Secret.
        key: The key in it. Empty: the Secret itself.
        message: What is wrong and what to do. It names the Secret and the key.
    """

    secret: str
    key: str
    message: str


class Certificates(msgspec.Struct, frozen=True):
    """What the Secrets of a cluster hold.

    Attributes:
        credentials: The operator's credentials. None: no TLS for clients, or a mistake.
        authorities: The certificate authorities that members read: the key of each in its Secret, a colon and
            a fingerprint. etcd reads them only when it starts, so a change needs a restart of every member.
            Their order, comments and repetitions do not matter. Empty: no TLS, or a mistake.
        mistakes: What is wrong.
    """

    credentials: Credentials | None = None
    authorities: frozenset[str] = frozenset()
    mistakes: tuple[Mistake, ...] = ()


def secrets_of(blueprint: Blueprint) -> dict[str, tuple[Layout, ...]]:
    """Returns the names of the cluster's Secrets, each with the keys that it must have."""
    wanted: dict[str, tuple[Layout, ...]] = {}
    pairs = (
        (blueprint.peer_secret, PEER),
        (blueprint.server_secret, SERVER),
        (blueprint.tls.operator_secret, OPERATOR),
    )
    for name, layout in pairs:
        if name:
            wanted[name] = (*wanted.get(name, ()), layout)
    return wanted


def certificates(blueprint: Blueprint, secrets: Mapping[str, Secret | None]) -> Certificates:
    """Reads the Secrets of a cluster.

    Args:
        blueprint: The cluster.
        secrets: The Secrets by the names of `secrets_of`. None: the Secret does not exist.
    """
    wanted = secrets_of(blueprint)
    mistakes = tuple(
        mistake
        for name, layouts in wanted.items()
        for layout in layouts
        for mistake in _mistakes(name, layout, secrets.get(name))
    )
    if mistakes or not wanted:
        return Certificates(mistakes=mistakes)
    found = {name: secret for name in wanted if (secret := secrets.get(name))}
    operator = found.get(blueprint.tls.operator_secret)
    authorities = frozenset(
        fingerprint
        for name, layouts in wanted.items()
        for layout in layouts
        if layout is not OPERATOR  # only the operator reads that one
        for fingerprint in _fingerprints(layout.ca, found[name].data[layout.ca])
    )
    return Certificates(
        credentials=_credentials(operator) if operator else None,
        authorities=authorities,
    )


def _fingerprints(key: str, pem: bytes) -> Iterator[str]:
    for block in _BLOCK.findall(pem):
        yield f"{key}:{sha256(binascii.a2b_base64(block)).hexdigest()[:16]}"


def _credentials(secret: Secret) -> Credentials:
    ca, certificate, key = (secret.data[each].decode("ascii") for each in OPERATOR)
    return Credentials(ca=ca, certificate=certificate, key=key)


def _mistakes(name: str, layout: Layout, secret: Secret | None) -> Iterator[Mistake]:
    if secret is None:
        keys = ", ".join((layout.certificate, layout.key, layout.ca))
        yield Mistake(name, "", f"Secret {name} does not exist. Create it with the keys {keys}.")
        return
    missing = [each for each in layout if not secret.data.get(each, b"").strip()]
    for each in missing:
        how = "is empty" if each in secret.data else "does not exist"
        yield Mistake(name, each, f"Key {each} of Secret {name} {how}. Add it in PEM format.")
    if not missing:
        yield from _unusable(name, layout, secret)


def _unusable(name: str, layout: Layout, secret: Secret) -> Iterator[Mistake]:
    """Yields the mistakes in the contents of a Secret that has all keys."""
    for key in (layout.ca, layout.certificate):
        if not _is_certificate(secret.data[key]):
            text = f"Key {key} of Secret {name} is not a certificate in PEM format. Replace it."
            yield Mistake(name, key, text)
    if b"-----BEGIN " not in secret.data[layout.key] or not secret.data[layout.key].isascii():
        text = f"Key {layout.key} of Secret {name} is not a private key in PEM format. Replace it."
        yield Mistake(name, layout.key, text)


def _is_certificate(pem: bytes) -> bool:
    """Whether a text has at least one certificate, and Python can read all of them."""
    if not pem.isascii():
        return False
    with suppress(ssl.SSLError, ValueError):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=pem.decode("ascii"))
        return True
    return False
