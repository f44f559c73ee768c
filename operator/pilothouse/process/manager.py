"""The manager: starts and stops everything in an operator's process, in the right order.

Start: probes, informers, election. The workers start once this process is the leader and its stores are
filled. Stop: the workers finish their reconciles, Events are written, the Lease is released, and everything
else is cancelled. With the default settings a stop takes less than 10 s even if something hangs: 5 s for the
running reconciles, 4 s for the rest.
"""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Collection, Coroutine, Sequence
from http import HTTPStatus
from pathlib import Path
from ssl import SSLContext
from typing import TYPE_CHECKING, Any, TypeVar

from pilothouse.controller.cancelling import cancel
from pilothouse.controller.controller import Controller, every_object
from pilothouse.controller.election import LeaderElector
from pilothouse.controller.events import EventRecorder
from pilothouse.controller.fence import Fence, FencedApi
from pilothouse.informer import Informer, InformerFactory, Transform, drop_last_applied
from pilothouse.kube import Api, KubeObject, ObjectKey, Resource
from pilothouse.process.claims import Claim, require_unclaimed
from pilothouse.process.environment import SettingsError
from pilothouse.process.health import HealthServer
from pilothouse.process.settings import Settings

if TYPE_CHECKING:
    from pilothouse.controller.sharding import Sharding

log = logging.getLogger(__name__)

T = TypeVar("T", bound=KubeObject)

# The name becomes the name of a Lease (a DNS subdomain of 253 characters, with the number of a shard), the
# field manager (128 printable characters) and the reportingController of Events (a qualified name: 63).
NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
NAME_LENGTH = 63

# Seconds for writing Events after the workers have ended.
FLUSH_SECONDS = 1.0
# Seconds for cancelled tasks to end. Later the manager abandons them; the fence blocks their changes.
CANCEL_SECONDS = 0.5


class Manager:
    """Runs controllers and everything that they need.

    Attributes:
        fence: Lets changes through while this process may work. Also use it for calls to external systems.
        api: The client for reconcilers. Its changes pass through the fence.
        recorder: Records Events.
        admits: Whether this process reconciles an object, which depends on its shards. Pass it to each
            controller.

    Args:
        name: The operator's name. It is the name of the Lease and the reporting controller of Events.
        settings: The settings of the process.
        client: The client for the API server.
        lease_client: A client for the Leases with connections of its own, so that a renewal does not wait
            behind requests that hang. Default: `client`.

    Raises:
        ValueError: The API server would refuse the name in Leases or Events.
    """

    def __init__(self, name: str, settings: Settings, client: Api, lease_client: Api | None = None) -> None:
        require_name(name)
        self.name = name
        self.settings = settings
        self.client = client
        leases = lease_client or client
        self.elector: LeaderElector | None = None
        self.sharding: Sharding | None = None
        self.admits: Callable[[Any], bool] = every_object
        lease = ObjectKey(settings.pod_namespace, name)
        if settings.shards:
            self.sharding = _sharding(settings, leases, lease)
            self.fence: Fence = self.sharding.fence
            self.admits = self.sharding.admits
        elif settings.leader_elect:
            self.elector = LeaderElector(leases, lease, settings.pod_name, settings.lease)
            self.fence = self.elector.fence
        else:
            self.fence = Fence()
        self.api = FencedApi(client, self.fence)
        # With shards, the fence is open only within a reconcile. Events are written after it.
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
        """Returns the informer of a resource. Callers with the same arguments share one watch.

        Args:
            resource: The kind and its view.
            label_selector: Selects objects by label: "app=web".
            field_selector: Selects objects by field: "metadata.name=web".
            namespaces: The namespaces to watch. Default: those in the settings.
            transform: Removes unused fields from each object before it is stored.
        """
        return self._informers.informer(
            resource,
            namespaces=namespaces or self.settings.watch_namespaces,
            label_selector=label_selector,
            field_selector=field_selector,
            transform=transform,
        )

    def claim(self, claim: Claim) -> None:
        """Registers what a watch writes. Call this before its controller is added.

        Raises:
            ValueError: Another watch writes the same. The text says what to do.
        """
        require_unclaimed(claim, self._claims)
        self._claims.append(claim)

    def finalizers(self, resource: str) -> Collection[str]:
        """Returns the finalizers that the watches of a kind store and remove.

        Args:
            resource: The kind and its group.
        """
        return {name for claim in self._claims if claim.resource == resource for name in claim.finalizers}

    def add(self, controller: Controller[Any]) -> None:
        """Adds a controller. Call this before `run`.

        Raises:
            ValueError: Another controller has the same name, so their metrics and logs would be mixed up. Or
                there are shards, and the controller was created without `admits`.
        """
        if self.sharding and controller.admits != self.admits:
            raise ValueError(
                f"the controller {controller.name!r} would reconcile the objects of all shards. Create it "
                "with admits=manager.admits."
            )
        if any(other.name == controller.name for other in self._controllers):
            raise ValueError(
                f"two controllers are named {controller.name!r}. Give one of their watches another name: "
                "Watch(..., name=...)."
            )
        self._controllers.append(controller)

    async def run(self, stop: asyncio.Event) -> None:
        """Runs until `stop` is set, then stops gracefully.

        Raises:
            SettingsError: The server cannot listen on the address for probes and metrics.
            LeadershipLost: Another process may have become the leader.
            Exception: The error that ended a part of the process.
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
                raise RuntimeError("a part of the operator ended without an error before it was stopped")
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
                f"HEALTH_ADDRESS is {address!r}, and the operator cannot listen on it "
                f"({error.strerror or error}). Use another address or port."
            ) from error
        log.info("Serving probes and metrics on port %d", self.server.port)

    async def _work(self) -> None:
        async with asyncio.TaskGroup() as group:
            if self.elector:
                await self.elector.acquire()
                group.create_task(self.elector.hold())
            await self._informers.wait_synced()
            if self.sharding:
                self.sharding.add(self._controllers)
                group.create_task(self.sharding.run())
            log.info("Starting the workers")
            for controller in self._controllers:
                group.create_task(controller.run())

    async def _drain(self, working: asyncio.Task[Any]) -> None:
        """Waits for running reconciles, until the graceful stop times out or the leadership is lost."""
        self._stopping = True
        log.info("Stopping")
        draining = _task(self._drain_controllers())
        patience = self.settings.graceful_stop
        await asyncio.wait([draining, working], timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        if not draining.done():
            log.warning("Cancelling the reconciles that are still running")
        await cancel([draining], CANCEL_SECONDS)

    async def _drain_controllers(self) -> None:
        await asyncio.gather(*(controller.drain() for controller in self._controllers))

    def _not_ready(self) -> list[str]:
        if self._stopping:
            return ["the operator is stopping"]
        return self._informers.waiting_for


def require_name(name: object) -> None:
    """Refuses a name for an operator that the API server would refuse in Leases or Events.

    Raises:
        ValueError: The text says what a name may contain.
    """
    if not isinstance(name, str) or len(name) > NAME_LENGTH or not NAME.fullmatch(name):
        raise ValueError(
            f"the operator's name {name!r} is not valid in its Lease and its Events. Use at most "
            f"{NAME_LENGTH} lower-case letters, digits, '-' and '.', with a letter or digit at both ends."
        )


def _sharding(settings: Settings, leases: Api, lease: ObjectKey) -> "Sharding":
    # Most operators have one leader and do not pay for shards.
    from pilothouse.controller.sharding import Sharding

    return Sharding(leases, lease, settings.pod_name, settings.shards, settings.lease, settings.graceful_stop)


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
    """Raises the error that ended one of the tasks. From an exception group it raises the first error."""
    for task in tasks:
        error = task.exception() if task.done() and not task.cancelled() else None
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        if error is not None:
            raise error
