"""Validation of host names and Kubernetes names: RFC 1123, as the API server applies it."""

import re
from ipaddress import IPv4Address, IPv6Address

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
LABEL = "at most 63 lower-case letters, digits and inner hyphens"
"""The rule for a label, for error messages: "It has ..."."""


def is_label(text: str) -> bool:
    """Returns whether a text is a valid name of a namespace (apimachinery, IsDNS1123Label)."""
    return bool(_LABEL.fullmatch(text))


def is_dns_name(text: str) -> bool:
    """Returns whether a text is a valid name of a pod (apimachinery, IsDNS1123Subdomain).

    Unlike apimachinery, this allows at most 63 characters between two dots.
    """
    return len(text) <= 253 and all(map(is_label, text.split(".")))


def is_host(text: str) -> bool:
    """Returns whether a text is a DNS name (in any case, with or without a final dot) or an IPv4 address."""
    name = text.lower().removesuffix(".") if text.isascii() else ""
    # If the last label is a number, the text is an address (RFC 1123, 2.1).
    return is_ipv4(text) if name.rpartition(".")[2].isdigit() else is_dns_name(name)


def is_ipv4(text: str) -> bool:
    """Returns whether a text is an IPv4 address of four numbers."""
    return _is_address(IPv4Address, text)


def is_ipv6(text: str) -> bool:
    """Returns whether a text is an IPv6 address without brackets."""
    return _is_address(IPv6Address, text)


def _is_address(family: type[IPv4Address] | type[IPv6Address], text: str) -> bool:
    try:
        family(text)
    except ValueError:
        return False
    return True
