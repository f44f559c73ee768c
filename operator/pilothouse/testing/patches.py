"""Merge patches (RFC 7386) and JSON patches (RFC 6902). The arguments are never modified."""

import copy
from collections.abc import Sequence
from typing import Any

from pilothouse.kube import BadRequest, Invalid


def merged(target: Any, patch: Any) -> Any:
    """Returns a document with a merge patch applied."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result


def json_patched(document: Any, operations: Sequence[dict[str, Any]]) -> Any:
    """Returns a document with a JSON patch applied.

    Raises:
        Invalid: An operation does not fit the document, or a test failed.
        BadRequest: An operation is unknown.
    """
    root = {"": copy.deepcopy(document)}
    for operation in operations:
        try:
            _carry_out(root, operation)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise Invalid(422, "Invalid", f"the server rejected our request: {operation}: {error}") from error
    return root[""]


def _carry_out(root: dict[str, Any], operation: dict[str, Any]) -> None:
    parent, last = _locate(root, operation["path"])
    match operation["op"]:
        case "add":
            _add(parent, last, copy.deepcopy(operation["value"]))
        case "remove":
            _take(parent, last)
        case "replace":
            _read(parent, last)
            parent[_index(parent, last)] = copy.deepcopy(operation["value"])
        case "test":
            if _read(parent, last) != operation["value"]:
                raise ValueError("testing failed")
        case "move":
            _add(parent, last, _take(*_locate(root, operation["from"])))
        case "copy":
            _add(parent, last, copy.deepcopy(_read(*_locate(root, operation["from"]))))
        case unknown:
            raise BadRequest(400, "BadRequest", f"unknown operation {unknown!r} in a JSON patch")


def _locate(root: dict[str, Any], pointer: str) -> tuple[Any, str]:
    """Returns the container of a pointer's last step, and that step."""
    *steps, last = [step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")]
    node: Any = root
    for step in steps:
        node = _read(node, step)
    return node, last


def _index(node: Any, step: str) -> Any:
    return int(step) if isinstance(node, list) else step


def _read(node: Any, step: str) -> Any:
    return node[_index(node, step)]


def _take(node: Any, step: str) -> Any:
    return node.pop(_index(node, step))


def _add(node: Any, step: str, value: Any) -> None:
    if not isinstance(node, list):
        node[step] = value
    elif step == "-":
        node.append(value)
    elif int(step) > len(node):
        raise IndexError(f"{step} is past the end")
    else:
        node.insert(int(step), value)
