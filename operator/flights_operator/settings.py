"""How the flights operator reaches the airline, read from its environment."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from pilothouse.process import Environment, SettingsError
from pilothouse.process.environment import shown
from pilothouse.process.hosts import is_host, is_ipv6


@dataclass(frozen=True)
class FlightsSettings:
    """Each attribute names its variable; durations are seconds, or have units ("10m")."""

    url: str
    """AIRLINE_URL: the booking API's base URL, such as http://booking-api.airline.svc."""
    key_file: Path
    """AIRLINE_API_KEY_FILE: the file with the API key, a mounted Secret; read again when it is rotated."""
    timeout: float = 5.0
    """AIRLINE_TIMEOUT: how long one request may take, seconds."""
    connections: int = 16
    """AIRLINE_CONNECTIONS: connections at once; as many as there are workers by default."""
    rate: int = 100
    """AIRLINE_RATE: requests per second; twice as many at once after a quiet time."""
    # RESYNC_PERIOD, which every operator has: how often a booked ticket is compared with its booking.
    resync: float = 600.0

    @classmethod
    def load(cls, variables: Mapping[str, str]) -> "FlightsSettings":
        """Reads the settings from environment variables.

        Args:
            variables: Such as `os.environ`.

        Raises:
            SettingsError: A variable is missing or has a wrong value.
        """
        env = Environment(variables)
        return cls(
            url=base_url(env.text("AIRLINE_URL")),
            key_file=Path(env.text("AIRLINE_API_KEY_FILE")),
            timeout=env.seconds("AIRLINE_TIMEOUT", cls.timeout, minimum=0.1),
            connections=env.count("AIRLINE_CONNECTIONS", cls.connections, minimum=1, maximum=1000),
            rate=env.count("AIRLINE_RATE", cls.rate, minimum=1, maximum=100_000),
            resync=env.seconds("RESYNC_PERIOD", cls.resync),
        )


def base_url(text: str) -> str:
    """The URL with one slash at its end.

    Raises:
        SettingsError: It is no http or https URL of a possible host, or holds what belongs elsewhere.
    """
    example = "such as http://booking-api.airline.svc"
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError as error:
        # What cannot be parsed is not shown where credentials may be in it.
        value = "" if "@" in text else f"{shown(text)}, "
        raise SettingsError(f"AIRLINE_URL is {value}no URL ({error}): use one {example}.") from error
    if "@" in parts.netloc:
        raise SettingsError(f"AIRLINE_URL carries credentials: use one without, {example}.")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise SettingsError(f"AIRLINE_URL is {shown(text)}: use an http or https URL {example}.")
    # Of white space and backslashes each library thinks something else, so they are nowhere in it.
    if re.search(r"[\s\\]", text) or not text.isprintable():
        raise SettingsError(
            f"AIRLINE_URL is {shown(text)}: use a URL without blanks and backslashes, {example}."
        )
    if not (is_ipv6 if parts.netloc.startswith("[") else is_host)(parts.hostname):
        raise SettingsError(
            f"AIRLINE_URL is {shown(text)}, and {shown(parts.hostname)} can be no host: use a DNS name, an "
            f"IPv4 address or an [IPv6] address, {example}."
        )
    return text.rstrip("/") + "/"
