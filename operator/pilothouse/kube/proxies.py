"""The proxy from the environment, by the rules of Go's net/http, which kubectl uses."""

import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit


def proxy_from_environment(url: str, variables: Mapping[str, str]) -> str:
    """Returns the URL of the proxy for a URL, or an empty string for no proxy.

    HTTPS_PROXY or HTTP_PROXY contains the proxy, depending on the URL's scheme. NO_PROXY lists the hosts that
    are reached without a proxy: names (with their subdomains), IP addresses, networks such as 10.96.0.0/12,
    each with or without a port, or `*` for all. The local host never uses the proxy. The variables may have
    lower-case names.

    Args:
        url: The URL of the request.
        variables: The environment variables.
    """
    parts = urlsplit(url)
    host, scheme = (parts.hostname or "").lower(), parts.scheme
    port = parts.port or (443 if scheme == "https" else 80)
    proxy = _variable(variables, f"{scheme}_proxy")
    if not proxy or _is_this_machine(host):
        return ""
    if any(_matches(entry, host, port) for entry in _variable(variables, "no_proxy").split(",")):
        return ""
    return proxy if "://" in proxy else f"http://{proxy}"


def _variable(variables: Mapping[str, str], name: str) -> str:
    return (variables.get(name.upper()) or variables.get(name) or "").strip()


def _is_this_machine(host: str) -> bool:
    address = _address(host)
    return host == "localhost" or (address is not None and address.is_loopback)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _matches(entry: str, host: str, port: int) -> bool:
    """Whether an entry of NO_PROXY covers a host."""
    entry = entry.strip().lower()
    if entry in ("", "*"):
        return entry == "*"
    address = _address(host)
    if "/" in entry:
        try:
            return address is not None and address in ipaddress.ip_network(entry, strict=False)
        except ValueError:
            return False
    name, colon, number = entry.rpartition(":")
    # An IPv6 address contains colons. With a port, it is in brackets.
    if colon and number.isdecimal() and (":" not in name or name.startswith("[")):
        if int(number) != port:
            return False
        entry = name
    entry = entry.strip("[]")
    if address is not None or _address(entry) is not None:
        return address == _address(entry)
    only_subdomains = entry.startswith((".", "*."))
    entry = entry.removeprefix("*").removeprefix(".")
    return host.endswith(f".{entry}") or (not only_subdomains and host == entry)
