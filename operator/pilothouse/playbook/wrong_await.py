"""The sentence for an `await` of something that cannot be awaited, such as the result of `play.get`.

It is imported only for a mistake, to save memory in a running operator.
"""

import ast
import inspect
import linecache
from collections.abc import Iterator
from types import CodeType, FrameType, TracebackType

from pilothouse.playbook.awaited import PlaybookError
from pilothouse.playbook.play import Play

_PACKAGES = ("asyncio", "pilothouse")


def wrong_await(error: TypeError | RuntimeError, otherwise: str) -> PlaybookError:
    """Returns the mistake for an error of Python about a value that cannot be awaited.

    Args:
        error: The error.
        otherwise: The sentence if the source code is unknown.
    """
    source = _failed_statement(error.__traceback__)
    if source is None:
        return PlaybookError(otherwise)
    if name := _not_async(source):
        return PlaybookError(f"play.{name} is not async: remove `await` before the call.")
    if name := _awaited_twice(source):
        return PlaybookError(f"The result of play.{name} is awaited twice: remove one `await`.")
    return PlaybookError(f"{otherwise} The code is: {ast.unparse(source)[:200]}")


def _not_async(source: ast.AST) -> str:
    """Returns the name of a method of the play that is called as if it were async; empty if there is none."""
    for node in ast.walk(source):
        name = _method(node)
        if name and not hasattr(getattr(Play, name), "__awaited__"):
            return name
    return ""


def _awaited_twice(source: ast.AST) -> str:
    for node in ast.walk(source):
        if isinstance(node, ast.Await) and isinstance(node.value, ast.Await):
            return _method(node.value.value)
    return ""


def _method(node: ast.AST) -> str:
    """Returns the name of the method of the play that a node calls; empty if it calls something else."""
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
        return ""
    name = node.func.attr
    return name if inspect.isfunction(getattr(Play, name, None)) else ""


def _failed_statement(traceback: TracebackType | None) -> ast.AST | None:
    """Returns the expression of the author's code that failed; None if its source is unknown."""
    found = None
    for frame, at in _frames(traceback):
        package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if package not in _PACKAGES:
            found = frame, at
    return _parsed(*found) if found else None


def _frames(traceback: TracebackType | None) -> Iterator[tuple[FrameType, int]]:
    while traceback is not None:
        yield traceback.tb_frame, traceback.tb_lasti
        traceback = traceback.tb_next


def _parsed(frame: FrameType, at: int) -> ast.AST | None:
    """Returns the expression at an instruction; None if the source is unknown."""
    code: CodeType = frame.f_code
    place = list(code.co_positions())[at // 2]
    try:
        module = ast.parse("".join(linecache.getlines(code.co_filename, frame.f_globals)))
    except SyntaxError:
        return None
    for node in ast.walk(module):
        if isinstance(node, ast.AsyncFor) and node.lineno == place[0]:
            return node.iter
        if isinstance(node, ast.AsyncWith) and node.lineno == place[0] and len(node.items) == 1:
            return node.items[0].context_expr
        if isinstance(node, ast.expr) and _place(node) == place:
            return node
    return None


def _place(node: ast.expr) -> tuple[int | None, int | None, int | None, int | None]:
    return node.lineno, node.end_lineno, node.col_offset, node.end_col_offset
