"""The API server as controllers see it: small enough to be replaced by a model in tests."""

from typing import Protocol, TypeVar

from pilothouse.informer import ListWatcher
from pilothouse.kube import KubeObject, ObjectKey, PatchType, Requester, Resource

T = TypeVar("T", bound=KubeObject)


class Api(ListWatcher, Requester, Protocol):
    """The calls that the runtime makes; `pilothouse.kube.Client` is the real one and documents the errors."""

    async def get(self, resource: Resource[T], key: ObjectKey, *, subresource: str = "") -> T:
        """Reads one object."""

    async def create(self, resource: Resource[T], body: object, *, namespace: str = "") -> T:
        """Creates an object and returns it as stored."""

    async def patch(
        self,
        resource: Resource[T],
        key: ObjectKey,
        body: object,
        *,
        type: PatchType,  # noqa: A002 - the client's own name
        subresource: str = "",
        field_manager: str = "",
        force: bool = False,
        dry_run: bool = False,
    ) -> T:
        """Changes some fields of an object and returns it as stored, or as it would be."""

    async def delete(
        self,
        resource: Resource[T],
        key: ObjectKey,
        *,
        uid: str = "",
        resource_version: str = "",
        propagation: str = "Background",
        grace_seconds: int | None = None,
    ) -> None:
        """Asks for an object's deletion."""
