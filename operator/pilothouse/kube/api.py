"""The protocol through which the framework calls the API server. Tests use a model that implements it."""

from collections.abc import AsyncGenerator, Mapping
from enum import StrEnum
from typing import Protocol, TypeVar

from pilothouse.kube.answers import Page, WatchEvent
from pilothouse.kube.objects import KubeObject, ObjectKey
from pilothouse.kube.resource import Resource
from pilothouse.kube.transport import DEADLINE, JSON

T = TypeVar("T", bound=KubeObject)


class PatchType(StrEnum):
    """The format of a patch. The value is the content type."""

    MERGE = "application/merge-patch+json"
    JSON = "application/json-patch+json"
    APPLY = "application/apply-patch+yaml"


class Api(Protocol):
    """The calls that the framework makes. `Client` is the real implementation, and documents the errors."""

    async def get(self, resource: Resource[T], key: ObjectKey, *, subresource: str = "") -> T:
        """Reads an object."""

    def pages(
        self,
        resource: Resource[T],
        *,
        namespace: str = "",
        label_selector: str = "",
        field_selector: str = "",
        limit: int = ...,
    ) -> AsyncGenerator[Page[T], None]:
        """Lists a collection page by page. With a limit of 0, there is a single page."""

    def watch_list(
        self,
        resource: Resource[T],
        *,
        namespace: str = "",
        label_selector: str = "",
        field_selector: str = "",
    ) -> AsyncGenerator[WatchEvent[T], None]:
        """Yields existing objects as ADDED, END_OF_LIST, then changes. May raise WatchListUnsupported."""

    def watch(
        self,
        resource: Resource[T],
        *,
        resource_version: str,
        namespace: str = "",
        label_selector: str = "",
        field_selector: str = "",
    ) -> AsyncGenerator[WatchEvent[T], None]:
        """Yields the changes after a version. The first event is a BOOKMARK: the watch was accepted."""

    async def create(self, resource: Resource[T], body: object, *, namespace: str = "") -> T:
        """Creates an object and returns it as stored."""

    async def patch(
        self,
        resource: Resource[T],
        key: ObjectKey,
        body: object,
        *,
        type: PatchType,  # noqa: A002 - the API's own word
        subresource: str = "",
        field_manager: str = "",
        force: bool = False,
        dry_run: bool = False,
    ) -> T:
        """Changes some fields of an object and returns it as stored, or as a dry run would store it."""

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
        """Requests the deletion of an object."""

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: object = None,
        accept: str = JSON,
        deadline: float = DEADLINE,
    ) -> bytes:
        """Sends a request and returns the response's body."""
