"""The flags of etcd, as a container of a pod passes them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

_VARIABLE = re.compile(r"\$\$|\$\(([-._a-zA-Z][-._a-zA-Z0-9]*)\)")
_PREFIX = "ETCD_"
#: What the flag for the token is without a value.
DEFAULT_TOKEN = "etcd-cluster"  # noqa: S105 - not a password


class FlagsError(Exception):
    """Etcd exits with this message because of its flags."""


@dataclass(frozen=True)
class Flags:
    """The flags that the model uses.

    Attributes:
        name: The member's name.
        peer_urls: Its advertised peer URLs.
        client_urls: Its advertised client URLs.
        initial_cluster: The peer URLs of the initial cluster by name.
        state: `new` or `existing`.
        token: The token of a founding.
        others: All other flags.
    """

    name: str
    peer_urls: tuple[str, ...]
    client_urls: tuple[str, ...]
    initial_cluster: Mapping[str, tuple[str, ...]]
    state: str = "new"
    token: str = DEFAULT_TOKEN
    others: Mapping[str, str] | None = None

    @property
    def poisoned(self) -> bool:
        """Whether the initial cluster does not contain the member."""
        return self.name not in self.initial_cluster


def parse(words: Sequence[str], environment: Mapping[str, str]) -> Flags:
    """Returns the flags of a command line, with etcd's rules for its environment.

    An empty variable is ignored. A variable for a flag that is also on the command line is fatal.

    Args:
        words: The words after the program, already expanded.
        environment: The environment of the container.

    Raises:
        FlagsError: Etcd does not accept them.
    """
    given = dict(_split(words))
    for variable, value in environment.items():
        if not variable.startswith(_PREFIX) or not value:
            continue
        flag = variable.removeprefix(_PREFIX).lower().replace("_", "-")
        if flag in given:
            raise FlagsError(
                f'conflicting environment variable "{variable}" is shadowed by corresponding command-line '
                "flag (either unset environment variable or disable flag)"
            )
        given[flag] = value
    name = given.pop("name", "default")
    peers = _urls(given.pop("initial-advertise-peer-urls", "http://localhost:2380"))
    initial = given.pop("initial-cluster", None)
    if initial is None:
        initial = ",".join(f"{name}={url}" for url in peers)
    state = given.pop("initial-cluster-state", "new")
    if state not in ("new", "existing"):
        raise FlagsError(f'invalid value "{state}" for flag -initial-cluster-state')
    return Flags(
        name=name,
        peer_urls=peers,
        client_urls=_urls(given.pop("advertise-client-urls", "http://localhost:2379")),
        initial_cluster=_cluster(initial),
        state=state,
        token=given.pop("initial-cluster-token", DEFAULT_TOKEN),
        others=given,
    )


def expanded(text: str, environment: Mapping[str, str]) -> str:
    """Returns an argument of a container with its `$(VAR)` references expanded.

    A reference to a variable that is not set stays as it is, and `$$` is one `$`.
    """

    def replacement(found: re.Match[str]) -> str:
        if found[0] == "$$":
            return "$"
        return environment.get(found[1], found[0])

    return _VARIABLE.sub(replacement, text)


def host(url: str) -> str:
    """Returns the host of a URL."""
    return urlsplit(url).hostname or ""


def _split(words: Sequence[str]) -> list[tuple[str, str]]:
    found, rest = [], list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            raise FlagsError(f'"{word}" is not a valid flag')
        flag, equals, value = word.lstrip("-").partition("=")
        # A switch has no value; every other flag may have it in the next word.
        if not equals and rest and not rest[0].startswith("-"):
            value = rest.pop(0)
        elif not equals:
            value = "true"
        found.append((flag, value))
    return found


def _urls(text: str) -> tuple[str, ...]:
    return tuple(each for each in text.split(",") if each)


def _cluster(text: str) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for each in filter(None, text.split(",")):
        name, equals, url = each.partition("=")
        if not equals or not host(url):
            raise FlagsError(f'error setting up initial cluster: URL scheme must be http, https: "{each}"')
        found[name] = (*found.get(name, ()), url)
    return found
