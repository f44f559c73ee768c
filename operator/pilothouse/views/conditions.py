"""The conditions of built-in kinds."""

from collections.abc import Iterable
from sys import intern

import msgspec
from msgspec.structs import force_setattr


class StatusCondition(msgspec.Struct, frozen=True, gc=False):
    """A condition of a built-in kind. Unlike in a `Condition`, reason and message may be empty.

    Attributes:
        type: The aspect, such as Available.
        status: True, False or Unknown.
        reason: The reason for the status, as one word for programs.
        message: The reason for the status, for people.
    """

    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""

    def __post_init__(self) -> None:
        # These values are the same for most objects of a kind, so each is kept in memory only once.
        for name in ("type", "status", "reason"):
            force_setattr(self, name, intern(getattr(self, name)))


def condition_of(conditions: Iterable[StatusCondition], type: str) -> StatusCondition | None:  # noqa: A002
    """Returns the condition of the given type, or None if the object does not have it."""
    return next((each for each in conditions if each.type == type), None)
