"""The status that a reconcile writes: its conditions, and the merge patch of the differences."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Annotated, Any, NamedTuple, Protocol, TypeVar, cast, get_args

import msgspec

from pilothouse.api import field
from pilothouse.kube import Condition, encodable
from pilothouse.kube.errors import shorten
from pilothouse.playbook.arguments import (
    REASON_LENGTH,
    require_condition_type,
    require_reason,
    shown,
    with_article,
)
from pilothouse.playbook.awaited import PlaybookError
from pilothouse.telemetry import now, redacted, redacted_reason


class Status(msgspec.Struct, frozen=True, gc=False, kw_only=True, rename="camel", omit_defaults=True):
    """The status of a kind, with the two fields that the engine writes. Subclass it to add your own.

    ::

        class WebSiteStatus(Status, frozen=True):
            url: Annotated[str, field("Where the site is served.")] = ""

    A subclass inherits the camelCase names, and fields that have their default are omitted. Its own fields
    come before these two. Each needs a default, because a new object has no status.

    Attributes:
        observed_generation: The metadata.generation that the status describes.
        conditions: The conditions, including Ready.
    """

    observed_generation: Annotated[
        int,
        field(
            "The metadata.generation that the status describes. If it is lower than that of the object, the "
            "last change of the spec has not been reconciled yet.",
            title="Observed generation",
            descriptors=("text",),
            format="int64",
            minimum=0,
        ),
    ] = 0
    conditions: Annotated[
        tuple[Condition, ...],
        field(
            "`Ready` is True while the object matches its spec. Otherwise its reason and message describe "
            "what is missing and what to do.",
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
        """The conditions, including Ready."""


S = TypeVar("S", bound=PlayStatus)
V = TypeVar("V")

# The type of the condition that the engine writes.
READY = "Ready"

# Messages are truncated to this length. metav1.Condition allows 32768 bytes, but people read this.
MESSAGE_LENGTH = 2048

STATUS = {True: "True", False: "False", None: "Unknown"}


def shortened(text: str) -> str:
    """Returns a message for people without secret values, truncated if it is very long.

    Secret values are hidden before, because a part of one would not be recognized.
    """
    return shorten(encodable(redacted(text)), MESSAGE_LENGTH)


class Aspect(NamedTuple):
    """The desired state of a condition.

    Attributes:
        type: The type of the condition, in CamelCase.
        status: Its status; None means Unknown.
        reason: Its reason, for machines, in CamelCase.
        message: Its message, for people.
    """

    type: str
    status: bool | None
    reason: str
    message: str


def checked_status(status: V, current: V, obj: object) -> V:
    """Returns a status that a task sets, unless it or the value of a field is of another type than declared.

    Python and msgspec do not check the fields of a Struct when it is created. The API server would refuse the
    status after the last task, where no error names the task.

    Args:
        status: The status that a task sets.
        current: The status before.
        obj: The object, whose view declares the type of the status.

    Returns:
        The status. Values that JSON expresses in the same way get the declared types: a list becomes a
        tuple. A lone surrogate, which JSON cannot express, becomes a question mark.

    Raises:
        PlaybookError: The text names the field.
    """
    if status is current:
        return status
    if status is None or (type(status) is not type(current) and type(status) not in _declared(obj)):
        expected = next((each for each in _declared(obj) if each is not type(None)), type(current)).__name__
        raise PlaybookError(
            f"play.status is {shown(status)}, but must be {with_article(expected)}. To change fields of it, "
            "write play.status = replace(play.status, ...), where replace is from msgspec.structs."
        )
    if not isinstance(status, msgspec.Struct) or status == current:
        return status
    try:
        converted: V = msgspec.convert(_encodable(msgspec.to_builtins(status)), type(status))
    except (TypeError, ValueError, OverflowError) as error:
        raise PlaybookError(
            f"play.status has a value of the wrong type: {error}. Set the field to a value of the type that "
            f"{type(status).__name__} declares."
        ) from None
    known = getattr(current, "conditions", None) or ()
    for condition in getattr(converted, "conditions", ()):
        if condition not in known:
            _require_condition(condition)
    return status if converted == status else converted


def _encodable(status: Any) -> Any:
    """Returns a status as builtins without lone surrogates, such as those in the names of files."""
    try:
        msgspec.json.encode(status)
    except UnicodeEncodeError:
        return _replaced(status)
    return status


def _replaced(value: Any) -> Any:
    if isinstance(value, str):
        return encodable(value)
    if isinstance(value, dict):
        return {_replaced(name): _replaced(each) for name, each in value.items()}
    return [_replaced(each) for each in value] if isinstance(value, list | tuple) else value


def _require_condition(condition: Condition) -> None:
    """Refuses a condition that a task puts into the status itself, if the API server would refuse it."""
    what = "a condition of play.status"
    require_condition_type(condition.type, what)
    what = f"the condition {condition.type} of play.status"
    if condition.status not in STATUS.values():
        raise PlaybookError(
            f"{what}: the status is {shown(condition.status)}, but must be True, False or Unknown"
        )
    require_reason(condition.reason, what, REASON_LENGTH)


def _declared(obj: object) -> tuple[type, ...]:
    """Returns the classes that the view of an object declares for its status, such as TicketStatus."""
    fields = msgspec.structs.fields(type(obj)) if isinstance(obj, msgspec.Struct) else ()
    return next((tuple(_classes(each.type)) for each in fields if each.name == "status"), ())


def _classes(declared: Any) -> Iterator[type]:
    if isinstance(declared, type):
        yield declared
    else:
        for each in get_args(declared):
            yield from _classes(each)


def with_conditions(
    status: S, generation: int, aspects: Iterable[Aspect], *, observed_generation: int | None = None
) -> S:
    """Returns a status with some of its conditions set. The other conditions are not changed.

    Args:
        status: The status that the tasks have set.
        generation: The metadata.generation that the conditions describe.
        aspects: The conditions to set.
        observed_generation: The generation that was reconciled; None keeps the status's observedGeneration.
    """
    conditions = status.conditions
    for aspect in aspects:
        conditions = _with_condition(conditions, aspect, generation)
    if observed_generation is None:
        observed_generation = status.observed_generation
    if conditions is status.conditions and observed_generation == status.observed_generation:
        return status
    # PlayStatus cannot be declared as a Struct: protocols do not inherit from classes.
    changed: S = msgspec.structs.replace(
        cast("Any", status), observed_generation=observed_generation, conditions=conditions
    )
    return changed


def merge_patch(old: PlayStatus, new: PlayStatus) -> dict[str, object]:
    """Returns the JSON merge patch (RFC 7386) from `old` to `new`. It is empty if they are equal."""
    if old == new:
        return {}
    return _difference(msgspec.to_builtins(old), msgspec.to_builtins(new))


def not_stored(old: PlayStatus, new: PlayStatus, stored: PlayStatus) -> list[str]:
    """Returns the fields that a write changed and that are not stored as written.

    Args:
        old: The status before the write.
        new: The status that was written.
        stored: The status that is stored now.
    """
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
    """Returns a condition.

    Args:
        aspect: Its desired state.
        generation: The metadata.generation that it describes.
        since: When its status last changed; by default now.
    """
    return Condition(
        type=aspect.type,
        status=STATUS[aspect.status],
        reason=redacted_reason(aspect.reason),
        message=shortened(aspect.message),
        last_transition_time=since or now().replace(microsecond=0),  # metav1.Time has whole seconds
        observed_generation=generation,
    )


def _with_condition(
    conditions: tuple[Condition, ...], aspect: Aspect, generation: int
) -> tuple[Condition, ...]:
    value, reason = STATUS[aspect.status], redacted_reason(aspect.reason)
    message = shortened(aspect.message)
    condition = None
    for old in conditions:
        if old.type != aspect.type:
            continue
        if old.status == value:
            if (old.reason, old.message, old.observed_generation) == (reason, message, generation):
                return conditions
            # lastTransitionTime is when the status changed, not when the condition was last written.
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
