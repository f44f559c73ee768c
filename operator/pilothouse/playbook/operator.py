"""An operator's process: which kinds it watches, and what `python3 -m my_operator` calls."""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from pilothouse import __version__
from pilothouse.controller import Controller, LeadershipLost, Manager, Settings, SettingsError
from pilothouse.kube import Client, ClientConfig, ConfigError, Resource
from pilothouse.playbook.playbook import Playbook
from pilothouse.playbook.reconciler import Reconciler
from pilothouse.telemetry import configure

log = logging.getLogger(__name__)

# sysexits say 78 for it, shells and Go's flag package 2: what everybody expects of a wrong argument.
WRONG_SETTINGS = 2

# Threads for tasks that block; each is made when one is needed.
THREADS = 16


@dataclass(frozen=True)
class Watch:
    """Maps a kind to the playbook that is played over its objects.

    Attributes:
        resource: The kind and the view of it that the playbook reads.
        playbook: What is played.
        resync: Every object is played again about once in this many seconds, changed or not; 0: never.
        workers: How many objects are played at once.
        selector: Only objects with these labels: "app=web,tier!=cache".
    """

    resource: Resource[Any]
    playbook: Playbook[Any]
    resync: float = 600.0
    workers: int = 16
    selector: str = ""


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
        _stop_on_signals(stop)
        async with Client(config, user_agent=f"{name}/{__version__}") as client:
            manager = Manager(name, settings, client)
            for watch in all_watches:
                add_watch(manager, watch)
            await manager.run(stop)
    log.info("%s has stopped", name)
    return 0


def add_watch(manager: Manager, watch: Watch) -> Controller[Any]:
    """Makes the controller of a watch and adds it to a manager. Settings go before what the watch says."""
    settings = manager.settings
    informer = manager.informer(watch.resource, label_selector=watch.selector)
    reconciler: Reconciler[Any] = Reconciler(
        manager.client, watch.resource, informer.store, watch.playbook, manager.recorder
    )
    controller: Controller[Any] = Controller(
        watch.resource.kind.lower(),
        manager.client,
        informer,
        reconciler.sync,
        workers=watch.workers if settings.workers is None else settings.workers,
        resync=watch.resync if settings.resync is None else settings.resync,
        sync_timeout=settings.sync_timeout,
        predicate=reconciler.worth_a_play,
        on_timeout=reconciler.timed_out,
    )
    reconciler.wrote = controller.wrote
    manager.add(controller)
    return controller


def _stop_on_signals(stop: asyncio.Event) -> None:
    """SIGTERM and SIGINT stop gracefully; the second one ends the process at once."""
    loop = asyncio.get_running_loop()

    def on_signal(number: int) -> None:
        if stop.is_set():
            os._exit(128 + number)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
