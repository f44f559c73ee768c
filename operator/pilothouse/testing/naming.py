"""Checks names that a test contains as strings. An unknown name is refused with the most similar one."""

import difflib
from collections.abc import Collection, Iterable


def require_known(where: str, names: object, known: Iterable[str], what: str) -> None:
    """Raises an error unless all names are known.

    Args:
        where: The argument that holds the names, such as `Outside(reads=)`.
        names: The names: a collection of strings.
        known: The valid names.
        what: What a valid name is, with its article: "a method of Registry".

    Raises:
        TypeError: `names` is a single string, or contains something that is not a string.
        ValueError: A name is not known. The message gives the most similar one.
    """
    if isinstance(names, str):
        raise TypeError(f"{where} is the string {names!r}. Give a list: [{names!r}].")
    if not isinstance(names, Collection):
        raise TypeError(f"{where} is {names!r}. Give a list of names.")
    candidates = sorted(known)
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"{where} contains {name!r}, which is not a string. Give names.")
        if name not in candidates:
            raise ValueError(
                f"{where} contains {name!r}, which is not {what}. {suggestion(name, candidates)}"
            )


def suggestion(name: str, candidates: Collection[str]) -> str:
    """Returns a sentence with the most similar name, or with the known names if none is similar."""
    if near := difflib.get_close_matches(name, candidates, n=1):
        return f"Did you mean {near[0]!r}?"
    shown = ", ".join(map(repr, sorted(candidates)[:12])) or "none"
    return f"Known: {shown}."
