"""Finds the watch and the object that a command names, or refuses the command."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from pilothouse.kube import Api, ApiError, Discovery, NotFound, ObjectKey, PartialObjectMetadata, Undecodable
from pilothouse.kube.resource import not_served
from pilothouse.playbook.watch import Watch
from pilothouse.process import Settings


class Refused(Exception):
    """The command was refused. The text says why, and what to do instead."""


def watches_of(watches: Sequence[Watch], kind: str) -> Sequence[Watch]:
    """Returns the watches of a kind.

    Args:
        watches: All watches of the operator.
        kind: The kind as kubectl accepts it (flightticket or flighttickets.flights.com), or the name of one
            watch.

    Raises:
        Refused: The operator has no such watch.
    """
    for names in (_own_name, _kind_names):
        if found := [watch for watch in watches if kind.lower() in names(watch)]:
            return found
    known = ", ".join(dict.fromkeys(watch.resource.kind for watch in watches))
    raise Refused(f"this operator does not watch the kind {kind!r}. Its kinds: {known or 'none'}")


def _own_name(watch: Watch) -> Sequence[str]:
    kind = watch.resource.kind.lower()
    return () if watch.name == kind else (watch.name.lower(),)


def _kind_names(watch: Watch) -> Sequence[str]:
    resource = watch.resource
    return resource.kind.lower(), resource.plural, str(resource)


class Selection:
    """Finds watches and objects as the operator selects them.

    Args:
        settings: The operator's settings.
        api: The client for the API server.
    """

    def __init__(self, settings: Settings, api: Api) -> None:
        self._settings = settings
        self._api = api

    async def watches_of(self, watches: Sequence[Watch], kind: str) -> Sequence[Watch]:
        """Returns the watches of a kind, like the function `watches_of`, and also finds short names.

        Raises:
            Refused: The operator has no such watch, or the API server refuses to list its kinds.
            Unreachable: The API server cannot be reached.
        """
        try:
            return watches_of(watches, kind)
        except Refused as refused:
            with suppress(ApiError, Undecodable, Refused):
                served = await Discovery(self._api).resolve(kind, PartialObjectMetadata)
                return watches_of(watches, str(served))
            raise refused

    async def choose(self, watches: Sequence[Watch], key: ObjectKey) -> Watch:
        """Returns the watch that reconciles an object, out of the watches of its kind.

        Raises:
            Refused: No watch selects the object, or more than one does.
            KubeError: A request to the API server failed.
        """
        if len(watches) == 1:
            return watches[0]  # `read` checks later that it selects the object.
        refusals: list[Refused] = []
        found: list[Watch] = []
        for watch in watches:
            try:
                await self.read(watch, key)
            except Refused as refused:
                refusals.append(refused)
            else:
                found.append(watch)
        if not found:
            raise refusals[0]
        if len(found) > 1:
            names = ", ".join(watch.name for watch in found)
            raise Refused(
                f"several watches reconcile {found[0].resource.kind} {key}: {names}. Use the name of one of "
                "them in place of the kind."
            )
        return found[0]

    def namespaces(self, watch: Watch) -> Sequence[str]:
        """Returns the namespaces in which the operator reconciles objects of a watch; empty for all."""
        return self._settings.watch_namespaces or watch.namespaces

    async def read(self, watch: Watch, key: ObjectKey) -> Any:
        """Returns an object from the API server.

        Raises:
            Refused: The operator does not reconcile this object.
            KubeError: A request to the API server failed.
        """
        resource, namespaces = watch.resource, self.namespaces(watch)
        if resource.namespaced and namespaces and key.namespace not in namespaces:
            raise Refused(
                f"the operator does not watch namespace {key.namespace!r}, only {', '.join(namespaces)} "
                "(WATCH_NAMESPACE)"
            )
        try:
            obj = await self._api.get(resource, key)
        except NotFound as error:
            if not error.reason:  # Not about an object: the API server does not know the path.
                raise Refused(not_served(resource)) from error
            raise Refused(
                f"there is no {resource.kind} {key} ({error}). List the objects with "
                f"`kubectl get {resource}{' -A' if resource.namespaced else ''}`."
            ) from error
        if not await self._selects(watch, key):
            selected = " and ".join(filter(None, (watch.selector, watch.field_selector)))
            raise Refused(
                f"the operator does not reconcile {resource.kind} {key}: the watch {watch.name} selects "
                f"{selected}"
            )
        return obj

    async def _selects(self, watch: Watch, key: ObjectKey) -> bool:
        """Asks the API server whether a watch's label and field selectors match an object."""
        if not (watch.selector or watch.field_selector):
            return True
        pages = self._api.pages(
            watch.resource,
            namespace=key.namespace,
            label_selector=watch.selector,
            field_selector=",".join(filter(None, (f"metadata.name={key.name}", watch.field_selector))),
        )
        return any([page.items async for page in pages])
