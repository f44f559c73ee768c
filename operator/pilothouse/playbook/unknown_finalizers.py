"""Reports finalizers of the operator's own domain that this release does not know.

An earlier release may have stored them. Then no controller removes them, and the deletion does not finish.
"""

import logging
from collections.abc import Callable, Collection
from typing import Any

from pilothouse.kube import ObjectMeta
from pilothouse.playbook.announcer import Announcer
from pilothouse.playbook.finalizers import Finalizers
from pilothouse.playbook.tasks import TaskFailed
from pilothouse.playbook.trouble import UNKNOWN_FINALIZER, Trouble

log = logging.getLogger(__name__)


class UnknownFinalizers:
    """Reports the finalizers of one kind that this release does not know.

    Args:
        group: The API group of the kind.
        finalizers: The finalizers of the playbook.
        known: Returns the finalizers of all watches of the kind in the process.
        trouble: Prevents that a report is repeated.
        announcer: Records the Events.
    """

    def __init__(
        self,
        group: str,
        finalizers: Finalizers,
        known: Callable[[], Collection[str]],
        trouble: Trouble[Any],
        announcer: Announcer,
    ) -> None:
        self._group = group
        self._finalizers = finalizers
        self._known = known
        self._trouble = trouble
        self._announcer = announcer
        self._logged: set[str] = set()

    def report(self, metadata: ObjectMeta) -> None:
        """Reports finalizers of our domain on a deleted object that this release does not know.

        Another controller of the group may remove them. But an earlier release may also have stored them.
        """
        unknown = self._unknown(metadata)
        if not unknown:
            return
        failure = TaskFailed(
            UNKNOWN_FINALIZER,
            f"The object cannot be deleted because of the finalizer {unknown}, which this release "
            "of the operator does not know. If an earlier release stored it, add it to the playbook's "
            "retired_finalizers. Or delete manually what belongs to the object, and remove the finalizer.",
        )
        if not self._trouble.repeated(metadata, failure):
            log.warning("%s", failure.message)
            self._announcer.warn(metadata, failure)

    def log_once(self, metadata: ObjectMeta) -> None:
        """Logs the finalizers of our domain that this release does not know, once for each name.

        They are no trouble before an object is deleted. The log line shows them when the release is
        installed, before a user waits for a deletion.
        """
        unknown = self._unknown(metadata)
        if not unknown or unknown in self._logged:
            return
        self._logged.add(unknown)
        log.warning(
            "Found the finalizer %s, which this release of the operator does not know. If no other "
            "controller removes it, the deletion of its objects will not finish. If an earlier release "
            "stored it, add it to the playbook's retired_finalizers. It is logged for the first object only",
            unknown,
        )

    def _unknown(self, metadata: ObjectMeta) -> str:
        """Returns the finalizers of our domains that the playbook does not have, separated by commas."""
        finalizers = self._finalizers
        domains = {self._group, *finalizers.domains}
        others = [name for name in metadata.finalizers if name.partition("/")[0] in domains]
        if not others:
            return ""
        known = {finalizers.current, *finalizers.retired, *self._known()}
        return ", ".join(name for name in others if name not in known)
