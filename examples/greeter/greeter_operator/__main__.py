"""The operator's process: python3 -m greeter_operator; --help tells what it can do."""

import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from greeter_operator.playbook import watch
from pilothouse.cli import main
from pilothouse.playbook import Watch

NAME = "greeter"


@asynccontextmanager
async def watches(variables: Mapping[str, str]) -> AsyncIterator[Sequence[Watch]]:
    """Yields what the operator watches. Clients of outside systems would be opened here."""
    yield [watch()]


if __name__ == "__main__":
    sys.exit(main(NAME, watches))
