"""Prints the CustomResourceDefinition of a kind, as JSON: python3 -m pilothouse.api MODULE:KIND."""

import importlib
import sys
from collections.abc import Sequence

import msgspec

from pilothouse.api.crd import crd
from pilothouse.api.kind import Kind

USAGE = "usage: python3 -m pilothouse.api MODULE:KIND, such as hello:HELLO"


def main(arguments: Sequence[str]) -> str:
    """The CustomResourceDefinition of the kind that the only argument names.

    Raises:
        SystemExit: Nothing, or no kind, is named.
    """
    module, colon, name = arguments[0].partition(":") if len(arguments) == 1 else ("", "", "")
    if not colon:
        raise SystemExit(USAGE)
    try:
        kind = getattr(importlib.import_module(module), name, None)
    except ModuleNotFoundError as error:
        raise SystemExit(f"{error}: run it where the module is, or set PYTHONPATH") from None
    if not isinstance(kind, Kind):
        raise SystemExit(f"{module} declares no kind {name!r}: name what is made by pilothouse.api.Kind(...)")
    return msgspec.json.format(msgspec.json.encode(crd(kind))).decode()


if __name__ == "__main__":
    sys.stdout.write(main(sys.argv[1:]) + "\n")
