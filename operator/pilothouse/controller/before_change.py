"""Runs functions before each change of a reconcile, for a record that must be stored first."""

from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeAlias

BeforeChange: TypeAlias = Callable[[], Awaitable[None]]

_FUNCTIONS: ContextVar[tuple[BeforeChange, ...]] = ContextVar("pilothouse_before_change", default=())


@contextmanager
def before_each_change(function: BeforeChange) -> Generator[None]:
    """Runs a function before each change that passes the fence within the block.

    Changes that the function itself makes do not run it again. In nested blocks the outer function runs
    first.
    """
    token = _FUNCTIONS.set((*_FUNCTIONS.get(), function))
    try:
        yield
    finally:
        _FUNCTIONS.reset(token)


@contextmanager
def nothing_before_changes() -> Generator[None]:
    """Runs none of these functions within the block."""
    token = _FUNCTIONS.set(())
    try:
        yield
    finally:
        _FUNCTIONS.reset(token)


async def run_before_change() -> None:
    """Runs the functions of the current context, before a change."""
    functions = _FUNCTIONS.get()
    if not functions:
        return
    with nothing_before_changes():
        for function in functions:
            await function()
