"""The sentence for an `await` of something that cannot be awaited, such as the result of `play.get`.

It is imported only for a mistake, to save memory in a running operator.
"""

import ast
import inspect

from pilothouse.playbook.awaited import PlaybookError
from pilothouse.playbook.failed_code import failed_expression
from pilothouse.playbook.play import Play


def wrong_await(error: TypeError | RuntimeError, otherwise: str) -> PlaybookError:
    """Returns the mistake for an error of Python about a value that cannot be awaited.

    Args:
        error: The error.
        otherwise: The sentence if the source code is unknown.
    """
    source = failed_expression(error.__traceback__)
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
