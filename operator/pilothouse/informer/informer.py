"""The informer: a store of one kind, fed by a reflector per namespace or one for all."""

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
    """Keeps a store of a kind like the server's, from a list and a watch, and tells handlers of every change.

    Trouble never ends it: a missing kind or permission, a lost connection or a forgotten version is said in
    `failing` and in the log, tried again with back-off, and heals by itself.

    Attributes:
        resource: the kind and its view.
        store: the objects as last seen.
        label_selector: objects to see, as given.
        field_selector: objects to see, as given.

    Args:
        client: `pilothouse.kube.Client`, or a model of it.
        resource: the kind and its view.
        namespaces: which to see; none means all.
        label_selector: objects to see, such as `app=web`.
        field_selector: objects to see, such as `metadata.name=web`.
        transform: drops from each object what nobody reads, before it is stored.

    Raises:
        TypeError: the view, or a Struct in it, is not frozen; the message names the class.
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
        self.store: Store[T] = Store(str(resource), transform)
        # Who is fed by this informer's watch: itself, and informers of other views.
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
        """Feed another informer of the same objects in another view, too, which then needs no watch.

        Call it before either runs; only this one is run then. See `pilothouse.informer.views`.

        Raises:
            TypeError: the views contradict each other; the message names field and types.
        """
        resource = union([each.resource for each in (*self._fed, other)])
        self._fed.append(other)
        fanout = Fanout(resource, [Reader(each.resource.view, each.store) for each in self._fed])
        for reflector in self._reflectors:
            reflector.feed(resource, fanout)
        other._reflectors = self._reflectors

    @property
    def synced(self) -> bool:
        """Whether the store has once held the whole collection. Stays true."""
        return all(reflector.listed.is_set() for reflector in self._reflectors)

    @property
    def failing(self) -> str:
        """Why the collection cannot be read at present, as a sentence for people; empty when it can."""
        return "; ".join(reflector.failing for reflector in self._reflectors if reflector.failing)

    def add_handler(self, handler: Handler[T]) -> None:
        """Tell `handler` (old, new, initial) of every change of the store; see `Store.add_handler`."""
        self.store.add_handler(handler)

    async def run(self) -> None:
        """List and watch for ever; ends only by cancellation."""
        async with asyncio.TaskGroup() as group:
            for reflector in self._reflectors:
                group.create_task(reflector.run(), name=f"reflector {reflector}")

    async def wait_synced(self) -> None:
        """Return once the store has held the whole collection."""
        for reflector in self._reflectors:
            await reflector.listed.wait()

    async def wait_reached(self, resource_version: str, within: float, namespace: str = "") -> bool:
        """Wait until the store shows everything up to a version, such as the one that an own write returned.

        Args:
            resource_version: the version to reach.
            within: seconds to wait at most; client-go's informers are seldom more than some milliseconds
                behind.
            namespace: where the write was; with an informer of several namespaces only that one is waited
                for.

        Returns:
            Whether it was reached in time; if not, read from the server. False for a version without an
            order.
        """
        reached = ordered(resource_version)
        if resource_version and not reached:
            return False
        return await self.store.progress.wait(reached, namespace, within)
