"""Typed settings from environment variables, with a clear error for each wrong value."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar
from urllib.parse import urlsplit

from pilothouse.api.duration import TooLongError, parse_duration
from pilothouse.kube.resource import require_flags
from pilothouse.process.hosts import LABEL, is_dns_name, is_host, is_ipv6, is_label

T = TypeVar("T", bound=str)

# Error messages truncate longer values. No setting accepts a number with more digits.
_SHOWN = 100
_DIGITS = 18
# Seconds (68 years). A Lease stores its duration as an int32 (coordination.k8s.io/v1). A thread can wait for
# 292 years at most.
_LONGEST = 2**31 - 1
_YES = {"true", "1", "yes", "on"}
_NO = {"false", "0", "no", "off"}


class SettingsError(Exception):
    """A setting is missing or wrong. The text names the variable and its value, and says how to fix it."""


class Environment:
    """Typed access to environment variables. An empty variable counts as not set.

    Args:
        variables: The environment variables, for example `os.environ`.
    """

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables

    def text(self, name: str, default: str | None = None) -> str:
        """Returns the value of a variable without surrounding blanks.

        Raises:
            SettingsError: The variable is not set and there is no default.
        """
        value = self._variables.get(name, "").strip()
        if value:
            return value
        if default is None:
            raise SettingsError(f"{name} is not set. Set it in the operator's environment.")
        return default

    def namespaces(self, name: str) -> tuple[str, ...]:
        """Returns a comma-separated list of names of namespaces; empty if the variable is not set.

        Raises:
            SettingsError: The value is blank, or a name in it is not valid or occurs twice.
        """
        value = self._variables.get(name, "")
        parts = _parts(value) if value else ()
        for part in parts:
            # Were an empty name accepted, the operator would watch all namespaces.
            if not is_label(part):
                wrong = f"{shown(part)} is not the name of a namespace." if part else "A name in it is empty."
                more = f"{wrong} " if part != value else ""
                raise SettingsError(
                    f"{name} is {shown(value)}. {more}Use names of namespaces "
                    f"separated by commas. A name has {LABEL}. An empty value means all namespaces."
                )
            if parts.count(part) > 1:
                raise SettingsError(
                    f"{name} is {shown(value)}. It contains the namespace {part} twice. Name it once."
                )
        return parts

    def namespace(self, name: str) -> str:
        """Returns the name of a namespace; empty if the variable is not set."""
        return self._named(name, is_label, "the name of a namespace. It has")

    def pod(self, name: str) -> str:
        """Returns the name of a pod; empty if the variable is not set."""
        more = " between two dots, at most 253 characters in total"
        return self._named(name, is_dns_name, "the name of the pod. It has", more)

    def _named(self, name: str, fits: Callable[[str], bool], what: str, more: str = "") -> str:
        """Returns the name of a Kubernetes object; empty if the variable is not set."""
        value = self.text(name, "")
        if value and not fits(value):
            raise SettingsError(f"{name} is {shown(value)}. Use {what} {LABEL}{more}.")
        return value

    def url(self, name: str, *, example: str) -> str:
        """Returns the base URL of an external system, ending in one slash.

        Args:
            name: The variable.
            example: The URL that error messages give as an example: "http://booking-api.airline.svc".

        Raises:
            SettingsError: The variable is not set, or is not an http or https URL with a valid host, or
                contains credentials, a query or a fragment.
        """
        text = self.text(name)
        try:
            parts = urlsplit(text)
            _ = parts.port
        except ValueError as error:
            # A value that may contain credentials is not shown.
            value = "" if "@" in text else f"{shown(text)}, which is "
            raise SettingsError(
                f"{name} is {value}not a valid URL ({error}). Use a URL such as {example}."
            ) from error
        if "@" in parts.netloc:
            raise SettingsError(f"{name} contains credentials. Use a URL without them, such as {example}.")
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise SettingsError(
                f"{name} is {shown(text)}. Use an http or https URL without a query or fragment, such as "
                f"{example}."
            )
        # Libraries disagree about white space and backslashes in a URL, so both are refused.
        if re.search(r"[\s\\]", text) or not text.isprintable():
            raise SettingsError(
                f"{name} is {shown(text)}. Use a URL without blanks and backslashes, such as {example}."
            )
        if not (is_ipv6 if parts.netloc.startswith("[") else is_host)(parts.hostname):
            raise SettingsError(
                f"{name} is {shown(text)}, and {shown(parts.hostname)} is not a valid host. Use a DNS name, "
                f"an IPv4 address or an [IPv6] address, such as {example}."
            )
        return text.rstrip("/") + "/"

    def choice(self, name: str, choices: Sequence[T], default: T) -> T:
        """Returns one of the given words. The variable may have it in upper or lower case."""
        value = self.text(name, default)
        for choice in choices:
            if value.lower() == choice.lower():
                return choice
        raise SettingsError(f"{name} is {shown(value)}. Use one of {', '.join(choices)}.")

    def flag(self, name: str, default: bool) -> bool:
        """Returns whether the variable is true or false. 1, yes, on and 0, no, off are accepted, too."""
        require_flags(f"Environment.flag({name!r})", default=default)
        value = self.text(name, str(default)).lower()
        if value in _YES:
            return True
        if value in _NO:
            return False
        raise SettingsError(f"{name} is {shown(value)}. Use true or false.")

    def count(self, name: str, default: int, *, minimum: int = 0, maximum: int | None = None) -> int:
        """Returns a whole number from `minimum` to `maximum`, both included."""
        value = self.text(name, str(default))
        bounds = f"at least {minimum}" if maximum is None else f"{minimum} to {maximum}"
        number = int(value) if re.fullmatch(rf"-?\d{{1,{_DIGITS}}}", value) else None
        if number is None or number < minimum or (maximum is not None and number > maximum):
            raise SettingsError(f"{name} is {shown(value)}. Use a whole number, {bounds}.")
        return number

    def seconds(self, name: str, default: float, *, minimum: float = 0.0) -> float:
        """Returns a duration in seconds.

        The variable has plain seconds ("15", "0.5") or units ("10m", "1h30m", "500ms"), at most 68 years.
        """
        value = self.text(name, str(default))
        seconds = _seconds(value)
        if seconds is None or not minimum <= seconds <= _LONGEST:
            unit = "second" if minimum == 1 else "seconds"
            least = f" of at least {minimum:g} {unit}" if minimum else ""
            if seconds is not None and seconds > _LONGEST:
                least = " of at most 68 years"
            raise SettingsError(
                f"{name} is {shown(value)}. Use a duration{least}, such as 15s, 10m or 1h30m."
            )
        return seconds


def _parts(value: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in value.split(","))


def shown(value: str) -> str:
    """Returns a wrong value as an error message quotes it: on one line, truncated if it is very long."""
    return repr(value) if len(value) <= _SHOWN else f"{value[:_SHOWN]!r}... ({len(value)} characters)"


def _seconds(text: str) -> float | None:
    """Returns the seconds of "15" or "1h30m", None for anything else. Go's own syntax requires a unit."""
    if re.fullmatch(r"\d+(\.\d+)?", text, re.ASCII):
        text += "s"
    try:
        return parse_duration(text).total_seconds()
    except TooLongError:
        return math.inf
    except ValueError:
        return None
