"""A scenario: what a user does to an operator's objects, on a model of the API server, under faults."""

import asyncio
import contextvars
import copy
import difflib
import pprint
import random
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

from pilothouse.controller.lease import LEASE
from pilothouse.controller.sharding import shard_lease
from pilothouse.kube import ObjectKey
from pilothouse.playbook import Watch, add_watch
from pilothouse.process import Manager, Settings
from pilothouse.testing.documents import Json
from pilothouse.testing.faults import Faults, Injection, Site
from pilothouse.testing.faulty import FaultyApi
from pilothouse.testing.model import ModelApi
from pilothouse.testing.process import Process
from pilothouse.testing.threads import AwaitedThreads
from pilothouse.testing.virtual_time import VirtualTimeLoop

#: After each step the operator is left alone for so long before anybody looks, seconds.
SETTLE_SECONDS = 40.0
#: A run that has not come to the expected state by then never will, seconds.
PATIENCE = 2000.0
#: How soon a process that has ended is replaced, seconds.
RESTART_SECONDS = 1.0
#: A process that ends again and again is a defect.
RESTARTS = 20
LEASE_KEY = ObjectKey("operators", "operator")

# What no user sees as part of the state.
_NOT_STATE = ("leases.coordination.k8s.io", "events.events.k8s.io", "events")


class Scenario(ABC):
    """What a user does, and what comes of it. One is made for each run, so that all begin alike.

    It holds the models of the outside systems, which outlive the operator's processes.

    Attributes:
        streams_lists: Whether the API server streams its lists, as it does by default since 1.34.
        shards: Where processes elect leaders: among how many shards they share the objects out; 0: they do
            not, one leads.
    """

    streams_lists = True
    shards = 0

    @abstractmethod
    def watches(self, process: Process) -> Sequence[Watch]:
        """Return what a new process of the operator watches; nothing in it may be shared between processes.

        Give the playbooks `Outside(model, process, ...)` in place of the outside systems' clients.
        """

    @abstractmethod
    def play(self, user: ModelApi) -> Iterator[str | float]:
        """Do what a user does, step by step.

        Yield a step's name: the next one follows when all has settled. Or yield seconds: the next one
        follows then, whatever the operator is at.
        """

    def effects(self) -> Sequence[str]:
        """Return what has been done outside so far: no run may do more than the one without faults."""
        return ()

    def state(self, api: ModelApi) -> object:
        """Return what must be the same at the end of every step.

        By default every object of every kind, Events and Leases left out, without resourceVersions and
        times. Add what the outside systems hold.
        """
        return objects_state(api)


def objects_state(api: ModelApi) -> dict[str, Json]:
    """Return every object, Events and Leases left out, without what differs from run to run."""
    return {
        f"{collection.resource} {key}": _timeless(obj)
        for collection in api.server.collections()
        if str(collection.resource) not in _NOT_STATE
        for key, obj in collection.objects.items()
    }


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: _timeless(each)
            for name, each in value.items()
            if not name.endswith(("Time", "Timestamp")) and name != "resourceVersion"
        }
    return [_timeless(each) for each in value] if isinstance(value, list) else value


@dataclass(frozen=True)
class Step:
    """What there is at the end of a step: compared between runs."""

    name: str
    state: object
    effects: Counter[str]


@dataclass
class Run:
    """One run of a scenario.

    Attributes:
        injections: the faults.
        steps: what came of each step.
        sites: all calls, but for those of elections.
        elections: those.
        struck: the faults that befell a call.
        failure: why it did not come to the expected end; empty when it did.
    """

    injections: tuple[Injection, ...]
    steps: list[Step] = field(default_factory=list)
    sites: list[Site] = field(default_factory=list)
    elections: list[Site] = field(default_factory=list)
    struck: set[Injection] = field(default_factory=set)
    failure: str = ""

    def __str__(self) -> str:
        faults = " and ".join(map(str, self.injections)) or "no fault"
        if not self.failure:
            return f"{faults}: converged"
        calls = "\n".join(f"    {site}" for site in self.sites[-40:])
        return f"{faults}: {self.failure}\n  the last calls:\n{calls}"


class _Failed(Exception):
    """The run came to another end than it must."""


class World:
    """An API server in memory, and the operator's processes: one after the other, for a while two at once.

    Args:
        scenario: what happens.
        injections: the faults.
        expected: what must come of each step; None: this run says it.
        elected: whether the processes elect a leader.
    """

    def __init__(
        self,
        scenario: Scenario,
        injections: Sequence[Injection] = (),
        expected: Sequence[Step] | None = None,
        *,
        elected: bool = False,
    ) -> None:
        self.api = ModelApi()
        # Watches would end by the clock, and runs would not make the same calls: faults alone cut them.
        self.api.ends_watches = False
        self.faults = Faults(*injections)
        self.faults.leaders = self._leaders
        self.faults.start_rival = self._start_replica
        self._scenario = scenario
        self._expected = expected
        self._elected = elected
        self._processes = 0
        self._replicas: list[asyncio.Task[None]] = []
        faults = self.faults
        self.run = Run(
            tuple(injections), sites=faults.sites, elections=faults.elections, struck=faults.struck
        )

    async def play(self) -> None:
        """Run the scenario; what came of it is in `run`."""
        garbage = asyncio.get_running_loop().create_task(self._collect_garbage())
        try:
            started = False
            for name in self._scenario.play(self.api):
                if not started:
                    self._start_replica()
                    started = True
                if isinstance(name, str):
                    self.run.steps.append(await self._settle(name))
                else:
                    await asyncio.sleep(name)
        except _Failed as failed:
            self.run.failure = str(failed)
        finally:
            await _end([*self._replicas, garbage])

    async def _settle(self, name: str) -> Step:
        expected = self._expected[len(self.run.steps)] if self._expected is not None else None
        loop = asyncio.get_running_loop()
        ends = loop.time() + PATIENCE
        before = None
        while True:
            await asyncio.sleep(SETTLE_SECONDS)
            state = copy.deepcopy(self._scenario.state(self.api))
            now = Step(name, state, Counter(self._scenario.effects()))
            self._check()
            if expected is not None and now.effects - expected.effects:
                raise _Failed(f"{name!r}: done too often: {dict(now.effects - expected.effects)}")
            if now == before if expected is None else now.state == expected.state:
                return now
            if loop.time() > ends:
                raise _Failed(f"{name!r} did not converge:\n{_difference(expected or before, now)}")
            before = now

    def _check(self) -> None:
        if self.faults.broken:
            raise _Failed(self.faults.broken[0])
        for replica in self._replicas:
            if replica.done():
                raise _Failed(str(replica.exception() or "the operator has stopped by itself"))

    def _start_replica(self) -> None:
        # Whoever asks for it, it is nobody's child.
        replica = asyncio.get_running_loop().create_task(self._keep_running(), context=contextvars.Context())
        self._replicas.append(replica)

    async def _keep_running(self) -> None:
        """Replace the process whenever it ends, as a Deployment does."""
        ended = "it was killed"
        for _ in range(RESTARTS):
            self._processes += 1
            ended = await self._run_process(self._processes)
            await asyncio.sleep(RESTART_SECONDS)
        raise _Failed(f"the operator ended {RESTARTS} times, the last time because {ended}")

    async def _run_process(self, number: int) -> str:
        """Run a process to its end; return why it ended."""
        name = f"operator-{number}"
        process = Process(self.faults, number, f"{name}_")
        loop = asyncio.get_running_loop()
        with process.tasks.running() if self._elected else nullcontext():
            work = loop.create_task(self._operate(process, name))
        died = loop.create_task(process.died.wait())
        try:
            await asyncio.wait([work, died], return_when=asyncio.FIRST_COMPLETED)
        finally:
            process.died.set()
            process.tasks.thaw()
            await _end([work, died])
        if work.cancelled():
            return "it was killed"
        error = work.exception()
        return repr(error) if error else "it was told to stop"

    async def _operate(self, process: Process, name: str) -> None:
        settings = Settings(
            health_host="127.0.0.1",
            health_port=0,
            leader_elect=self._elected,
            shards=self._scenario.shards if self._elected else 0,
            pod_namespace=LEASE_KEY.namespace,
            pod_name=name,
        )
        api = FaultyApi(self.api, process, streams_lists=self._scenario.streams_lists)
        manager = Manager(LEASE_KEY.name, settings, api)
        for watch in self._scenario.watches(process):
            add_watch(manager, watch)
        try:
            await manager.run(process.stop)
        finally:
            # Killed, the manager may not have come so far; the kernel would have closed the socket.
            await manager.server.stop()

    def _leaders(self) -> list[str]:
        shards = [shard_lease(LEASE_KEY, shard) for shard in range(self._scenario.shards)]
        leases = [key for key in (LEASE_KEY, *shards) if self.api.exists(LEASE, key)]
        holders = {str(self.api.read(LEASE, key)["spec"]["holderIdentity"]) for key in leases}
        return sorted(holders - {""})

    async def _collect_garbage(self) -> None:
        while True:
            await asyncio.sleep(1)
            self.api.collect_garbage()


def play(
    scenario: Scenario,
    injections: Sequence[Injection] = (),
    expected: Sequence[Step] | None = None,
    *,
    elected: bool = False,
    seed: int = 0,
) -> Run:
    """Run a scenario under virtual time, on a loop of its own; the same seed gives the same run."""
    state = random.getstate()
    random.seed(seed)

    async def run() -> Run:
        asyncio.get_running_loop().set_default_executor(AwaitedThreads())
        world = World(scenario, injections, expected, elected=elected)
        await world.play()
        return world.run

    try:
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            return runner.run(run())
    finally:
        random.setstate(state)


async def _end(tasks: Sequence[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _difference(expected: Step | None, found: Step) -> str:
    if expected is None:
        return f"  {found}"
    lines = difflib.unified_diff(_lines(expected), _lines(found), "expected", "found", lineterm="", n=1)
    return "\n".join(f"  {line}" for line in lines)


def _lines(step: Step) -> list[str]:
    return pprint.pformat((step.state, dict(step.effects)), width=100).splitlines()
