"""One watch per kind for a whole process."""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

from pilothouse.informer.informer import Informer
from pilothouse.informer.store import Transform
from pilothouse.informer.transforms import drop_last_applied
from pilothouse.kube import Api, KubeObject, Resource

T = TypeVar("T", bound=KubeObject)


class Selection(NamedTuple):
    """The objects that one watch brings."""

    group: str
    version: str
    plural: str
    namespaces: frozenset[str]
    label_selector: str
    field_selector: str


class InformerFactory:
    """Hands out informers, and runs one list and watch for all that see the same objects.

    Who asks for the same view of the same objects gets the same informer. Who asks for another view gets an
    informer of its own, fed by the same watch, which then reads the union of the views; see
    `pilothouse.informer.views`. Ask before `run`.

    Args:
        client: `pilothouse.kube.Client`, or a model of it.
    """

    def __init__(self, client: Api) -> None:
        self._client = client
        self._informers: dict[tuple[Selection, type, Transform[Any]], Informer[Any]] = {}
        # The informer of each selection that is run: the first one, which feeds the others.
        self._running: dict[Selection, Informer[Any]] = {}
        self._started = False

    def informer(
        self,
        resource: Resource[T],
        *,
        namespaces: Sequence[str] = (),
        label_selector: str = "",
        field_selector: str = "",
        transform: Transform[T] = drop_last_applied,
    ) -> Informer[T]:
        """Return the informer of a kind, in a view, made now or when somebody else asked for the same.

        Args:
            resource: the kind and its view.
            namespaces: which to see; none means all.
            label_selector: objects to see, such as `app=web`.
            field_selector: objects to see, such as `metadata.name=web`.
            transform: drops from each object what nobody reads, before it is stored.

        Raises:
            TypeError: the view contradicts another one of the same objects, or it or a Struct in it is not
                frozen; the message names the field or the class.
            RuntimeError: the watches run already.
        """
        selection = Selection(
            resource.group,
            resource.version,
            resource.plural,
            frozenset(namespaces if resource.namespaced else ()),
            label_selector,
            field_selector,
        )
        known = self._informers.get((selection, resource.view, transform))
        if known is not None:
            return known
        if self._started:
            raise RuntimeError(f"the watches run already; ask for the informer of {resource} before that")
        informer = Informer(
            self._client,
            resource,
            namespaces=sorted(selection.namespaces),
            label_selector=label_selector,
            field_selector=field_selector,
            transform=transform,
        )
        first = self._running.setdefault(selection, informer)
        if first is not informer:
            first.feed(informer)
        self._informers[selection, resource.view, transform] = informer
        return informer

    def __iter__(self) -> Iterator[Informer[Any]]:
        """Go over the watches: one informer of each, which knows whether it is synced and why it fails."""
        return iter(self._running.values())

    @property
    def waiting_for(self) -> list[str]:
        """What is not completely read yet, and why, as sentences for people; empty once all is."""
        return [
            f"{informer.resource} are not all read yet"
            + (f": {informer.failing}" if informer.failing else "")
            for informer in self
            if not informer.synced
        ]

    @property
    def failing(self) -> list[str]:
        """What has been read and cannot be read at present, and why, as sentences for people.

        A kind or a right that was taken away, for example. What was last seen stays in the stores.
        """
        return [informer.failing for informer in self if informer.synced and informer.failing]

    async def run(self) -> None:
        """List and watch everything that was asked for, for ever; ends only by cancellation."""
        self._started = True
        async with asyncio.TaskGroup() as group:
            for informer in self:
                group.create_task(informer.run())

    async def wait_synced(self) -> None:
        """Return once every store has held its whole collection."""
        for informer in self:
            await informer.wait_synced()
