"""How the flights operator reaches the airline, read from its environment."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pilothouse import Environment


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
            url=env.url("AIRLINE_URL", example="http://booking-api.airline.svc"),
            key_file=Path(env.text("AIRLINE_API_KEY_FILE")),
            timeout=env.seconds("AIRLINE_TIMEOUT", cls.timeout, minimum=0.1),
            connections=env.count("AIRLINE_CONNECTIONS", cls.connections, minimum=1, maximum=1000),
            rate=env.count("AIRLINE_RATE", cls.rate, minimum=1, maximum=100_000),
            resync=env.seconds("RESYNC_PERIOD", cls.resync),
        )
