"""The list of an operator's replicas, and who of them should hold which shard."""

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

# How long saying goodbye may take, seconds.
LEAVE_SECONDS = 2.0


def assign(replicas: Collection[str], shards: int) -> dict[int, str]:
    """Shares the shards out: who should hold which. No two replicas differ by more than one shard.

    By rendezvous hashing: of the replicas that have room, a shard goes to the one whose hash with the shard
    is highest, so that a replica that comes or goes moves few others' shards.

    Args:
        replicas: Who there is.
        shards: How many shards there are.
    """
    if not replicas:
        return {}
    least, more = divmod(shards, len(replicas))
    load = dict.fromkeys(sorted(replicas), 0)
    assigned = {}
    for shard in range(shards):
        # As long as one more than the least is still due to somebody, a replica has room for that one.
        room = [name for name, has in load.items() if has < least or (has == least and more)]
        chosen = max(room, key=lambda name: zlib.crc32(f"{name}/{shard}".encode()))
        more -= load[chosen] == least
        load[chosen] += 1
        assigned[shard] = chosen
    return assigned


class Beat(NamedTuple):
    """A replica's last sign of life: what it wrote, and when that was first seen (boottime)."""

    text: str
    since: float


class Replicas:
    """The list of replicas, as this one sees it.

    Args:
        api: Reaches the API server.
        lease: Where the list is.
        name: This replica's name, for people.
        patience: A replica that has not been heard of for so many seconds is dead.
    """

    def __init__(self, api: Api, lease: ObjectKey, name: str, patience: float) -> None:
        self.own = uuid.uuid4().hex
        self._api = api
        self._lease = lease
        self._name = name
        self._patience = patience
        self._beats: dict[str, Beat] = {}
        self._last = -math.inf  # When the list was last reached (boottime).

    async def beat(self) -> set[str]:
        """Gives a sign of life and returns who else has given one lately, this replica included.

        Raises:
            KubeError: The list cannot be reached.
        """
        time = boottime(asyncio.get_running_loop())()
        if time - self._last > self._patience / 2:
            # While the list was out of reach, perhaps nobody could give a sign: their time begins anew.
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
        """Takes this replica off the list, so that the others need not wait."""
        try:
            async with asyncio.timeout(LEAVE_SECONDS):
                await self._write({ANNOTATION + self.own: None})
        except (KubeError, TimeoutError) as error:
            why = str(error) or "no answer in time"
            log.warning("this replica stays on the list %s for a while: %s", self._lease, why)

    async def _write(self, annotations: Mapping[str, str | None]) -> Mapping[str, str]:
        body = {"metadata": {"annotations": annotations}}
        try:
            lease = await self._api.patch(LEASE, self._lease, body, type=PatchType.MERGE)
        except NotFound:
            given = {name: text for name, text in annotations.items() if text is not None}
            made = {"metadata": {"name": self._lease.name, "annotations": given}, "spec": {}}
            lease = await self._api.create(LEASE, made, namespace=self._lease.namespace)
        return lease.metadata.annotations
