"""The versions up to which a collection has been seen, and waiting for a version."""

import asyncio
from dataclasses import dataclass, field


@dataclass(eq=False)
class _Waiter:
    version: int
    namespace: str
    reached: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Progress:
    """The last seen version of each scope: a namespace, or all namespaces (an empty name).

    The versions of a kind are ordered as integers across all namespaces (KEP-5504).
    """

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}
        self._waiters: set[_Waiter] = set()

    def seen(self, namespace: str = "") -> int:
        """Returns the last seen version of a namespace, or the lowest one of all. 0 before the first list."""
        if namespace and "" not in self._seen:
            return self._seen.get(namespace, 0)
        return min(self._seen.values(), default=0)

    def reset(self, scope: str, version: int) -> None:
        """Sets the version of a list. It can be lower than before if etcd was restored from a backup."""
        self._seen[scope] = version
        self._wake()

    def advance(self, scope: str, version: int) -> None:
        """Raises the last seen version after a watch event."""
        if version > self._seen.get(scope, 0):
            self._seen[scope] = version
            if self._waiters:
                self._wake()

    async def wait(self, version: int, namespace: str, within: float) -> bool:
        """Waits until a version of a namespace, or of all namespaces, has been seen.

        Args:
            version: The resourceVersion to reach.
            namespace: The namespace. Empty: all.
            within: The maximum time to wait, in seconds.

        Returns:
            Whether the version was reached in time.
        """
        if self.seen(namespace) >= version:
            return True
        waiter = _Waiter(version, namespace)
        self._waiters.add(waiter)
        try:
            async with asyncio.timeout(within):
                await waiter.reached
        except TimeoutError:
            return False
        finally:
            self._waiters.discard(waiter)
        return True

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.reached.done() and self.seen(waiter.namespace) >= waiter.version:
                waiter.reached.set_result(None)
