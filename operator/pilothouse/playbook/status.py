"""The status at the end of a play: the condition Ready, and the patch that changes only what differs."""

from collections.abc import Mapping
from typing import Any, TypeVar, cast

import msgspec

from pilothouse.kube import Condition
from pilothouse.playbook.play import READY, PlayStatus
from pilothouse.telemetry import now

S = TypeVar("S", bound=PlayStatus)

# metav1.Condition: at most 32768 bytes; a sentence for people is shorter.
MESSAGE_LENGTH = 2048


def with_ready(status: S, generation: int, *, ready: bool, reason: str, message: str) -> S:
    """The status with the condition Ready and observedGeneration.

    Args:
        status: The status that the tasks want.
        generation: The metadata.generation that the play acted on.
        ready: Whether the object is what its spec asks for.
        reason: Why, for machines: CamelCase.
        message: Why, for people.
    """
    value = "True" if ready else "False"
    old = next((condition for condition in status.conditions if condition.type == READY), None)
    condition = Condition(
        type=READY,
        status=value,
        reason=reason,
        message=message[:MESSAGE_LENGTH],
        # It tells when status changed, not when it was last looked at; metav1.Time has whole seconds.
        last_transition_time=(
            old.last_transition_time
            if old is not None and old.status == value
            else now().replace(microsecond=0)
        ),
        observed_generation=generation,
    )
    if condition == old and status.observed_generation == generation:
        return status
    conditions = tuple(condition if each is old else each for each in status.conditions)
    if old is None:
        conditions = (*conditions, condition)
    # PlayStatus cannot say that it is a Struct: protocols do not inherit from classes.
    changed: S = msgspec.structs.replace(
        cast("Any", status), observed_generation=generation, conditions=conditions
    )
    return changed


def merge_patch(old: PlayStatus, new: PlayStatus) -> dict[str, object]:
    """The JSON merge patch (RFC 7386) that makes `old` into `new`; empty when they are equal."""
    if old == new:
        return {}
    return _difference(msgspec.to_builtins(old), msgspec.to_builtins(new))


def _difference(old: Mapping[str, object], new: Mapping[str, object]) -> dict[str, object]:
    patch: dict[str, object] = {}
    for name, value in new.items():
        before = old.get(name)
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            if inner := _difference(before, value):
                patch[name] = inner
        elif name not in old or value != before:
            patch[name] = value
    patch.update((name, None) for name in old if name not in new)
    return patch
