"""When certificates expire, and whether a key belongs to its certificate."""

import binascii
import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime

from pilothouse.kube import TlsFiles

# Everything around the blocks is a comment.
_BLOCK = re.compile(rb"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", re.S)

# Tags of DER (X.690) in the fields of a certificate before its validity (RFC 5280, section 4.1).
_VERSION, _UTC_TIME = 0xA0, 0x17
_BEFORE_VALIDITY = 3  # the serial number, the algorithm and the issuer


def blocks(pem: bytes) -> list[bytes]:
    """Returns the certificates in a text in PEM format, in DER format.

    Raises:
        ValueError: A block is not in base64.
    """
    return [binascii.a2b_base64(each) for each in _BLOCK.findall(pem)]


def expiry(der: bytes) -> datetime | None:
    """Returns when a certificate expires. None: it has no time that can be read."""
    with suppress(ValueError, IndexError):
        [certificate] = _items(der)
        [to_be_signed, *_] = _items(certificate[1])
        fields = [each for each in _items(to_be_signed[1]) if each[0] != _VERSION]
        [_, not_after] = _items(fields[_BEFORE_VALIDITY][1])
        return _time(*not_after)
    return None


def _items(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Yields the tags and the contents of the values in DER."""
    at = 0
    while at < len(content):
        tag, length, start = content[at], content[at + 1], at + 2
        if length >= 0x80:  # The other bits are the number of bytes of the length.
            start += length & 0x7F
            length = int.from_bytes(content[at + 2 : start], "big")
        at = start + length
        yield tag, content[start:at]


def _time(tag: int, content: bytes) -> datetime:
    text = content.decode("ascii")
    if tag == _UTC_TIME:
        text = f"{'19' if text >= '50' else '20'}{text}"
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)


def misfit(ca: bytes, certificate: bytes, key: bytes) -> str:
    """Returns why a certificate cannot be used with a key. Empty: it can.

    Args:
        ca: The certificate authorities in PEM format.
        certificate: The certificate with its chain in PEM format.
        key: The private key in PEM format.
    """
    ca_data, cert_data, key_data = (each.decode("ascii") for each in (ca, certificate, key))
    try:
        TlsFiles(ca_data=ca_data, cert_data=cert_data, key_data=key_data).context()
    except ValueError:
        return "the key is encrypted"
    except OSError as error:  # also ssl.SSLError
        return getattr(error, "reason", None) or str(error)
    return ""
