"""An operator's process: which kinds it watches, and what `python3 -m my_operator` calls."""

import asyncio
import gc
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import TypeAlias

from pilothouse import __version__
from pilothouse.controller import LeadershipLost
from pilothouse.kube import Client, ClientConfig, ConfigError
from pilothouse.playbook.assembly import add_watch
from pilothouse.playbook.watch import Watch
from pilothouse.process import Manager, Settings, SettingsError
from pilothouse.process.watchdog import Watchdog
from pilothouse.telemetry import configure

log = logging.getLogger(__name__)

# sysexits say 78 for it, shells and Go's flag package 2: what everybody expects of a wrong argument.
WRONG_SETTINGS = 2

# Threads for tasks that block; each is made when one is needed.
THREADS = 16

# How long the stop may take beyond the syncs in flight (pilothouse.process.manager), seconds.
REST_SECONDS = 4.5

# How long the end may take once the manager has ended, seconds. A leader that was deposed has stopped its
# changes 5 s before another one can follow (pilothouse.controller.election), but for those in threads: with
# the manager's own end, which takes 2 s, these are ended before that, too.
END_SECONDS = 2.0


Watches: TypeAlias = (
    Sequence[Watch] | Callable[[Mapping[str, str]], AbstractAsyncContextManager[Sequence[Watch]]]
)
"""What an operator watches: a list of watches, or a function for an operator with settings or clients of its
own. The function takes the environment variables, opens the clients and yields the watches. It is an async
generator function under `contextlib.asynccontextmanager`."""


def opened(watches: Watches, variables: Mapping[str, str]) -> AbstractAsyncContextManager[Sequence[Watch]]:
    """Returns the context in which the watches can be used.

    Args:
        watches: The watches, or the function that opens them.
        variables: The environment variables for the function.

    Raises:
        TypeError: The watches are neither.
    """
    if callable(watches):
        return watches(variables)
    if not isinstance(watches, list | tuple) or not all(isinstance(each, Watch) for each in watches):
        raise TypeError(f"the watches are {watches!r}. Pass a list: [Watch(...)].")
    return nullcontext(watches)


def run_operator(name: str, watches: Watches, *, variables: Mapping[str, str] = os.environ) -> int:
    """Runs an operator until it is told to stop.

    Args:
        name: Its name: of the Lease, and in Events and requests.
        watches: The watches, or a function that opens what they need and yields them. The function raises
            SettingsError if a setting is missing.
        variables: The environment.

    Returns:
        The exit code: 0 stopped as told, 1 failed or lost its leadership, 2 wrong settings.
    """
    last_resort = _LastResort()
    try:
        with asyncio.Runner(loop_factory=_Loop) as runner:
            return runner.run(_exit_code(name, _run(name, watches, variables, last_resort)))
    finally:
        last_resort.cancel()


async def _exit_code(name: str, running: Awaitable[None]) -> int:
    """Says why it ends, at once: the end of the event loop waits for threads."""
    try:
        await running
    except (SettingsError, ConfigError) as error:
        # For the person who made it; in plain words, because the log's form may be what is wrong.
        sys.stderr.write(f"{name}: {error}\n")
        return WRONG_SETTINGS
    except LeadershipLost as error:
        log.error("Lost leadership: %s", error)
        return 1
    except Exception:
        log.exception("%s has failed", name)
        return 1
    log.info("%s has stopped", name)
    return 0


async def _run(name: str, watches: Watches, variables: Mapping[str, str], last_resort: "_LastResort") -> None:
    settings = Settings.load(variables)
    # All settings first: whoever has to mend one need not have credentials yet.
    async with opened(watches, variables) as all_watches:
        config = ClientConfig.load()
        settings = replace(settings, pod_namespace=settings.pod_namespace or config.namespace)
        configure(settings.log_format, settings.log_level)
        log.info("%s %s starts", name, __version__)
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(THREADS, thread_name_prefix="task"))
        stop = asyncio.Event()
        seconds = settings.graceful_stop + REST_SECONDS
        with _stop_on_signals(stop, seconds, last_resort), Watchdog():
            agent = f"{name}/{__version__}"
            async with Client(config, user_agent=agent) as client, Client(config, user_agent=agent) as leases:
                manager = Manager(name, settings, client, leases)
                for watch in all_watches:
                    add_watch(manager, watch)
                # What is there by now stays for good: walking over it would cost each full collection 10 ms.
                gc.collect()
                gc.freeze()
                try:
                    await manager.run(stop)
                finally:
                    last_resort.arm(END_SECONDS)


@contextmanager
def _stop_on_signals(stop: asyncio.Event, seconds: float, last_resort: "_LastResort") -> Iterator[None]:
    """SIGTERM and SIGINT stop gracefully, in so many seconds at most; the second one ends it at once.

    The loop's own handlers would wait for their turn on a loop that may be stuck.
    """
    loop = asyncio.get_running_loop()
    told = False

    def on_signal(number: int, _frame: object) -> None:
        nonlocal told
        if told:
            os._exit(128 + number)
        told = True
        last_resort.arm(seconds)
        loop.call_soon_threadsafe(stop.set)

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Loop(asyncio.SelectorEventLoop):
    """asyncio's loop for Unix. Its clock, read 45 times in a play, costs no call of Python around it."""

    time = staticmethod(time.monotonic)


class _LastResort:
    """Ends the process when it does not end by itself.

    What blocks in a thread can be neither stopped nor waited for.
    """

    def __init__(self) -> None:
        self._timers: list[threading.Timer] = []

    def arm(self, seconds: float) -> None:
        """Gives the process so many seconds from now; the earliest of several wishes counts."""
        timer = threading.Timer(seconds, self._end, [seconds])
        timer.daemon = True
        timer.start()
        self._timers.append(timer)

    def cancel(self) -> None:
        """It has ended by itself."""
        for timer in self._timers:
            timer.cancel()

    def _end(self, seconds: float) -> None:
        log.error("not ended after %g s: ended, with what still runs in threads", seconds)
        os._exit(1)
