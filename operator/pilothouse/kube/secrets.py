"""Recognizes v1 Secrets, and hides their values in every text.

Most requests are about other kinds, so the code that looks into a Secret is imported when there is one.
"""

import re
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from pilothouse.kube.resource import Resource
from pilothouse.telemetry.redaction import hide, hiding

_PATH = re.compile(r"/api/v1/(namespaces/[^/]+/)?secrets(/[^/]+)?")


def holds_secrets(resource: Resource[Any]) -> bool:
    """Whether the kind is v1 Secret."""
    return resource.kind == "Secret" and not resource.group


def is_secret_path(path: str) -> bool:
    """Whether a request's path is a path of v1 Secrets."""
    return _PATH.fullmatch(path) is not None


def hide_contents(resource: Resource[Any], obj: object) -> None:
    """Hides the values of a Secret in every text while the current object is being reconciled.

    Args:
        resource: The kind. Kinds other than Secret are ignored.
        obj: The Secret as decoded JSON or in a view. It must not be changed later.
    """
    if holds_secrets(resource):
        from pilothouse.kube.secret_values import values_of

        hide(lambda: values_of(obj))


def hiding_contents(resource: Resource[Any], *states: object) -> AbstractContextManager[None]:
    """Hides the values of a Secret in every text inside a block. For other kinds the block does nothing.

    It is for calls outside of a reconcile of functions that an author wrote, such as an index, and for the
    logging of their errors.

    Args:
        resource: The kind.
        *states: The states of the object; None is ignored.
    """
    if not holds_secrets(resource):
        return nullcontext()
    from pilothouse.kube.secret_values import values_of

    return hiding(lambda: [value for state in states if state is not None for value in values_of(state)])
