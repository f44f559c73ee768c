"""Objects as JSON, as the model of the API server keeps them."""

from typing import Any, TypeAlias

import msgspec

Json: TypeAlias = dict[str, Any]
"""An object as JSON."""


def as_json(body: object) -> Any:
    """Return a request's body, of whatever kind the client takes, as the server reads it."""
    return msgspec.json.decode(body if isinstance(body, bytes) else msgspec.json.encode(body))
