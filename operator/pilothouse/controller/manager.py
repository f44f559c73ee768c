"""The manager: starts and stops all that runs in an operator's process, in the right order.

Start: probes, informers, election; workers only when this process leads and its stores are filled.
Stop: workers end what they are at, Events are written, the Lease is given up, all else is cancelled.
"""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

from pilothouse.controller.api import Api
from pilothouse.controller.controller import Controller
from pilothouse.controller.election import LeaderElector
from pilothouse.controller.environment import SettingsError
from pilothouse.controller.events import EventRecorder
from pilothouse.controller.health import HealthServer
from pilothouse.controller.settings import Settings
from pilothouse.informer import Informer
from pilothouse.kube import KubeObject, ObjectKey, Resource

log = logging.getLogger(__name__)

T = TypeVar("T", bound=KubeObject)

# How long Events may be written after the workers have ended, seconds.
FLUSH_SECONDS = 2.0


class Manager:
    """Runs controllers and what they need.

    Args:
        name: The operator's name: its Lease's name, and who reports its Events.
        settings: How it runs.
        client: Reaches the API server.
    """

    def __init__(self, name: str, settings: Settings, client: Api) -> None:
        self.settings = settings
        self.client = client
        self.recorder = EventRecorder(client, name, settings.pod_name)
        self.elector: LeaderElector | None = None
        if settings.leader_elect:
            lease = ObjectKey(settings.pod_namespace, name)
            self.elector = LeaderElector(client, lease, settings.pod_name, settings.lease)
        self.server = HealthServer(settings.health_host, settings.health_port, self._not_ready)
        self._informers: dict[tuple[Resource[Any], str], Informer[Any]] = {}
        self._controllers: list[Controller[Any]] = []
        self._stopping = False

    def informer(self, resource: Resource[T], *, label_selector: str = "") -> Informer[T]:
        """The informer of a resource, shared by all who ask for the same."""
        key = (resource, label_selector)
        if key not in self._informers:
            self._informers[key] = Informer(
                self.client,
                resource,
                namespaces=self.settings.watch_namespaces,
                label_selector=label_selector,
            )
        return self._informers[key]

    def add(self, controller: Controller[Any]) -> None:
        """Adds a controller to be run. Call it before `run`."""
        self._controllers.append(controller)

    async def run(self, stop: asyncio.Event) -> None:
        """Runs until `stop` is set, and then stops gracefully.

        Raises:
            SettingsError: The probes' address cannot be listened on.
            LeadershipLost: Another process may have become leader.
            Exception: Whatever ended a part that has to run for ever.
        """
        await self._start_server()
        background = [_task(informer.run()) for informer in self._informers.values()]
        background.append(_task(self.recorder.run()))
        working = _task(self._work())
        stopping = _task(stop.wait())
        try:
            await asyncio.wait([*background, working, stopping], return_when=asyncio.FIRST_COMPLETED)
            if stop.is_set():
                await self._drain(working)
            _raise_first([working, *background])
            if not stop.is_set():
                raise RuntimeError("a part of the operator ended that has to run for ever")
        finally:
            self._stopping = True
            await _cancel([working, stopping])
            if self.elector:
                await self.elector.release()
            await self.recorder.flush(FLUSH_SECONDS)
            await _cancel(background)
            await self.server.stop()

    async def _start_server(self) -> None:
        try:
            await self.server.start()
        except OSError as error:
            address = f"{self.settings.health_host}:{self.settings.health_port}"
            raise SettingsError(
                f"HEALTH_ADDRESS {address!r} cannot be listened on: {error.strerror or error}."
            ) from error
        log.info("probes and metrics on port %d", self.server.port)

    async def _work(self) -> None:
        async with asyncio.TaskGroup() as group:
            if self.elector:
                await self.elector.acquire()
                group.create_task(self.elector.hold())
            for informer in self._informers.values():
                await informer.wait_synced()
            log.info("working")
            for controller in self._controllers:
                group.create_task(controller.run())

    async def _drain(self, working: asyncio.Task[Any]) -> None:
        """Lets syncs in flight end, as long as this process leads and its patience lasts."""
        self._stopping = True
        log.info("stopping")
        draining = _task(self._drain_controllers())
        patience = self.settings.graceful_stop
        await asyncio.wait([draining, working], timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        if not draining.done():
            log.warning("syncs in flight did not end and are cancelled")
        await _cancel([draining])

    async def _drain_controllers(self) -> None:
        await asyncio.gather(*(controller.drain() for controller in self._controllers))

    def _not_ready(self) -> list[str]:
        if self._stopping:
            return ["the process is stopping"]
        return [
            f"{informer.resource} are not all read yet"
            + (f": {informer.failing}" if informer.failing else "")
            for informer in self._informers.values()
            if not informer.synced
        ]


def _task(coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    return asyncio.get_running_loop().create_task(coroutine)


async def _cancel(tasks: list[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _raise_first(tasks: list[asyncio.Task[Any]]) -> None:
    """Raises what ended one of the tasks; of a group of errors, the first one in it."""
    for task in tasks:
        error = task.exception() if task.done() and not task.cancelled() else None
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        if error is not None:
            raise error
