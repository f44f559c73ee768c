"""How far a collection has been seen, and who waits for it to get further."""

import asyncio
from dataclasses import dataclass, field


@dataclass(eq=False)
class _Waiter:
    version: int
    namespace: str
    reached: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Progress:
    """The last seen version of each scope: one for all namespaces (its name is empty), or one for each.

    Versions of a kind are ordered as integers, over all namespaces (KEP-5504).
    """

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}
        self._waiters: set[_Waiter] = set()

    def seen(self, namespace: str = "") -> int:
        """Return how far a namespace has been seen; with no namespace, the one seen least far.

        0 before any list.
        """
        if namespace and "" not in self._seen:
            return self._seen.get(namespace, 0)
        return min(self._seen.values(), default=0)

    def reset(self, scope: str, version: int) -> None:
        """Note what a list shows; it may be less than before, when etcd was restored from a backup."""
        self._seen[scope] = version
        self._wake()

    def advance(self, scope: str, version: int) -> None:
        """Note that the watch has come to a version."""
        if version > self._seen.get(scope, 0):
            self._seen[scope] = version
            if self._waiters:
                self._wake()

    async def wait(self, version: int, namespace: str, within: float) -> bool:
        """Wait until a namespace (or all) has been seen up to a version.

        Args:
            version: the resourceVersion to reach.
            namespace: where; empty for all.
            within: seconds to wait at most.

        Returns:
            Whether it was reached in time.
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
