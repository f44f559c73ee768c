"""Whole collections, for tests that do not care about pages."""

from contextlib import aclosing
from typing import Any, TypeVar

from pilothouse.kube import Api, KubeObject, Resource

T = TypeVar("T", bound=KubeObject)


async def listed(api: Api, resource: Resource[T], **selectors: Any) -> list[T]:
    """Return all objects of a collection; the selectors are those of `Client.pages`."""
    async with aclosing(api.pages(resource, **selectors)) as pages:
        return [each async for page in pages for each in page.items]
