"""Reports the finalizers that keep an object although this operator has nothing left to do with it."""

import asyncio
import logging
from collections.abc import Callable, Collection
from typing import NamedTuple

from pilothouse.controller import EventType, Outcome
from pilothouse.kube import ObjectKey, ObjectMeta
from pilothouse.playbook.announcer import Announcer
from pilothouse.playbook.finalizers import Finalizers
from pilothouse.playbook.play import PlayEvent
from pilothouse.playbook.tasks import TaskFailed

log = logging.getLogger(__name__)

UNKNOWN_FINALIZER = "UnknownFinalizer"
FINALIZERS_REMAIN = "FinalizersRemain"
"""Reasons of Events."""

# Other controllers usually remove their finalizers within seconds. A deletion that waits longer is reported.
PATIENCE_SECONDS = 60.0

DONE = Outcome()


class Pending(NamedTuple):
    """An object whose deletion waits for finalizers of others.

    Attributes:
        uid: Its UID.
        since: When this process first saw that, in seconds of the event loop's clock.
        reported: Whether it was reported.
    """

    uid: str
    since: float
    reported: bool


class RemainingFinalizers:
    """Reports finalizers that a playbook does not have.

    Args:
        group: The API group of the kind.
        own: The finalizers of the playbook.
        known: Returns the finalizers of all watches of the kind in the process.
        announcer: Records the Events.
    """

    def __init__(
        self,
        group: str,
        own: Finalizers,
        known: Callable[[], Collection[str]],
        announcer: Announcer,
    ) -> None:
        self._own = own
        # What most objects have.
        self._usual = (own.current,) if own.current else ()
        self._domains = {group, *own.domains}
        self._known = known
        self._announcer = announcer
        # The finalizers of our domains that were logged because this release does not know them.
        self._logged: set[str] = set()
        self._pending: dict[ObjectKey, Pending] = {}

    def forget(self, key: ObjectKey) -> None:
        """Forgets an object that no longer exists."""
        self._pending.pop(key, None)

    def log_unknown(self, metadata: ObjectMeta) -> None:
        """Logs the finalizers of our domain that this release does not know, once for each name.

        They are no trouble before an object is deleted. The log line shows them when the release is
        installed, before a user waits for a deletion.
        """
        if metadata.finalizers == self._usual:
            return
        unknown = ", ".join(self._unknown(metadata))
        if not unknown or unknown in self._logged:
            return
        self._logged.add(unknown)
        log.warning(
            "Found the finalizer %s, which this release of the operator does not know. If no other "
            "controller removes it, the deletion of its objects will not finish. If an earlier release "
            "stored it, add it to the playbook's retired_finalizers. It is logged for the first object only",
            unknown,
        )

    def report(self, metadata: ObjectMeta) -> Outcome:
        """Reports, once, the finalizers that keep a deleted object after the operator's own cleanup.

        Another controller may remove them. But an earlier release of the operator may also have stored them.
        One of our domain is reported immediately, because that is likely. Others are legitimate, so they are
        reported only if the deletion takes long, and without a warning.

        Returns:
            When to check the object again.
        """
        others = self._others(metadata)
        if not others:
            return DONE
        now = asyncio.get_running_loop().time()
        pending = self._pending.get(metadata.key)
        if pending is None or pending.uid != metadata.uid:
            pending = self._pending[metadata.key] = Pending(metadata.uid, now, reported=False)
        if pending.reported:
            return DONE
        unknown = self._unknown(metadata)
        left = pending.since + PATIENCE_SECONDS - now
        if not unknown and left > 0:
            return Outcome(left)
        self._pending[metadata.key] = pending._replace(reported=True)
        if unknown:
            self._warn(metadata, ", ".join(unknown))
        else:
            self._note(metadata, ", ".join(others))
        return DONE

    def _warn(self, metadata: ObjectMeta, unknown: str) -> None:
        message = (
            f"The object cannot be deleted because of the finalizer {unknown}, which this release "
            "of the operator does not know. If an earlier release stored it, add it to the playbook's "
            "retired_finalizers. Or delete manually what belongs to the object, and remove the finalizer."
        )
        log.warning("%s", message)
        self._announcer.warn(metadata, TaskFailed(UNKNOWN_FINALIZER, message))

    def _note(self, metadata: ObjectMeta, others: str) -> None:
        message = (
            "This operator has nothing left to do for the deletion. The object exists until other "
            f"controllers remove these finalizers: {others}. If an earlier release of this operator stored "
            "one of them, add it to the playbook's retired_finalizers."
        )
        log.info("%s", message)
        event = PlayEvent(EventType.NORMAL, FINALIZERS_REMAIN, message, "Delete")
        self._announcer.record(metadata, event)

    def _others(self, metadata: ObjectMeta) -> list[str]:
        """Returns the finalizers that no watch of this process has."""
        if not metadata.finalizers:
            return []
        known = {self._own.current, *self._own.retired, *self._known()}
        return [name for name in metadata.finalizers if name not in known]

    def _unknown(self, metadata: ObjectMeta) -> list[str]:
        """Returns those of them that are in our domains."""
        if not any(name.partition("/")[0] in self._domains for name in metadata.finalizers):
            return []
        return [name for name in self._others(metadata) if name.partition("/")[0] in self._domains]
