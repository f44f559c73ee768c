"""The status at the end of a play: its conditions, and the patch that changes only what differs."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Annotated, Any, NamedTuple, Protocol, TypeVar, cast

import msgspec

from pilothouse.api import field
from pilothouse.kube import Condition, encodable
from pilothouse.telemetry import now, redacted


class Status(msgspec.Struct, frozen=True, gc=False, kw_only=True, rename="camel", omit_defaults=True):
    """The status of a kind: the two fields that the engine writes. Subclass it to add your own.

    ::

        class WebSiteStatus(Status, frozen=True):
            url: Annotated[str, field("Where the site is served.")] = ""

    A subclass inherits the names in camelCase and leaves out fields that have their default. Its own fields
    come before these two, and every one needs a default: a new object has no status.

    Attributes:
        observed_generation: The metadata.generation that the status describes.
        conditions: The conditions, Ready among them.
    """

    observed_generation: Annotated[
        int,
        field(
            "The metadata.generation that the status describes: the newest one once a change has been seen.",
            title="Observed generation",
            descriptors=("text",),
            format="int64",
            minimum=0,
        ),
    ] = 0
    conditions: Annotated[
        tuple[Condition, ...],
        field(
            "`Ready` is True while everything is as the spec asks; its reason and message say what is "
            "missing and what to do.",
            title="Conditions",
            descriptors=("io.kubernetes.conditions",),
            map_keys=("type",),
        ),
    ] = ()


class PlayStatus(Protocol):
    """What the engine needs of a status: a frozen msgspec Struct with these fields, such as a `Status`."""

    @property
    def observed_generation(self) -> int:
        """The generation that the status describes."""

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """The conditions, Ready among them."""


S = TypeVar("S", bound=PlayStatus)

# The condition that the engine keeps.
READY = "Ready"

# metav1.Condition: at most 32768 bytes; a sentence for people is shorter.
MESSAGE_LENGTH = 2048

STATUS = {True: "True", False: "False", None: "Unknown"}


class Aspect(NamedTuple):
    """What a condition shall say.

    Attributes:
        type: Which aspect of the object: CamelCase.
        status: Whether it is so; None: it is not known.
        reason: Why, for machines: CamelCase.
        message: Why, for people.
    """

    type: str
    status: bool | None
    reason: str
    message: str


def with_conditions(
    status: S, generation: int, aspects: Iterable[Aspect], *, observed_generation: int | None = None
) -> S:
    """The status with some conditions; the others stay as they are.

    Args:
        status: The status that the tasks want.
        generation: The metadata.generation that the conditions describe.
        aspects: What they shall say.
        observed_generation: The generation that was acted on; None: the status describes the same as before.
    """
    conditions = status.conditions
    for aspect in aspects:
        conditions = _with_condition(conditions, aspect, generation)
    if observed_generation is None:
        observed_generation = status.observed_generation
    if conditions is status.conditions and observed_generation == status.observed_generation:
        return status
    # PlayStatus cannot say that it is a Struct: protocols do not inherit from classes.
    changed: S = msgspec.structs.replace(
        cast("Any", status), observed_generation=observed_generation, conditions=conditions
    )
    return changed


def merge_patch(old: PlayStatus, new: PlayStatus) -> dict[str, object]:
    """The JSON merge patch (RFC 7386) that makes `old` into `new`; empty when they are equal."""
    if old == new:
        return {}
    return _difference(msgspec.to_builtins(old), msgspec.to_builtins(new))


def not_stored(old: PlayStatus, new: PlayStatus, stored: PlayStatus) -> list[str]:
    """Return the fields that a write was to change and that are not stored as written."""
    return _common(merge_patch(old, new), merge_patch(stored, new), "")


def _common(one: Mapping[str, object], other: Mapping[str, object], path: str) -> list[str]:
    found: list[str] = []
    for name in one.keys() & other.keys():
        mine, others = one[name], other[name]
        if isinstance(mine, dict) and isinstance(others, dict):
            found.extend(_common(mine, others, f"{path}{name}."))
        else:
            found.append(f"{path}{name}")
    return sorted(found)


def condition_of(aspect: Aspect, generation: int, *, since: datetime | None = None) -> Condition:
    """The condition that an aspect is written as.

    Args:
        aspect: What the condition shall say.
        generation: The metadata.generation that it describes.
        since: When its status last changed; None: now.
    """
    return Condition(
        type=aspect.type,
        status=STATUS[aspect.status],
        reason=aspect.reason,
        message=encodable(redacted(aspect.message)[:MESSAGE_LENGTH]),
        last_transition_time=since or now().replace(microsecond=0),  # metav1.Time has whole seconds
        observed_generation=generation,
    )


def _with_condition(
    conditions: tuple[Condition, ...], aspect: Aspect, generation: int
) -> tuple[Condition, ...]:
    value = STATUS[aspect.status]
    message = encodable(redacted(aspect.message)[:MESSAGE_LENGTH])
    condition = None
    for old in conditions:
        if old.type != aspect.type:
            continue
        if old.status == value:
            if (old.reason, old.message, old.observed_generation) == (aspect.reason, message, generation):
                return conditions
            # It is the time when status changed, not when the condition was last written.
            condition = condition_of(aspect, generation, since=old.last_transition_time)
        break
    condition = condition or condition_of(aspect, generation)
    if any(each.type == aspect.type for each in conditions):
        return tuple(condition if each.type == aspect.type else each for each in conditions)
    return (*conditions, condition)


def _difference(old: Mapping[str, object], new: Mapping[str, object]) -> dict[str, object]:
    patch: dict[str, object] = {}
    for name, value in new.items():
        before = old.get(name)
        if isinstance(value, dict) and isinstance(before, dict):
            if inner := _difference(before, value):
                patch[name] = inner
        elif name not in old or value != before:
            patch[name] = value
    patch.update((name, None) for name in old if name not in new)
    return patch
