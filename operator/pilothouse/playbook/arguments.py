"""Checks of what an author passes to the methods of a play: a mistake is one sentence that helps.

Without them, a wrong argument fails somewhere inside the framework, or passes silently.
"""

import inspect
import re
from collections.abc import Callable, Sequence
from typing import Any

from pilothouse.api import Kind
from pilothouse.kube import ObjectKey, Resource, can_be_name
from pilothouse.kube.resource import require_flags as kube_require_flags
from pilothouse.kube.resource import require_no_duplicates as kube_require_no_duplicates
from pilothouse.playbook.awaited import PlaybookError
from pilothouse.telemetry import redacted

# metav1.Condition: the patterns and the lengths of the reason and the type.
REASON = re.compile("[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?", re.ASCII)
REASON_LENGTH = 1024
_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_TYPE = re.compile(rf"({_LABEL}(\.{_LABEL})*/)?([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]", re.ASCII)
_TYPE_LENGTH = 316
# The reason of an Event (kubernetes pkg/apis/core/validation/events.go). Longer ones would be truncated.
EVENT_REASON_LENGTH = 128

_NUMBERS = {2: "two", 3: "three"}

# The longest text of a value in an error.
_SHOWN_LENGTH = 60


def shown(value: object) -> str:
    """Returns a value for an error: a short text or number as it is, anything else by its type.

    A Resource or a Kind is shown with the name of its kind, because a repr has all of its attributes.
    """
    if value is None or isinstance(value, bool | float):
        return repr(value)
    if isinstance(value, int) and value.bit_length() <= 64:
        return repr(value)
    if isinstance(value, str):
        # Redact before truncating: a part of a secret value would not be recognized.
        value = redacted(value)
        text = repr(value[:_SHOWN_LENGTH])
        return f"{text}..." if len(value) > _SHOWN_LENGTH else text
    if isinstance(value, Resource):
        return f"the Resource {value.kind}"
    if isinstance(value, Kind):
        return f"the Kind {value.resource.kind}"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if callable(value):
        return f"the function {getattr(value, '__name__', type(value).__name__)}"
    if isinstance(value, bytes):
        return "bytes"
    return with_article(type(value).__name__)


def with_article(name: str) -> str:
    """Returns the name of a type with its article: "an int", "a UUID", "an SSLContext"."""
    if name[1:2].isupper():  # An abbreviation, which is spelled.
        vowel = name[0] in "AEFHILMNORSX"
    else:
        vowel = name[:1].lower() in "aeiou" and not name.lower().startswith(("uni", "use"))
    return f"{'an' if vowel else 'a'} {name}"


def enumerated(names: Sequence[str], limit: int) -> str:
    """Returns the first names for a sentence, and the number of the others: "a, b, c and 2 more"."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return f"{', '.join(names[:limit])}{more}"


def require_text(value: object, what: str) -> None:
    """Refuses a value that is not text.

    Raises:
        PlaybookError: The value is not a str.
    """
    if not isinstance(value, str):
        raise PlaybookError(f"{what} is {shown(value)}, but must be text")


def require_event_reason(reason: object, what: str) -> None:
    """Refuses the reason of an Event that is neither in CamelCase nor in Title Case.

    The API server accepts any text. Operators that replace an older one keep its reasons, such as "New Member
    Added".

    Args:
        reason: The reason.
        what: Whose reason it is, for the error: "play.event".

    Raises:
        PlaybookError: It is something else, is empty, or has more than 128 characters.
    """
    words = reason.split(" ") if isinstance(reason, str) and len(reason) <= EVENT_REASON_LENGTH else ()
    if len(words) < 2 or not all(word[:1].isupper() and REASON.fullmatch(word) for word in words):
        require_reason(reason, what)


def require_reason(reason: object, what: str, length: int = EVENT_REASON_LENGTH) -> None:
    """Refuses the reason of a condition that the API server would refuse.

    Args:
        reason: The reason.
        what: Whose reason it is, for the error: "TaskFailed".
        length: The number of characters that it may have.

    Raises:
        PlaybookError: It is not in CamelCase, is empty, or is too long.
    """
    if isinstance(reason, str) and REASON.fullmatch(reason) and len(reason) <= length:
        return
    if isinstance(reason, str) and len(reason) > length:
        raise PlaybookError(
            f"{what}: the reason {shown(reason)} has {len(reason)} characters. Use at most {length}, and put "
            "the details into the message."
        )
    raise PlaybookError(
        f"{what}: the reason is {shown(reason)}, but must be one word in CamelCase, such as "
        "AirlineUnreachable. Put the sentence into the message."
    )


def require_condition_type(type_: object, what: str) -> None:
    """Refuses a condition's type that the API server would refuse.

    Raises:
        PlaybookError: It is not in CamelCase, is empty, or is too long.
    """
    if not (isinstance(type_, str) and _TYPE.fullmatch(type_) and len(type_) <= _TYPE_LENGTH):
        raise PlaybookError(
            f"{what}: the type is {shown(type_)}, but must be one word in CamelCase of at most "
            f"{_TYPE_LENGTH} characters, such as BackedUp"
        )


def require_flags(call: str, **flags: object) -> None:
    """Refuses flags that are neither True nor False: the text "no" counts as true, and None as false.

    Args:
        call: The method, for the error: "play.apply".
        flags: The values by the names of their arguments.

    Raises:
        PlaybookError: A value is something else, such as a text, a number or None.
    """
    try:
        kube_require_flags(call, **flags)
    except TypeError as error:
        raise PlaybookError(str(error)) from None


def require_list(where: str, **values: object) -> None:
    """Refuses a single value where a list is expected.

    Args:
        where: What has the lists, for the error: "The Watch of tickets.tests.dev".
        values: The values by the names of their arguments.

    Raises:
        PlaybookError: A value is not a list or tuple.
    """
    for name, value in values.items():
        if not isinstance(value, list | tuple):
            raise PlaybookError(
                f"{where}: {name} is {shown(value)}, which is not a list. Pass a list: {name}=[...]."
            )


def require_no_duplicates(
    where: str, named: Callable[[Any], str] = shown, /, **values: Sequence[object]
) -> None:
    """Refuses an item that a list has twice.

    Args:
        where: What has the lists, for the error: "The Watch of tickets.tests.dev".
        named: Returns the text of an item, for the error.
        values: The lists by the names of their arguments.

    Raises:
        PlaybookError: A list has an item twice.
    """
    try:
        kube_require_no_duplicates(where, named, **values)
    except TypeError as error:
        raise PlaybookError(str(error)) from None


def require_count(value: object, what: str) -> None:
    """Refuses a number that is not a whole number of at least 0.

    Raises:
        PlaybookError: It is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise PlaybookError(f"{what} is {shown(value)}, but must be a whole number of at least 0")


def require_resource(resource: object, call: str) -> None:
    """Refuses a value in place of a kind.

    Args:
        resource: The value.
        call: The method and its argument, for the error: "play.apply".

    Raises:
        PlaybookError: It is not a Resource.
    """
    if isinstance(resource, Resource):
        return
    if isinstance(resource, Kind):
        hint = f"Pass its attribute `resource`: the kind {resource.resource.kind} has one."
    elif isinstance(resource, type):
        hint = f"Pass the Resource whose view is {resource.__name__}."
    else:
        hint = "Pass a Resource, such as CONFIG_MAP (from pilothouse import CONFIG_MAP)."
    raise PlaybookError(f"{call}: the kind is {shown(resource)}, which is not a Resource. {hint}")


def object_key(resource: Resource[Any], name: object, namespace: object, own: str, call: str) -> ObjectKey:
    """Returns the key of an object that an author names.

    Args:
        resource: The kind.
        name: The name of the object.
        namespace: Its namespace; empty: that of the play's object.
        own: The namespace of the play's object; empty if it has none.
        call: The method, for the error: "play.get".

    Raises:
        PlaybookError: An object of the kind cannot have this name, or this namespace.
    """
    what = f"{call}({resource.kind})"
    if not isinstance(name, str) or not name:
        raise PlaybookError(f"{what}: the name is {shown(name)}, but must be the name of an object")
    if not isinstance(namespace, str):
        raise PlaybookError(f"{what}: the namespace is {shown(namespace)}, but must be text")
    for word, value in (("name", name), ("namespace", namespace)):
        if not can_be_name(value):
            raise PlaybookError(
                f"{what}: the {word} {value!r} is not valid, because a {word} must not contain '/' or '%', "
                "or be '.' or '..'"
            )
    if not resource.namespaced:
        if namespace:
            raise PlaybookError(
                f"{what}: the kind is cluster-scoped, so its objects have no namespace. Remove "
                f"namespace={namespace!r}."
            )
        return ObjectKey("", name)
    if not (namespace or own):
        raise PlaybookError(
            f"{what}: the object {name!r} needs a namespace, because the play's object has none. Pass "
            "namespace=..."
        )
    return ObjectKey(namespace or own, name)


def require_plain_function(function: object, what: str, *arguments: str) -> None:
    """Refuses a value in place of a function that the engine calls.

    Args:
        function: The value.
        what: What the function is for, for the error: "the index 'secret' of ...".
        arguments: The arguments with which it is called, in words.

    Raises:
        PlaybookError: It cannot be called, cannot take the arguments, or is an async function.
    """
    if not callable(function):
        raise PlaybookError(f"{what} is {shown(function)}, but must be a function")
    if inspect.iscoroutinefunction(function):
        raise PlaybookError(f"{what} is an async def. Make it a plain def.")
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError:
        number = "one argument" if len(arguments) == 1 else f"{_NUMBERS[len(arguments)]} arguments"
        raise PlaybookError(f"{what} must take {number}: {' and '.join(arguments)}") from None
    except ValueError:
        return  # A function of C has no signature to check.


# What CPython reports about a call whose arguments do not match. It has the names of arguments, not values.
_WRONG_CALL = re.compile(r"(Play|ObjectModules|Task|TaskFailed|Waiting)\.(\w+)\(\) (missing|takes|got) (.*)")


def wrong_call(error: TypeError, known: Callable[[str, str], object]) -> PlaybookError | None:
    """Returns the mistake for an error of Python about the arguments of a method of the framework.

    Args:
        error: The error.
        known: Returns the method, given the names of the class and the method; None if there is none.

    Returns:
        The mistake; None if the error is about something else.
    """
    found = _WRONG_CALL.fullmatch(str(error))
    method = known(found[1], found[2]) if found else None
    if found is None or not callable(method):
        return None
    call = found[1] if found[2] == "__init__" else f"play.{found[2]}"
    if found[2] == "__call__":
        call = "the task"
    why = f"{found[3]} {found[4]}"
    if found[3] == "takes":
        why = "got too many positional arguments"
    names = ", ".join(_named(each) for each in inspect.signature(method).parameters.values())
    shown_names = names.removeprefix("self, ")
    return PlaybookError(f"{call} {why.rstrip('.')}. Its arguments are: {shown_names}.")


def _named(parameter: inspect.Parameter) -> str:
    return parameter.name if parameter.default is parameter.empty else f"[{parameter.name}]"


def wrong_attribute(name: str, play: object) -> PlaybookError:
    """Returns the mistake for an attribute that the play does not have, such as a misspelled module."""
    import difflib  # Imported only for a mistake, to save memory in a running operator.

    found = difflib.get_close_matches(name, [each for each in dir(play) if each[0] != "_"], n=1)
    hint = f"Did you mean play.{found[0]}?" if found else "Set it in an earlier task, or correct the name."
    return PlaybookError(f"play.{name} does not exist. {hint}")
