"""The shipped flights operator under faults: with this folder first in PYTHONPATH, Python imports this.

FAULTS is a list such as "5:process killed before;3:429": at the 5th call, and 3 calls after that. Calls to
the API server and to the airline count alike. Killed means killed: the process ends there and then.
FAULTS_STRUCK is a file with a line for each fault that has struck: the next process goes on with those that
have not.
"""

import asyncio
import importlib.util
import itertools
import os
import signal
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

HERE = Path(__file__).parent
KILLED = 137


def provide_packages() -> None:
    """In the image there is neither pilothouse.testing nor tests: what is needed lies here, in one folder."""
    if importlib.util.find_spec("pilothouse.testing") is not None:
        return
    for name in ("pilothouse.testing", "tests", "tests.faults"):
        package = ModuleType(name)
        package.__path__ = [str(HERE)]
        sys.modules[name] = package


def install() -> None:
    """Put the faults between the operator and what it calls."""
    from flights_operator.airline import Airline
    from pilothouse.process import Manager
    from pilothouse.testing.faults import Fault, Faults, Injection
    from pilothouse.testing.faulty import FaultyApi
    from pilothouse.testing.process import Process
    from tests.faults.airline import ERRORS, READS

    struck = Path(os.environ["FAULTS_STRUCK"])
    done = len(struck.read_text().splitlines()) if struck.exists() else 0
    given = [each.partition(":") for each in os.environ["FAULTS"].split(";")][done:]
    at = itertools.accumulate(int(gap) for gap, _, _ in given)
    injections = [Injection(number, Fault(fault)) for number, (_, _, fault) in zip(at, given, strict=True)]

    class TellingFaults(Faults):
        def count(self, what: str, **options: Any) -> Any:
            site, injection = super().count(what, **options)
            if injection is not None:
                with struck.open("a") as file:
                    file.write(f"{injection.fault} at {site.what}\n")
            return site, injection

    class RealProcess(Process):
        def kill(self) -> NoReturn:
            os._exit(KILLED)

        def terminate(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

        async def _freeze(self) -> None:
            os.kill(os.getpid(), signal.SIGSTOP)
            await asyncio.sleep(0)

    process = RealProcess(TellingFaults(*injections))
    make_manager = Manager.__init__

    def init(self: Any, name: str, settings: Any, client: Any, *rest: Any, **options: Any) -> None:
        make_manager(self, name, settings, FaultyApi(client, process), *rest, **options)

    Manager.__init__ = init  # type: ignore[method-assign]

    def suffering(name: str) -> Any:
        method = getattr(Airline, name)

        async def call(self: Any, *arguments: Any, **options: Any) -> Any:
            return await process.call(
                f"airline.{name}",
                lambda: method(self, *arguments, **options),
                writes=name not in READS,
                errors=ERRORS,
            )

        return call

    for name in ("find", "book", "change", "cancel"):
        setattr(Airline, name, suffering(name))


if "FAULTS" in os.environ:
    provide_packages()
    install()
