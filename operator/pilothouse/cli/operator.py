"""An operator's process: the kinds that it watches, and the function that runs it."""

import asyncio
import gc
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, nullcontext
from dataclasses import replace
from typing import TypeAlias

from pilothouse import __version__
from pilothouse.controller import LeadershipLost
from pilothouse.kube import Client, ClientConfig, ConfigError
from pilothouse.playbook.arguments import require_no_duplicates, shown
from pilothouse.playbook.assembly import add_watch
from pilothouse.playbook.awaited import PlaybookError, require_awaited
from pilothouse.playbook.watch import Watch, require_distinct_names, warn_of_foreign_statuses
from pilothouse.process import Manager, Settings, SettingsError
from pilothouse.process.manager import require_name
from pilothouse.process.watchdog import Watchdog
from pilothouse.telemetry import configure

log = logging.getLogger(__name__)

# Shells and Go's flag package use 2, which users expect for a wrong argument. sysexits would be 78.
WRONG_SETTINGS = 2

# The most threads for blocking tasks. A thread is created when it is needed.
THREADS = 16

# Seconds for a stop besides the running reconciles (pilothouse.process.manager).
REST_SECONDS = 4.5

# Seconds for the process to end after the manager. A leader that has lost the Lease stops its changes 5 s
# before another one can take over (pilothouse.controller.election), except for those in threads. The manager
# takes 2 s to end, so threads are ended before those 5 s have passed, too.
END_SECONDS = 2.0


Watches: TypeAlias = (
    Sequence[Watch] | Callable[[Mapping[str, str]], AbstractAsyncContextManager[Sequence[Watch]]]
)
"""What an operator watches: a list of watches, or a function for an operator with settings or clients of its
own. The function takes the environment variables, opens the clients and yields the watches. It is an async
generator function under `contextlib.asynccontextmanager`."""


@asynccontextmanager
async def opened(watches: Watches, variables: Mapping[str, str]) -> AsyncIterator[Sequence[Watch]]:
    """Opens the context in which the watches can be used.

    Args:
        watches: The watches, or the function that opens them.
        variables: The environment variables for the function.

    Raises:
        PlaybookError: The watches are neither, or two of them have the same name.
    """
    context = watches(variables) if callable(watches) else nullcontext(watches)
    if not isinstance(context, AbstractAsyncContextManager):
        require_awaited(context, "what the function of the watches returned")
        raise PlaybookError(
            f"the function of the watches returned {shown(context)}. Write it as an async def that yields "
            "the watches, with the decorator contextlib.asynccontextmanager."
        )
    async with context as found:
        if not isinstance(found, list | tuple):
            raise PlaybookError(f"the watches are {shown(found)}. Pass a list: [Watch(...)].")
        if wrong := [each for each in found if not isinstance(each, Watch)]:
            raise PlaybookError(
                f"the watches have {shown(wrong[0])}, which is not a Watch. Pass [Watch(...)]"
            )
        if not found:
            raise PlaybookError("the list of watches is empty, so there is nothing to do. Pass [Watch(...)].")
        require_distinct_names(found)
        yield found


def require_operator(name: object, settings: object = ()) -> None:
    """Refuses what cannot be the name or the settings classes of an operator.

    Raises:
        PlaybookError: The text names the argument and the value.
    """
    try:
        require_name(name)
    except ValueError as error:
        raise PlaybookError(str(error)) from None
    if not isinstance(settings, list | tuple) or not all(isinstance(each, type) for each in settings):
        raise PlaybookError(f"settings is {shown(settings)}. Pass a list of classes: settings=[MySettings].")
    require_no_duplicates("the operator", settings=settings)


def run_operator(name: str, watches: Watches, *, variables: Mapping[str, str] = os.environ) -> int:
    """Runs an operator until it receives SIGTERM or SIGINT.

    Args:
        name: The operator's name. Its Lease, its Events and its requests have this name.
        watches: The watches, or a function that opens what they need and yields them. The function raises
            SettingsError if a setting is missing.
        variables: The environment variables.

    Returns:
        The exit code: 0 stopped by a signal, 1 failed, lost leadership or a mistake in the watches, 2 wrong
        settings.
    """
    last_resort = _LastResort()
    try:
        with asyncio.Runner(loop_factory=_Loop) as runner:
            return runner.run(_exit_code(name, _run(name, watches, variables, last_resort)))
    finally:
        last_resort.cancel()


async def _exit_code(name: str, running: Awaitable[None]) -> int:
    """Logs why the process ends. This cannot wait: the end of the event loop waits for threads."""
    try:
        await running
    except (SettingsError, ConfigError) as error:
        # Not through the log, because its format may be the wrong setting.
        sys.stderr.write(f"{name}: {error}\n")
        return WRONG_SETTINGS
    except PlaybookError as error:
        sys.stderr.write(f"{name}: {error}\n")
        return 1
    except LeadershipLost as error:
        log.error("Lost leadership: %s", error)
        return 1
    except Exception:
        log.exception("%s failed", name)
        return 1
    log.info("Stopped %s", name)
    return 0


async def _run(name: str, watches: Watches, variables: Mapping[str, str], last_resort: "_LastResort") -> None:
    require_operator(name)
    settings = Settings.load(variables)
    # All settings are checked before the credentials, so that they can be corrected without any.
    async with opened(watches, variables) as all_watches:
        config = ClientConfig.load()
        settings = replace(settings, pod_namespace=settings.pod_namespace or config.namespace)
        configure(settings.log_format, settings.log_level)
        log.info("Starting %s %s", name, __version__)
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(THREADS, thread_name_prefix="task"))
        stop = asyncio.Event()
        seconds = settings.graceful_stop + REST_SECONDS
        with _stop_on_signals(stop, seconds, last_resort), Watchdog():
            agent = f"{name}/{__version__}"
            async with Client(config, user_agent=agent) as client, Client(config, user_agent=agent) as leases:
                manager = Manager(name, settings, client, leases)
                warn_of_foreign_statuses(all_watches)
                for watch in all_watches:
                    add_watch(manager, watch)
                # The objects created so far stay forever. Without this, a full collection takes 10 ms more.
                gc.collect()
                gc.freeze()
                try:
                    await manager.run(stop)
                finally:
                    last_resort.arm(END_SECONDS)


@contextmanager
def _stop_on_signals(stop: asyncio.Event, seconds: float, last_resort: "_LastResort") -> Iterator[None]:
    """Stops gracefully on SIGTERM and SIGINT, within `seconds`. A second signal ends the process immediately.

    The loop's own signal handlers would not run while the loop is blocked.
    """
    loop = asyncio.get_running_loop()
    stopping = False

    def on_signal(number: int, _frame: object) -> None:
        nonlocal stopping
        if stopping:
            os._exit(128 + number)
        stopping = True
        last_resort.arm(seconds)
        loop.call_soon_threadsafe(stop.set)

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Loop(asyncio.SelectorEventLoop):
    """asyncio's loop for Unix, without a Python function around its clock, which a play reads 45 times."""

    time = staticmethod(time.monotonic)


class _LastResort:
    """Ends the process if it does not end by itself, because a blocking thread cannot be cancelled."""

    def __init__(self) -> None:
        self._timers: list[threading.Timer] = []

    def arm(self, seconds: float) -> None:
        """Ends the process after the given number of seconds. If armed several times, the earliest counts."""
        timer = threading.Timer(seconds, self._end, [seconds])
        timer.daemon = True
        timer.start()
        self._timers.append(timer)

    def cancel(self) -> None:
        """Disarms all timers, because the process ends by itself."""
        for timer in self._timers:
            timer.cancel()

    def _end(self, seconds: float) -> None:
        log.error("Exiting: the process did not end within %g s, threads are still running", seconds)
        os._exit(1)
