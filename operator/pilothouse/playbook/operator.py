"""An operator's process: which kinds it watches, and what `python3 -m my_operator` calls."""

import asyncio
import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import TypeAlias

from pilothouse import __version__
from pilothouse.controller import LeadershipLost, Manager, Settings, SettingsError
from pilothouse.controller.watchdog import Watchdog
from pilothouse.kube import Client, ClientConfig, ConfigError
from pilothouse.playbook.watch import Watch, add_watch
from pilothouse.telemetry import configure

log = logging.getLogger(__name__)

# sysexits say 78 for it, shells and Go's flag package 2: what everybody expects of a wrong argument.
WRONG_SETTINGS = 2

# Threads for tasks that block; each is made when one is needed.
THREADS = 16

# How long the stop may take beyond the syncs in flight (pilothouse.controller.manager), seconds.
REST_SECONDS = 4.5


Watches: TypeAlias = Callable[[Mapping[str, str]], AbstractAsyncContextManager[Sequence[Watch]]]
"""Given the environment's variables, opens what an operator needs (clients of outside systems) and yields its
watches. An async generator function under `contextlib.asynccontextmanager` is one."""


def run_operator(name: str, watches: Watches, *, variables: Mapping[str, str] = os.environ) -> int:
    """Runs an operator until it is told to stop.

    Args:
        name: Its name: of the Lease, and in Events and requests.
        watches: Opens what it needs and yields its watches; SettingsError where a setting is missing.
        variables: The environment.

    Returns:
        The exit code: 0 stopped as told, 1 failed or lost its leadership, 2 wrong settings.
    """
    try:
        return asyncio.run(_run(name, watches, variables))
    except (SettingsError, ConfigError) as error:
        # For the person who made it; in plain words, because the log's form may be what is wrong.
        sys.stderr.write(f"{name}: {error}\n")
        return WRONG_SETTINGS
    except LeadershipLost as error:
        log.error("leadership lost: %s", error)
        return 1
    except Exception:
        log.exception("%s has failed", name)
        return 1


async def _run(name: str, watches: Watches, variables: Mapping[str, str]) -> int:
    settings = Settings.load(variables)
    # All settings first: whoever has to mend one need not have credentials yet.
    async with watches(variables) as all_watches:
        config = ClientConfig.load()
        settings = replace(settings, pod_namespace=settings.pod_namespace or config.namespace)
        configure(settings.log_format, settings.log_level)
        log.info("%s %s starts", name, __version__)
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(THREADS, thread_name_prefix="task"))
        stop = asyncio.Event()
        _stop_on_signals(stop, settings.graceful_stop + REST_SECONDS)
        with Watchdog():
            async with Client(config, user_agent=f"{name}/{__version__}") as client:
                manager = Manager(name, settings, client)
                for watch in all_watches:
                    add_watch(manager, watch)
                # What is there by now stays for good: walking over it would cost each full collection 10 ms.
                gc.collect()
                gc.freeze()
                await manager.run(stop)
    log.info("%s has stopped", name)
    return 0


def _stop_on_signals(stop: asyncio.Event, seconds: float) -> None:
    """SIGTERM and SIGINT stop gracefully; the second one ends the process at once.

    So it ends when it has not stopped after so many seconds: a thread that blocks in a task can be neither
    cancelled nor waited for.
    """
    loop = asyncio.get_running_loop()

    def give_up() -> None:
        log.error("not stopped after %g s: ended, with what still runs in threads", seconds)
        os._exit(1)

    def on_signal(number: int) -> None:
        if stop.is_set():
            os._exit(128 + number)
        stop.set()
        timer = threading.Timer(seconds, give_up)
        timer.daemon = True
        timer.start()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
