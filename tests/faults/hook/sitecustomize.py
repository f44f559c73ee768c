"""Injects faults into the shipped flights operator. Python imports this if its folder is first in PYTHONPATH.

FAULTS is a list such as "5:process killed before;3:429": at the 5th call, and 3 calls after that. Calls to
the API server and to the airline count equally. A killed process really exits immediately. FAULTS_STRUCK is a
file with a line for each injected fault: the next process continues with the others.
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
    """Provides pilothouse.testing and tests, which are not in the image, from the files in this folder."""
    if importlib.util.find_spec("pilothouse.testing") is not None:
        return
    for name in ("pilothouse.testing", "tests", "tests.faults"):
        package = ModuleType(name)
        package.__path__ = [str(HERE)]
        sys.modules[name] = package


def install() -> None:
    """Injects the faults into the calls of the operator."""
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

    class RecordingFaults(Faults):
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

    process = RealProcess(RecordingFaults(*injections))
    make_manager = Manager.__init__

    def init(self: Any, name: str, settings: Any, client: Any, *rest: Any, **options: Any) -> None:
        make_manager(self, name, settings, FaultyApi(client, process), *rest, **options)

    Manager.__init__ = init  # type: ignore[method-assign]

    def with_faults(name: str) -> Any:
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
        setattr(Airline, name, with_faults(name))


if "FAULTS" in os.environ:
    provide_packages()
    install()
