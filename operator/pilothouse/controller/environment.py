"""Reading settings from environment variables, with one sentence for each mistake."""

import re
from collections.abc import Mapping, Sequence
from typing import TypeVar

T = TypeVar("T", bound=str)

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
# What a namespace may be called: RFC 1123, as the API server reads it (apimachinery, IsDNS1123Label).
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
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
        value = self.text(name, "")
        names = tuple(part.strip() for part in value.split(",") if part.strip())
        if not all(_LABEL.fullmatch(each) for each in names):
            raise SettingsError(
                f"{name} is {value!r}: use names of namespaces, separated by commas; each has lower-case "
                "letters, digits and inner hyphens, 63 at most."
            )
        return names

    def choice(self, name: str, choices: Sequence[T], default: T) -> T:
        """One of several words, in any case."""
        value = self.text(name, default)
        for choice in choices:
            if value.lower() == choice.lower():
                return choice
        raise SettingsError(f"{name} is {value!r}: use one of {', '.join(choices)}.")

    def flag(self, name: str, default: bool) -> bool:
        """Whether a thing is on: true or false."""
        value = self.text(name, str(default)).lower()
        if value in _YES:
            return True
        if value in _NO:
            return False
        raise SettingsError(f"{name} is {value!r}: use true or false.")

    def count(self, name: str, default: int, *, minimum: int = 0, maximum: int | None = None) -> int:
        """A whole number within bounds, both included."""
        value = self.text(name, str(default))
        bounds = f"at least {minimum}" if maximum is None else f"{minimum} to {maximum}"
        number = int(value) if re.fullmatch(r"-?\d+", value) else None
        if number is None or number < minimum or (maximum is not None and number > maximum):
            raise SettingsError(f"{name} is {value!r}: use a whole number, {bounds}.")
        return number

    def seconds(self, name: str, default: float, *, minimum: float = 0.0) -> float:
        """A duration: plain seconds ("15", "0.5") or with units ("10m", "1h30m", "500ms").

        Returns:
            Seconds.
        """
        value = self.text(name, str(default))
        seconds = parse_duration(value)
        if seconds is None or seconds < minimum:
            least = f" of at least {minimum:g} seconds" if minimum else ""
            raise SettingsError(f"{name} is {value!r}: use a duration{least}, such as 15s, 10m or 1h30m.")
        return seconds


def parse_duration(text: str) -> float | None:
    """The seconds of a duration such as "15", "15s", "10m" or "1h30m"; None when it is none."""
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    return sum(float(number) * _UNITS[unit] for number, unit in parts)
