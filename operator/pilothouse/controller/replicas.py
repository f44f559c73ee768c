"""The list of an operator's replicas, and the assignment of shards to them."""

import asyncio
import logging
import math
import uuid
import zlib
from collections.abc import Collection, Mapping
from typing import NamedTuple

from pilothouse.controller.lease import LEASE
from pilothouse.kube import Api, KubeError, NotFound, ObjectKey, PatchType
from pilothouse.telemetry import now
from pilothouse.telemetry.clock import boottime

log = logging.getLogger(__name__)

ANNOTATION = "replica.pilothouse.dev/"

# Time limit for removing this replica from the list when it stops, in seconds.
LEAVE_SECONDS = 2.0


def assign(replicas: Collection[str], shards: int) -> dict[int, str]:
    """Assigns each shard to a replica. The replicas' numbers of shards differ by at most one.

    It uses rendezvous hashing: of the replicas that have room, the one with the highest hash of replica and
    shard gets the shard. When a replica starts or stops, few shards of the others move.

    Args:
        replicas: The names of the replicas.
        shards: The number of shards.

    Returns:
        The replica of each shard; empty without replicas.
    """
    if not replicas:
        return {}
    least, more = divmod(shards, len(replicas))
    load = dict.fromkeys(sorted(replicas), 0)
    assigned = {}
    for shard in range(shards):
        # `more` replicas get one shard more than the minimum: until they are found, any replica has room.
        room = [name for name, has in load.items() if has < least or (has == least and more)]
        chosen = max(room, key=lambda name: zlib.crc32(f"{name}/{shard}".encode()))
        more -= load[chosen] == least
        load[chosen] += 1
        assigned[shard] = chosen
    return assigned


class Beat(NamedTuple):
    """A replica's last heartbeat: the text of its annotation, and when it was first seen (boottime)."""

    text: str
    since: float


class Replicas:
    """The list of replicas as this replica sees it.

    Args:
        api: The client of the API server.
        lease: The Lease that stores the list.
        name: The name of this replica, for people who read the list.
        patience: After how many seconds without a heartbeat a replica counts as dead.
    """

    def __init__(self, api: Api, lease: ObjectKey, name: str, patience: float) -> None:
        self.own = uuid.uuid4().hex
        self._api = api
        self._lease = lease
        self._name = name
        self._patience = patience
        self._beats: dict[str, Beat] = {}
        self._last = -math.inf  # When the list was last read (boottime).

    async def beat(self) -> set[str]:
        """Writes this replica's heartbeat and returns the names of all live replicas, including this one.

        Raises:
            KubeError: The list could not be written.
        """
        time = boottime(asyncio.get_running_loop())()
        if time - self._last > self._patience / 2:
            # While the list was out of reach, other replicas may have been unable to write, too: restart
            # their timers.
            self._beats = {}
        dead = {each for each, beat in self._beats.items() if time - beat.since > self._patience}
        own = f"{self._name} {now().isoformat()}"
        annotations = {ANNOTATION + each: None for each in dead} | {ANNOTATION + self.own: own}
        found = await self._write(annotations)
        beats = {}
        for name, text in found.items():
            if name.startswith(ANNOTATION):
                replica = name.removeprefix(ANNOTATION)
                known = self._beats.get(replica)
                beats[replica] = known if known is not None and known.text == text else Beat(text, time)
        self._beats = beats
        self._last = time
        return {each for each, beat in beats.items() if time - beat.since <= self._patience}

    async def leave(self) -> None:
        """Removes this replica from the list, so that the others take its shards without waiting."""
        try:
            async with asyncio.timeout(LEAVE_SECONDS):
                await self._write({ANNOTATION + self.own: None})
        except (KubeError, TimeoutError) as error:
            why = str(error) or "no response in time"
            log.warning(
                "Could not remove this replica from the list %s, the others will wait for its heartbeat: %s",
                self._lease,
                why,
            )

    async def _write(self, annotations: Mapping[str, str | None]) -> Mapping[str, str]:
        body = {"metadata": {"annotations": annotations}}
        try:
            lease = await self._api.patch(LEASE, self._lease, body, type=PatchType.MERGE)
        except NotFound:
            given = {name: text for name, text in annotations.items() if text is not None}
            made = {"metadata": {"name": self._lease.name, "annotations": given}, "spec": {}}
            lease = await self._api.create(LEASE, made, namespace=self._lease.namespace)
        return lease.metadata.annotations
