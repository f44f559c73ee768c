"""The conditions of built-in kinds."""

from collections.abc import Iterable
from sys import intern

import msgspec
from msgspec.structs import force_setattr


class StatusCondition(msgspec.Struct, frozen=True, gc=False):
    """A condition of a built-in kind. Unlike a `Condition`, it may have no reason and no message.

    Attributes:
        type: The aspect, such as Available.
        status: True, False or Unknown.
        reason: Why, for machines.
        message: Why, for people.
    """

    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""

    def __post_init__(self) -> None:
        # Most objects of a kind have the same few words.
        for name in ("type", "status", "reason"):
            force_setattr(self, name, intern(getattr(self, name)))


def condition_of(conditions: Iterable[StatusCondition], type: str) -> StatusCondition | None:  # noqa: A002
    """Returns the condition of a type; None when the object does not have it."""
    return next((each for each in conditions if each.type == type), None)
