"""The settings of the flights operator, read from environment variables."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pilothouse import Environment


@dataclass(frozen=True)
class FlightsSettings:
    """The settings. Each attribute names its variable. Durations are in seconds, or have units ("10m")."""

    url: str
    """AIRLINE_URL: The base URL of the booking API, for example http://booking-api.airline.svc."""
    key_file: Path
    """AIRLINE_API_KEY_FILE: The file with the API key, from a mounted Secret. The operator reads it
    again when it is rotated."""
    timeout: float = 5.0
    """AIRLINE_TIMEOUT: The longest time that one request may take, in seconds."""
    connections: int = 16
    """AIRLINE_CONNECTIONS: The maximum number of open connections. The default is that of
    MAX_CONCURRENT_RECONCILES."""
    rate: int = 100
    """AIRLINE_RATE: The maximum number of requests per second. After a quiet period, a burst may
    have twice as many."""
    # RESYNC_PERIOD is a setting of every operator. Here it is also how often a booked ticket is compared with
    # its booking.
    resync: float = 600.0

    @classmethod
    def load(cls, variables: Mapping[str, str]) -> "FlightsSettings":
        """Reads the settings from environment variables.

        Args:
            variables: The environment variables, for example `os.environ`.

        Raises:
            SettingsError: A variable is missing or has a wrong value.
        """
        env = Environment(variables)
        return cls(
            url=env.url("AIRLINE_URL", example="http://booking-api.airline.svc"),
            key_file=Path(env.text("AIRLINE_API_KEY_FILE")),
            timeout=env.seconds("AIRLINE_TIMEOUT", cls.timeout, minimum=0.1),
            connections=env.count("AIRLINE_CONNECTIONS", cls.connections, minimum=1, maximum=1000),
            rate=env.count("AIRLINE_RATE", cls.rate, minimum=1, maximum=100_000),
            resync=env.seconds("RESYNC_PERIOD", cls.resync),
        )
