"""Ends a list that has no end: a server that sends a continue token with every page."""

from typing import Any

from pilothouse.kube.answers import Page
from pilothouse.kube.errors import Undecodable
from pilothouse.kube.objects import ObjectKey
from pilothouse.kube.resource import Resource

# With 500 objects per page, far more than fit into an API server or into the memory of an operator.
MOST_PAGES = 10_000
# The API server fills its pages. An aggregated API may filter each page only after it was read.
MOST_EMPTY_PAGES = 100


class Pagination:
    """Checks that each page of one list brings the list closer to its end.

    Args:
        resource: The kind, for errors.
    """

    def __init__(self, resource: Resource[Any]) -> None:
        self._resource = resource
        self._tokens: set[str] = set()
        self._first: set[ObjectKey] = set()
        self._pages = 0
        self._empty = 0

    def require_progress(self, page: Page[Any], token: str) -> None:
        """Checks a page. Call it before the next page is requested.

        Args:
            page: The page.
            token: The continue token of the next page; empty after the last one.

        Raises:
            Undecodable: The list would not end.
        """
        if not token:
            return
        self._pages += 1
        shown = [each.metadata.key for each in (*page.items[:1], *page.misfits[:1])]
        self._empty = 0 if shown else self._empty + 1
        if token in self._tokens:
            raise self._endless(f"page {self._pages} has the continue token of an earlier page")
        if any(key in self._first for key in shown):
            raise self._endless(f"page {self._pages} begins with {shown[0]}, as an earlier page does")
        if self._empty > MOST_EMPTY_PAGES:
            raise self._endless(f"{self._empty} pages in a row are empty, and more follow")
        if self._pages >= MOST_PAGES:
            raise self._endless(f"more pages follow after {self._pages:,}")
        self._tokens.add(token)
        self._first.update(shown)

    def _endless(self, why: str) -> Undecodable:
        return Undecodable(
            f"the list of {self._resource} does not end: {why}. Check the API server of this kind, or a "
            "proxy in front of it"
        )
