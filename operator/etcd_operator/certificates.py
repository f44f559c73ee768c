"""The Secrets with certificates: their mistakes, and the operator's credentials."""

import ssl
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from functools import lru_cache
from hashlib import sha256
from typing import NamedTuple

import msgspec

from etcd_operator.blueprint import Blueprint
from etcd_operator.etcd import Credentials
from etcd_operator.model import Problem
from etcd_operator.validity import blocks, expiry, misfit
from pilothouse.views import Secret

EXPIRES_SOON = timedelta(days=14)
"""How long before a certificate expires that is a warning."""

# What OpenSSL calls a key that does not belong to its certificate, of the same and of another type.
_OTHER_KEY = ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED")


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
        expiring: The certificates that expire soon. The messages do not depend on the present time.
    """

    credentials: Credentials | None = None
    authorities: frozenset[str] = frozenset()
    mistakes: tuple[Mistake, ...] = ()
    expiring: tuple[Problem, ...] = ()


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


def certificates(blueprint: Blueprint, secrets: Mapping[str, Secret | None], now: datetime) -> Certificates:
    """Reads the Secrets of a cluster.

    Args:
        blueprint: The cluster.
        secrets: The Secrets by the names of `secrets_of`. None: the Secret does not exist.
        now: The present time.
    """
    wanted = secrets_of(blueprint)
    mistakes = tuple(
        mistake
        for name, layouts in wanted.items()
        for layout in layouts
        for mistake in _mistakes(name, layout, secrets.get(name), now)
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
        expiring=tuple(
            problem
            for name, layouts in wanted.items()
            for layout in layouts
            for problem in _expiring(name, layout, found[name], now)
        ),
    )


def _fingerprints(key: str, pem: bytes) -> Iterator[str]:
    for block in blocks(pem):
        yield f"{key}:{sha256(block).hexdigest()[:16]}"


def _credentials(secret: Secret) -> Credentials:
    ca, certificate, key = (secret.data[each].decode("ascii") for each in OPERATOR)
    return Credentials(ca=ca, certificate=certificate, key=key)


def _expiring(name: str, layout: Layout, secret: Secret, now: datetime) -> Iterator[Problem]:
    for key, at in _expiries(layout, secret):
        if at - now <= EXPIRES_SOON:
            yield Problem(
                "CertificateExpires",
                f"Key {key} of Secret {name} expires at {at:%Y-%m-%dT%H:%M:%SZ}. Renew it.",
            )


def _expiries(layout: Layout, secret: Secret) -> Iterator[tuple[str, datetime]]:
    """Yields when the certificate of a Secret expires, and the last one of its authorities."""
    [certificate, *_] = blocks(secret.data[layout.certificate])
    if at := expiry(certificate):
        yield layout.certificate, at
    authorities = [expiry(each) for each in blocks(secret.data[layout.ca])]
    if None not in authorities:
        yield layout.ca, max(filter(None, authorities))


def _mistakes(name: str, layout: Layout, secret: Secret | None, now: datetime) -> Iterator[Mistake]:
    if secret is None:
        keys = ", ".join((layout.certificate, layout.key, layout.ca))
        yield Mistake(name, "", f"Secret {name} does not exist. Create it with the keys {keys}.")
        return
    missing = [each for each in layout if not secret.data.get(each, b"").strip()]
    for each in missing:
        how = "is empty" if each in secret.data else "does not exist"
        yield Mistake(name, each, f"Key {each} of Secret {name} {how}. Add it in PEM format.")
    if missing:
        return
    unusable = [*_unusable(name, layout, secret)]
    yield from unusable or _outdated(name, layout, secret, now)


def _outdated(name: str, layout: Layout, secret: Secret, now: datetime) -> Iterator[Mistake]:
    """Yields the mistakes in a Secret whose keys are in PEM format: etcd could not connect with it."""
    for key, at in _expiries(layout, secret):
        if at <= now:
            text = f"Key {key} of Secret {name} expired at {at:%Y-%m-%dT%H:%M:%SZ}. Renew it."
            yield Mistake(name, key, text)
    why = misfit(*(secret.data[each] for each in layout))
    if why in _OTHER_KEY:
        text = (
            f"Key {layout.key} of Secret {name} does not belong to the certificate in {layout.certificate}."
        )
        yield Mistake(name, layout.key, f"{text} Replace both.")
    elif why:
        text = f"Key {layout.key} of Secret {name} cannot be used with {layout.certificate}: {why}."
        yield Mistake(name, layout.key, f"{text} Replace both.")


def _unusable(name: str, layout: Layout, secret: Secret) -> Iterator[Mistake]:
    """Yields the mistakes in the contents of a Secret that has all keys."""
    for key in (layout.ca, layout.certificate):
        if not _is_certificate(secret.data[key]):
            text = f"Key {key} of Secret {name} is not a certificate in PEM format. Replace it."
            yield Mistake(name, key, text)
    if b"-----BEGIN " not in secret.data[layout.key] or not secret.data[layout.key].isascii():
        text = f"Key {layout.key} of Secret {name} is not a private key in PEM format. Replace it."
        yield Mistake(name, layout.key, text)


# Every reconcile reads the Secrets. A check takes milliseconds, and certificates are not secret.
@lru_cache(maxsize=256)
def _is_certificate(pem: bytes) -> bool:
    """Whether a text has at least one certificate, and Python can read all of them."""
    with suppress(ssl.SSLError, ValueError):
        if not pem.isascii() or not blocks(pem):
            return False
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=pem.decode("ascii"))
        return True
    return False
