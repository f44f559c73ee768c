"""Shared informers: one watch per kind for the whole process."""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

from pilothouse.informer.informer import Informer
from pilothouse.informer.store import Transform
from pilothouse.informer.transforms import drop_last_applied
from pilothouse.kube import Api, KubeObject, Resource

T = TypeVar("T", bound=KubeObject)


class Selection(NamedTuple):
    """The objects that one watch covers."""

    group: str
    version: str
    plural: str
    namespaces: frozenset[str]
    label_selector: str
    field_selector: str


class InformerFactory:
    """Creates informers, and runs one list and watch for all informers of the same objects.

    Two requests for the same view of the same objects return the same informer. A request for another view
    returns a separate informer that is fed by the same watch. That watch then decodes the union of the views;
    see `pilothouse.informer.views`. Request all informers before `run`.

    Args:
        client: A `pilothouse.kube.Client`, or a model of it.
    """

    def __init__(self, client: Api) -> None:
        self._client = client
        self._informers: dict[tuple[Selection, type, Transform[Any]], Informer[Any]] = {}
        # The first informer of each selection. It runs, and feeds the others.
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
        """Returns the informer for a view of a kind. An equal request returns the same informer.

        Args:
            resource: The kind and its view.
            namespaces: The namespaces to watch. Empty: all.
            label_selector: The label selector of the objects, such as `app=web`.
            field_selector: The field selector of the objects, such as `metadata.name=web`.
            transform: Removes unneeded parts of each object before it is stored.

        Raises:
            TypeError: The view contradicts another view of the same objects, or the view or a Struct in it is
                not frozen. The message names the field or the class.
            RuntimeError: The watches are already running.
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
            raise RuntimeError(
                f"the watches are already running; request the informer of {resource} before `run`"
            )
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
        """Iterates over the running informers, one for each watch."""
        return iter(self._running.values())

    @property
    def waiting_for(self) -> list[str]:
        """One text for each kind that has not been listed completely yet, with the reason."""
        return [
            f"{informer.resource} have not been listed yet"
            + (f": {informer.failing}" if informer.failing else "")
            for informer in self
            if not informer.synced
        ]

    @property
    def failing(self) -> list[str]:
        """One text for each kind that was listed and cannot be read now, with the reason.

        For example, its CRD or the operator's permission was removed. The stores keep the last known objects.
        """
        return [informer.failing for informer in self if informer.synced and informer.failing]

    async def run(self) -> None:
        """Lists and watches all requested objects until it is cancelled."""
        self._started = True
        async with asyncio.TaskGroup() as group:
            for informer in self:
                group.create_task(informer.run())

    async def wait_synced(self) -> None:
        """Waits until every store has been filled by a complete list."""
        for informer in self:
            await informer.wait_synced()
