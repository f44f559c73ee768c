"""Reading settings from environment variables, with one sentence for each mistake."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar
from urllib.parse import urlsplit

from pilothouse.api.duration import TooLongError, parse_duration
from pilothouse.process.hosts import LABEL, is_dns_name, is_host, is_ipv6, is_label

T = TypeVar("T", bound=str)

# Longer values are cut in a sentence; longer numbers are none that a setting may have.
_SHOWN = 100
_DIGITS = 18
# Seconds, 68 years: what a Lease's int32 holds (coordination.k8s.io/v1); threads wait for 292 years at most.
_LONGEST = 2**31 - 1
_YES = {"true", "1", "yes", "on"}
_NO = {"false", "0", "no", "off"}


class SettingsError(Exception):
    """A setting is missing or wrong. Its text is one sentence: the variable, its value, the remedy."""


class Environment:
    """Typed access to environment variables. An empty variable counts as one that is not set.

    Args:
        variables: The variables, such as `os.environ`.
    """

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables

    def text(self, name: str, default: str | None = None) -> str:
        """The variable's text.

        Raises:
            SettingsError: It is not set and there is no default.
        """
        value = self._variables.get(name, "").strip()
        if value:
            return value
        if default is None:
            raise SettingsError(f"{name} is not set: give it a value in the operator's environment.")
        return default

    def namespaces(self, name: str) -> tuple[str, ...]:
        """Names of namespaces, separated by commas; empty when not set."""
        # One that is empty is no less a mistake: all namespaces would be watched if it were the only one.
        value = self._named(
            name,
            lambda value: all(map(is_label, _parts(value))),
            "names of namespaces, separated by commas; each has",
            ", and none is empty",
        )
        return _parts(value) if value else ()

    def namespace(self, name: str) -> str:
        """The name of a namespace; empty when not set."""
        return self._named(name, is_label, "the name of a namespace; it has")

    def pod(self, name: str) -> str:
        """The name of a pod; empty when not set."""
        return self._named(name, is_dns_name, "the name of the pod; between dots it has", "; 253 in all")

    def _named(self, name: str, fits: Callable[[str], bool], what: str, more: str = "") -> str:
        """What Kubernetes lets a thing be called; empty when not set."""
        value = self.text(name, "")
        if value and not fits(value):
            raise SettingsError(f"{name} is {shown(value)}: use {what} {LABEL}{more}.")
        return value

    def url(self, name: str, *, example: str) -> str:
        """The base URL of an outside system, with one slash at its end.

        Args:
            name: The variable.
            example: A URL that an error suggests: "http://booking-api.airline.svc".

        Raises:
            SettingsError: The variable is not set, or is not an http or https URL of a possible host without
                credentials, query and fragment.
        """
        text = self.text(name)
        try:
            parts = urlsplit(text)
            _ = parts.port
        except ValueError as error:
            # What cannot be parsed is not shown where credentials may be in it.
            value = "" if "@" in text else f"{shown(text)}, "
            raise SettingsError(f"{name} is {value}no URL ({error}): use one such as {example}.") from error
        if "@" in parts.netloc:
            raise SettingsError(f"{name} carries credentials: use one without, such as {example}.")
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise SettingsError(f"{name} is {shown(text)}: use an http or https URL such as {example}.")
        # Of white space and backslashes each library thinks something else, so they are nowhere in it.
        if re.search(r"[\s\\]", text) or not text.isprintable():
            raise SettingsError(
                f"{name} is {shown(text)}: use a URL without blanks and backslashes, such as {example}."
            )
        if not (is_ipv6 if parts.netloc.startswith("[") else is_host)(parts.hostname):
            raise SettingsError(
                f"{name} is {shown(text)}, and {shown(parts.hostname)} can be no host: use a DNS name, an "
                f"IPv4 address or an [IPv6] address, such as {example}."
            )
        return text.rstrip("/") + "/"

    def choice(self, name: str, choices: Sequence[T], default: T) -> T:
        """One of several words, in any case."""
        value = self.text(name, default)
        for choice in choices:
            if value.lower() == choice.lower():
                return choice
        raise SettingsError(f"{name} is {shown(value)}: use one of {', '.join(choices)}.")

    def flag(self, name: str, default: bool) -> bool:
        """Whether a thing is on: true or false."""
        value = self.text(name, str(default)).lower()
        if value in _YES:
            return True
        if value in _NO:
            return False
        raise SettingsError(f"{name} is {shown(value)}: use true or false.")

    def count(self, name: str, default: int, *, minimum: int = 0, maximum: int | None = None) -> int:
        """A whole number within bounds, both included."""
        value = self.text(name, str(default))
        bounds = f"at least {minimum}" if maximum is None else f"{minimum} to {maximum}"
        number = int(value) if re.fullmatch(rf"-?\d{{1,{_DIGITS}}}", value) else None
        if number is None or number < minimum or (maximum is not None and number > maximum):
            raise SettingsError(f"{name} is {shown(value)}: use a whole number, {bounds}.")
        return number

    def seconds(self, name: str, default: float, *, minimum: float = 0.0) -> float:
        """A duration: plain seconds ("15", "0.5") or with units ("10m", "1h30m", "500ms"); 68 years at most.

        Returns:
            Seconds.
        """
        value = self.text(name, str(default))
        seconds = _seconds(value)
        if seconds is None or not minimum <= seconds <= _LONGEST:
            unit = "second" if minimum == 1 else "seconds"
            least = f" of at least {minimum:g} {unit}" if minimum else ""
            if seconds is not None and seconds > _LONGEST:
                least = " of at most 68 years"
            raise SettingsError(
                f"{name} is {shown(value)}: use a duration{least}, such as 15s, 10m or 1h30m."
            )
        return seconds


def _parts(value: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in value.split(","))


def shown(value: str) -> str:
    """A wrong value as a sentence quotes it: one line, cut where it is very long."""
    return repr(value) if len(value) <= _SHOWN else f"{value[:_SHOWN]!r}... ({len(value)} characters)"


def _seconds(text: str) -> float | None:
    """Return the seconds of "15" or "1h30m", None for anything else. Go's own syntax needs a unit."""
    if re.fullmatch(r"\d+(\.\d+)?", text, re.ASCII):
        text += "s"
    try:
        return parse_duration(text).total_seconds()
    except TooLongError:
        return math.inf
    except ValueError:
        return None
