"""What a host and what Kubernetes names may be called: RFC 1123, as the API server reads it."""

import re
from ipaddress import IPv4Address, IPv6Address

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
LABEL = "lower-case letters, digits and inner hyphens, 63 at most"
"""What a label has, in words."""


def is_label(text: str) -> bool:
    """Whether a namespace can be called so (apimachinery, IsDNS1123Label)."""
    return bool(_LABEL.fullmatch(text))


def is_dns_name(text: str) -> bool:
    """Whether a pod can be called so (apimachinery, IsDNS1123Subdomain, but with labels of 63 at most)."""
    return len(text) <= 253 and all(map(is_label, text.split(".")))


def is_host(text: str) -> bool:
    """Whether it can be a host: a DNS name in any case, be it with a dot at its end, or an IPv4 address."""
    name = text.lower().removesuffix(".") if text.isascii() else ""
    # What ends in a number is no name but an address (RFC 1123, 2.1).
    return is_ipv4(text) if name.rpartition(".")[2].isdigit() else is_dns_name(name)


def is_ipv4(text: str) -> bool:
    """Whether it is an IPv4 address of four numbers."""
    return _is_address(IPv4Address, text)


def is_ipv6(text: str) -> bool:
    """Whether it is an IPv6 address, without brackets."""
    return _is_address(IPv6Address, text)


def _is_address(family: type[IPv4Address] | type[IPv6Address], text: str) -> bool:
    try:
        family(text)
    except ValueError:
        return False
    return True
