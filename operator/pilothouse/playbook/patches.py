"""Changes to private attributes of the standard library: all that this package makes, in one place.

tests/unit/playbook/test_awaited.py fails when a Python release renames or ignores them. Checked with CPython
3.11 to 3.13.
"""

import warnings
from collections.abc import Callable, Coroutine
from typing import Any


def on_unawaited(handler: Callable[[Coroutine[Any, Any, Any]], bool]) -> None:
    """Has a function called with each coroutine that is dropped without having been started.

    Python only warns of those, once for each line. It calls what is replaced here to do so, in the context
    of the code that dropped the coroutine.

    Args:
        handler: Returns whether it has dealt with the coroutine. If not, Python warns.
    """
    warn = warnings._warn_unawaited_coroutine  # type: ignore[attr-defined]

    def handle(coroutine: Coroutine[Any, Any, Any]) -> None:
        if not handler(coroutine):
            warn(coroutine)

    warnings._warn_unawaited_coroutine = handle  # type: ignore[attr-defined]
