"""Objects as JSON, as the model of the API server keeps them."""

from typing import Any, TypeAlias

import msgspec

Json: TypeAlias = dict[str, Any]
"""An object as JSON."""


def as_json(body: object) -> Any:
    """Returns the body of a request, in any form that the client accepts, as the server decodes it."""
    return msgspec.json.decode(body if isinstance(body, bytes) else msgspec.json.encode(body))
