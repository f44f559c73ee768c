"""The API server as the runtime calls it: one protocol, which tests replace by a model."""

from collections.abc import AsyncGenerator, Mapping
from enum import StrEnum
from typing import Protocol, TypeVar

from pilothouse.kube.answers import Page, WatchEvent
from pilothouse.kube.objects import KubeObject, ObjectKey
from pilothouse.kube.resource import Resource
from pilothouse.kube.transport import DEADLINE, JSON

T = TypeVar("T", bound=KubeObject)


class PatchType(StrEnum):
    """The format of a patch. The value is its content type."""

    MERGE = "application/merge-patch+json"
    JSON = "application/json-patch+json"
    APPLY = "application/apply-patch+yaml"


class Api(Protocol):
    """The calls that the runtime makes. `Client` is the real implementation and documents the errors."""

    async def get(self, resource: Resource[T], key: ObjectKey, *, subresource: str = "") -> T:
        """Read one object."""

    def pages(
        self,
        resource: Resource[T],
        *,
        namespace: str = "",
        label_selector: str = "",
        field_selector: str = "",
        limit: int = ...,
    ) -> AsyncGenerator[Page[T], None]:
        """List a collection, page by page. A limit of 0 asks for a single page."""

    def watch_list(
        self,
        resource: Resource[T],
        *,
        namespace: str = "",
        label_selector: str = "",
        field_selector: str = "",
    ) -> AsyncGenerator[WatchEvent[T], None]:
        """Yield existing objects as ADDED, then END_OF_LIST, then changes. May raise WatchListUnsupported."""

    def watch(
        self,
        resource: Resource[T],
        *,
        resource_version: str,
        namespace: str = "",
        label_selector: str = "",
        field_selector: str = "",
    ) -> AsyncGenerator[WatchEvent[T], None]:
        """Yield the changes after a version. The first event is a BOOKMARK: the server accepted the watch."""

    async def create(self, resource: Resource[T], body: object, *, namespace: str = "") -> T:
        """Create an object and return it as stored."""

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
        """Change some fields of an object and return it as stored, or as a dry run would store it."""

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
        """Request the deletion of an object."""

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
        """Send any request and return the raw answer."""
