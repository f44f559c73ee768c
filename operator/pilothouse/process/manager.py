"""The manager: starts and stops all that runs in an operator's process, in the right order.

Start: probes, informers, election; workers only when this process leads and its stores are filled.
Stop: workers end what they are at, Events are written, the Lease is given up, all else is cancelled. With the
usual settings that takes less than 10 s, whatever hangs: 5 s for the syncs in flight, 4 s for the rest.
"""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from http import HTTPStatus
from pathlib import Path
from ssl import SSLContext
from typing import Any, TypeVar

from pilothouse.controller.cancelling import cancel
from pilothouse.controller.controller import Controller
from pilothouse.controller.election import LeaderElector
from pilothouse.controller.events import EventRecorder
from pilothouse.controller.fence import Fence, FencedApi
from pilothouse.controller.sharding import Sharding
from pilothouse.informer import Informer, InformerFactory, Transform, drop_last_applied
from pilothouse.kube import Api, KubeObject, ObjectKey, Resource
from pilothouse.process.claims import Claim, require_unclaimed
from pilothouse.process.environment import SettingsError
from pilothouse.process.health import HealthServer
from pilothouse.process.settings import Settings

log = logging.getLogger(__name__)

T = TypeVar("T", bound=KubeObject)

# The name becomes the name of a Lease (a DNS subdomain of 253 characters, with the number of a shard), the
# field manager (128 printable characters) and the reportingController of Events (a qualified name: 63).
NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
NAME_LENGTH = 63

# How long Events may be written after the workers have ended, seconds.
FLUSH_SECONDS = 1.0
# How long what is cancelled may take to end, seconds. What does not is left behind, outside of the fence.
CANCEL_SECONDS = 0.5


class Manager:
    """Runs controllers and what they need.

    Attributes:
        fence: Lets changes through while this process may work; for calls to outside systems.
        api: The API server behind that fence: for reconcilers.
        recorder: Takes Events.

    Args:
        name: The operator's name: its Lease's name, and who reports its Events.
        settings: How it runs.
        client: Reaches the API server.
        lease_client: Does so for the Leases, over connections of its own: a renewal must not wait behind
            requests that hang. `client` unless given.

    Raises:
        ValueError: The API server would refuse the name in Leases or Events.
    """

    def __init__(self, name: str, settings: Settings, client: Api, lease_client: Api | None = None) -> None:
        if len(name) > NAME_LENGTH or not NAME.fullmatch(name):
            raise ValueError(
                f"the operator's name {name!r} cannot name its Lease and report its Events: use at most "
                f"{NAME_LENGTH} lower case letters, digits, '-' and '.', with a letter or digit at both ends"
            )
        self.name = name
        self.settings = settings
        self.client = client
        leases = lease_client or client
        self.elector: LeaderElector | None = None
        self.sharding: Sharding | None = None
        lease = ObjectKey(settings.pod_namespace, name)
        if settings.shards:
            self.sharding = Sharding(
                leases, lease, settings.pod_name, settings.shards, settings.lease, settings.graceful_stop
            )
            self.fence: Fence = self.sharding.fence
        elif settings.leader_elect:
            self.elector = LeaderElector(leases, lease, settings.pod_name, settings.lease)
            self.fence = self.elector.fence
        else:
            self.fence = Fence()
        self.api = FencedApi(client, self.fence)
        # With shards, changes pass in a sync only; Events are written outside of it, after it.
        event_fence = self.sharding.event_fence if self.sharding else self.fence
        self.recorder = EventRecorder(FencedApi(client, event_fence), name, settings.pod_name)
        self.server = HealthServer(
            settings.health_host,
            settings.health_port,
            self._not_ready,
            failing=lambda: self._informers.failing,
            tls=_certificate(settings),
            reader=_reader(settings, client),
        )
        self._informers = InformerFactory(client)
        self._controllers: list[Controller[Any]] = []
        self._claims: list[Claim] = []
        self._stopping = False

    def informer(
        self,
        resource: Resource[T],
        *,
        label_selector: str = "",
        field_selector: str = "",
        namespaces: Sequence[str] = (),
        transform: Transform[T] = drop_last_applied,
    ) -> Informer[T]:
        """The informer of a resource; all who see the same objects share one watch.

        Args:
            resource: The kind and the view of it.
            label_selector: Which objects: "app=web".
            field_selector: Which objects: "metadata.name=web".
            namespaces: Where; those that the settings name unless given.
            transform: Drops from each object what nobody reads, before it is stored.
        """
        return self._informers.informer(
            resource,
            namespaces=namespaces or self.settings.watch_namespaces,
            label_selector=label_selector,
            field_selector=field_selector,
            transform=transform,
        )

    def claim(self, claim: Claim) -> None:
        """Notes what a watch writes. Call it before its controller is added.

        Raises:
            ValueError: Another watch writes the same; the sentence says what to do.
        """
        require_unclaimed(claim, self._claims)
        self._claims.append(claim)

    def add(self, controller: Controller[Any]) -> None:
        """Adds a controller to be run. Call it before `run`.

        Raises:
            ValueError: There is one of that name: their metrics and logs could not be told apart.
        """
        if any(other.name == controller.name for other in self._controllers):
            raise ValueError(
                f"two controllers are named {controller.name!r}: give one of their Watches a name of its "
                "own, Watch(..., name=...)"
            )
        self._controllers.append(controller)

    async def run(self, stop: asyncio.Event) -> None:
        """Runs until `stop` is set, and then stops gracefully.

        Raises:
            SettingsError: The probes' address cannot be listened on.
            LeadershipLost: Another process may have become leader.
            Exception: Whatever ended a part that has to run for ever.
        """
        await self._start_server()
        try:
            await self._run(stop)
        finally:
            await self.server.stop()

    async def _run(self, stop: asyncio.Event) -> None:
        background = [_task(self._informers.run()), _task(self.recorder.run())]
        if self.settings.log_level_file:
            background.append(_task(_follow_level(self.settings)))
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
            await cancel([working, stopping], CANCEL_SECONDS)
            await self.recorder.flush(FLUSH_SECONDS)
            await cancel(background, CANCEL_SECONDS)
            if self.elector:
                await self.elector.release()
            if self.sharding:
                await self.sharding.release()

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
            await self._informers.wait_synced()
            if self.sharding:
                self.sharding.add(self._controllers)
                group.create_task(self.sharding.run())
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
        await cancel([draining], CANCEL_SECONDS)

    async def _drain_controllers(self) -> None:
        await asyncio.gather(*(controller.drain() for controller in self._controllers))

    def _not_ready(self) -> list[str]:
        if self._stopping:
            return ["the process is stopping"]
        return self._informers.waiting_for


def _certificate(settings: Settings) -> SSLContext | None:
    if not settings.metrics_cert_dir:
        return None
    from pilothouse.process.serving import ServingCertificate

    return ServingCertificate(Path(settings.metrics_cert_dir)).context


def _reader(settings: Settings, api: Api) -> Callable[[str], Awaitable[HTTPStatus]] | None:
    if not settings.metrics_auth:
        return None
    from pilothouse.process.readers import MetricsReaders

    return MetricsReaders(api).verdict


async def _follow_level(settings: Settings) -> None:
    from pilothouse.process.loglevel import follow_level

    await follow_level(Path(settings.log_level_file), settings.log_level)


def _task(coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    return asyncio.get_running_loop().create_task(coroutine)


def _raise_first(tasks: list[asyncio.Task[Any]]) -> None:
    """Raises what ended one of the tasks; of a group of errors, the first one in it."""
    for task in tasks:
        error = task.exception() if task.done() and not task.cancelled() else None
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        if error is not None:
            raise error
