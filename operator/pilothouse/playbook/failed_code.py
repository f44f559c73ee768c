"""The expression of an author's code that raised an error, for a sentence that quotes it.

It is imported only for a mistake, to save memory in a running operator.
"""

import ast
import linecache
from collections.abc import Iterator
from types import CodeType, FrameType, TracebackType

_PACKAGES = ("asyncio", "pilothouse")


def failed_expression(traceback: TracebackType | None) -> ast.AST | None:
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
