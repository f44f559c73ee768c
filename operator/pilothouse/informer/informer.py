"""The informer: a store of one kind, filled by one reflector per namespace, or one for all namespaces."""

import asyncio
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

from pilothouse.informer.frozen import require_frozen
from pilothouse.informer.reflector import Reflector
from pilothouse.informer.store import Handler, Store, Transform
from pilothouse.informer.views import Fanout, Reader, union
from pilothouse.kube import Api, KubeObject, Resource, ordered

T = TypeVar("T", bound=KubeObject)


class Informer(Generic[T]):
    """Keeps a store of a kind in sync with the API server, and calls handlers for every change.

    Errors never end it. After a missing kind or permission, a lost connection or an expired version, it
    reports the error in `failing` and in the log, retries with back-off, and recovers.

    Attributes:
        resource: The kind and its view.
        store: The objects as last seen.
        label_selector: The label selector of the objects.
        field_selector: The field selector of the objects.

    Args:
        client: A `pilothouse.kube.Client`, or a model of it.
        resource: The kind and its view.
        namespaces: The namespaces to watch. Empty: all.
        label_selector: The label selector of the objects, such as `app=web`.
        field_selector: The field selector of the objects, such as `metadata.name=web`.
        transform: Removes unneeded parts of each object before it is stored.

    Raises:
        TypeError: The view, or a Struct in it, is not frozen. The message names the class.
    """

    def __init__(
        self,
        client: Api,
        resource: Resource[T],
        *,
        namespaces: Sequence[str] = (),
        label_selector: str = "",
        field_selector: str = "",
        transform: Transform[T] | None = None,
    ) -> None:
        require_frozen(resource.view)
        self.resource = resource
        self.label_selector = label_selector
        self.field_selector = field_selector
        self.store: Store[T] = Store(str(resource), transform, resource)
        # The informers that this informer's watch feeds: itself, and informers of other views.
        self._fed: list[Informer[Any]] = [self]
        scopes = dict.fromkeys(namespaces) if resource.namespaced and namespaces else [""]
        self._reflectors: list[Reflector[Any]] = [
            Reflector(
                client,
                resource,
                self.store,
                namespace=scope,
                label_selector=label_selector,
                field_selector=field_selector,
            )
            for scope in scopes
        ]

    def feed(self, other: "Informer[Any]") -> None:
        """Feeds another informer, with another view of the same objects, from this informer's watch.

        Call it before `run`, and then run only this informer. See `pilothouse.informer.views`.

        Raises:
            TypeError: The views contradict each other. The message names the field and the types.
        """
        resource = union([each.resource for each in (*self._fed, other)])
        self._fed.append(other)
        fanout = Fanout(resource, [Reader(each.resource.view, each.store) for each in self._fed])
        for reflector in self._reflectors:
            reflector.feed(resource, fanout)
        other._reflectors = self._reflectors

    @property
    def synced(self) -> bool:
        """Whether the store has been filled by a complete list. It stays true afterwards."""
        return all(reflector.listed.is_set() for reflector in self._reflectors)

    @property
    def failing(self) -> str:
        """Why the objects cannot be read at the moment, for people. Empty if they can be read."""
        return "; ".join(reflector.failing for reflector in self._reflectors if reflector.failing)

    def add_handler(self, handler: Handler[T]) -> None:
        """Adds a handler that is called for every change of the store; see `Store.add_handler`."""
        self.store.add_handler(handler)

    async def run(self) -> None:
        """Lists and watches until it is cancelled."""
        async with asyncio.TaskGroup() as group:
            for reflector in self._reflectors:
                group.create_task(reflector.run(), name=f"reflector {reflector}")

    async def wait_synced(self) -> None:
        """Waits until the store has been filled by a complete list."""
        for reflector in self._reflectors:
            await reflector.listed.wait()

    async def wait_reached(self, resource_version: str, within: float, namespace: str = "") -> bool:
        """Waits until the store includes all changes up to a version, such as that of an own write.

        Args:
            resource_version: The version to reach.
            within: The maximum time to wait, in seconds. Stores are usually a few milliseconds behind.
            namespace: The namespace of the write. An informer of several namespaces waits only for this one.

        Returns:
            Whether the version was reached in time. If not, read from the API server. False for a version
            that has no order.
        """
        reached = ordered(resource_version)
        if resource_version and not reached:
            return False
        return await self.store.progress.wait(reached, namespace, within)
