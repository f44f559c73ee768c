"""The sentence for an attempt to change a frozen object in place, such as `play.status.phase = "Ready"`.

It is imported only for a mistake, to save memory in a running operator.
"""

import ast
import re

from pilothouse.playbook.awaited import PlaybookError
from pilothouse.playbook.failed_code import failed_expression

# What msgspec reports about an assignment to a field of a frozen Struct.
_FROZEN = re.compile(r"immutable type: '(.+)'")
_FIELD = re.compile(r"play\.status\.(\w+)")
_TUPLE = "'tuple' object does not support item"
_LIST_METHODS = {"append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort"}
_REPLACE = "where replace is from msgspec.structs"


def changed_in_place(error: AttributeError | TypeError) -> PlaybookError | None:
    """Returns the mistake for an error of Python about a change of a frozen object or of a tuple in it.

    Returns:
        The mistake; None if the error is about something else.
    """
    frozen = _FROZEN.fullmatch(str(error))
    method = error.name if isinstance(error, AttributeError) and isinstance(error.obj, tuple) else ""
    if not (frozen or method in _LIST_METHODS or str(error).startswith(_TUPLE)):
        return None
    code = failed_expression(error.__traceback__)
    place = ast.unparse(code).removesuffix(f".{method}") if code is not None else ""
    if field := _FIELD.match(place):
        return PlaybookError(
            f"{place} cannot be changed in place, because the status is frozen. Write play.status = "
            f"replace(play.status, {field[1]}=...), {_REPLACE}."
        )
    if place.startswith("play.object."):
        return PlaybookError(
            f"{place} cannot be changed in place, because play.object is frozen. To change the object in the "
            "cluster, use play.patch; to change its status, set play.status."
        )
    if frozen is None:
        return None  # A tuple of the author.
    what = f"{place} cannot be set" if isinstance(code, ast.Attribute) else "a field cannot be set"
    return PlaybookError(
        f"{what}, because {frozen[1]} is frozen. Make a changed copy: replace(..., field=...), {_REPLACE}."
    )
