"""The world of one run: a model of the API server, a user, and the processes of the operator with faults."""

import asyncio
import contextvars
import copy
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import nullcontext, suppress
from itertools import chain
from typing import Any

from pilothouse.controller.lease import LEASE
from pilothouse.controller.sharding import shard_lease
from pilothouse.kube import ObjectKey
from pilothouse.kube.resource import require_flags
from pilothouse.playbook import Watch, add_watch
from pilothouse.process import Manager, Settings
from pilothouse.testing.checks import require_declared, steps_of
from pilothouse.testing.controllers import running
from pilothouse.testing.differences import differences, excess
from pilothouse.testing.faults import Faults, Injection, Site
from pilothouse.testing.faulty import FaultyApi
from pilothouse.testing.laws import (
    Defects,
    Rest,
    defective_object,
    mistaken,
)
from pilothouse.testing.leftovers import Leftovers, Misuse
from pilothouse.testing.model import Call, ModelApi
from pilothouse.testing.process import Process
from pilothouse.testing.scenario import Run, Scenario, Step
from pilothouse.testing.threads import AwaitedThreads
from pilothouse.testing.timeline import CLUSTER, USER, Timeline, process_name, recorded
from pilothouse.testing.virtual_time import VirtualTimeLoop

#: Seconds between two checks of the state after a step.
SETTLE_SECONDS = 40.0
#: Seconds after which a run that has not reached the expected state fails.
PATIENCE = 2000.0
#: Number of checks with a settled state after which the operator must have stopped working.
RESTLESS = 5
#: Seconds after which a process that has ended is replaced.
RESTART_SECONDS = 1.0
#: A run fails when processes have ended this often.
RESTARTS = 20
#: The name of the step after those of the scenario, in which the user deletes all watched objects.
DELETION = "all watched objects are deleted"
LEASE_KEY = ObjectKey("operators", "operator")


class _Failed(Exception):
    """The run failed."""


class World:
    """A model of the API server and the operator's processes: one after another, sometimes two at a time.

    Create it on the loop of the run.

    Args:
        scenario: The scenario.
        injections: The faults.
        expected: The expected results of the steps. None for the run without faults, with which the other
            runs are compared: its rules are checked instead.
        elected: Whether the processes elect a leader.
    """

    def __init__(
        self,
        scenario: Scenario,
        injections: Sequence[Injection] = (),
        expected: Sequence[Step] | None = None,
        *,
        elected: bool = False,
    ) -> None:
        require_flags("play", elected=elected)
        self.api = ModelApi()
        # Otherwise watches would end at random times, and runs would not make the same calls. Only faults end
        # them.
        self.api.ends_watches = False
        self.timeline = Timeline()
        self.faults = Faults(*injections)
        self.faults.leaders = self._leaders
        self.faults.start_rival = self._start_replica
        self.faults.called = self._note_call
        self.faults.landed = self._note_effects
        self._scenario = scenario
        self._expected = expected
        self._elected = elected
        self._processes = 0
        # The version of the objects when the rules were checked last.
        self._settled_at = 0
        self._replicas: list[asyncio.Task[None]] = []
        self._effects: Counter[str] = Counter()
        self._defects = Defects(scenario.expected_errors)
        self._rest = Rest(scenario.polls_every, scenario.recurring)
        self._leftovers = Leftovers(scenario, self.api)
        faults = self.faults
        self.run = Run(
            tuple(injections),
            sites=faults.sites,
            elections=faults.elections,
            struck=faults.struck,
            timeline=self.timeline,
        )

    async def play(self) -> None:
        """Runs the scenario. The result is in `run`.

        Raises:
            Exception: The scenario itself raised an error.
        """
        garbage = asyncio.get_running_loop().create_task(self._collect_garbage())
        try:
            with self._defects.collected() if self._expected is None else nullcontext():
                async with running(self._cluster_api(), *self._scenario.controllers):
                    await self._play()
        except _Failed as failed:
            self.run.failure = str(failed)
        except Misuse as misuse:
            raise misuse.__cause__ or misuse from None
        finally:
            await _end([*self._replicas, garbage])

    async def _play(self) -> None:
        step = None
        for name in self._user_steps():
            if not self._replicas:
                self._start_replica()
            if isinstance(name, str):
                step = await self._settle(name)
                if name is not DELETION:
                    self.run.steps.append(step)
            else:
                self.timeline.add(USER, f"waits {name:g} s")
                await self._leave_alone(name)
        if self._expected is None:
            self._require(self._rest.unused(self.run.sites) or self._leftovers.unused())
            self.run.leftovers = self._leftovers.report()
        elif step is not None:
            await self._require_rest(step.name)

    def _user_steps(self) -> Iterator[str | float]:
        """Runs the scenario, and records what the user does: between two yields nothing else can run."""
        steps = chain(steps_of(self._scenario, self._scenario.play(self.api)), self._deletion())
        self._leftovers.begin()
        while True:
            before = self.api.version
            name = next(steps, None)
            changes = [
                (collection, change)
                for collection in self.api.server.collections()
                for change in collection.since(before)
            ]
            self._leftovers.note_user(changes)
            if self._expected is None:
                self._leftovers.begin_step()
            self.timeline.add_user_step(changes, self._new_effects())
            if name is None:
                return
            yield name

    def _deletion(self) -> Iterator[str]:
        """Deletes the watched objects that the user has created, in a last step of the run without faults.

        It is only for the rules of that run: a comparison with the runs with faults would depend on whether
        the operator is at work when it begins.
        """
        if self._expected is not None or not self._scenario.delete_at_end:
            return
        for each in self._leftovers.deletable():
            self.api.remove(each.resource, each.key)
        # Also if the user has changed something since the last step.
        if self.api.version != self._settled_at:
            yield DELETION

    async def _settle(self, name: str) -> Step:
        self.timeline.add(USER, f"waits until everything has settled: step {name!r}")
        number = len(self.run.steps)
        expected = self._expected[number] if self._expected is not None else None
        loop = asyncio.get_running_loop()
        ends = loop.time() + PATIENCE
        before, restless = None, 0
        while True:
            now, unrest = await self._observe(name)
            if expected is not None:
                self._require_no_excess(expected, now)
                settled = now.state == expected.state
            else:
                settled = now == before
            if settled and (expected is not None or not unrest):
                if expected is None:
                    # A cleanup may wait for longer than between two checks.
                    if name is DELETION and self._leftovers.held(name) and loop.time() <= ends:
                        continue
                    self._require(self._broken_law(name))
                return now
            restless += settled
            if restless == RESTLESS:
                raise _Failed(f"Step {name!r} never settles. The state stays the same, but {_unrest(unrest)}")
            if loop.time() > ends:
                raise _Failed(_not_converged(name, expected, before, now))
            before = now

    async def _observe(self, name: str) -> tuple[Step, str]:
        """Waits for a while, and returns the state after that and what the operator did in that time."""
        sites, reconciles = len(self.run.sites), len(self.timeline.reconciles)
        await self._leave_alone(SETTLE_SECONDS)
        now = Step(name, copy.deepcopy(self._scenario.state(self.api)), Counter(self._scenario.effects()))
        self._check()
        unrest = self._rest.broken(
            self.run.sites[sites:], self.timeline.reconciles[reconciles:], SETTLE_SECONDS
        )
        return now, unrest

    async def _leave_alone(self, seconds: float) -> None:
        """Waits for the given time, and fails if the operator is in an endless loop."""
        self.timeline.begin_wait()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.timeline.endless.wait()
        if self.timeline.loop:
            raise _Failed(
                f"The operator {self.timeline.loop} within {seconds:g} s. It is in an endless loop."
            )

    async def _require_rest(self, name: str) -> None:
        """Fails unless the operator stops working in the expected state at the end of a run with faults."""
        expected = (self._expected or ())[len(self.run.steps) - 1]
        for _ in range(RESTLESS):
            now, unrest = await self._observe(name)
            self._require_no_excess(expected, now)
            if not unrest and now.state == expected.state:
                return
        if unrest:
            raise _Failed(f"The operator does not stop working after step {name!r}. It {unrest}.")
        raise _Failed(_not_converged(name, expected, None, now))

    def _require_no_excess(self, expected: Step, now: Step) -> None:
        if too_often := excess(expected.effects, now.effects):
            effects = "\n".join(f"  {line}" for line in too_often)
            raise _Failed(f"Step {expected.name!r}: an effect happened too often.\n{effects}")

    def _require(self, broken: str) -> None:
        if broken:
            raise _Failed(broken)

    def _check(self) -> None:
        if self.faults.broken:
            raise _Failed(self.faults.broken[0])
        for replica in self._replicas:
            if replica.done():
                error = replica.exception()
                if isinstance(error, Misuse):
                    raise error
                raise _Failed(str(error or "The operator stopped by itself."))
        if self._defects.found:
            raise _Failed(f"The operator has a defect: {self._defects.found[0]}")

    def _broken_law(self, name: str) -> str:
        """Returns a sentence about the rule that the settled state breaks; otherwise an empty string."""
        if not self._scenario.expected_errors:
            for resource in self._leftovers.watched:
                if broken := defective_object(resource, self.api.all(resource)):
                    return f"Step {name!r}: {broken}"
        if mistake := mistaken(self.timeline.reconciles):
            return f"Step {name!r}: {mistake}"
        self._settled_at = self.api.version
        held = self._leftovers.held(name) if name is DELETION else ""
        return held or self._leftovers.broken(name)

    def _new_effects(self) -> Counter[str]:
        effects = Counter(self._scenario.effects())
        new, self._effects = effects - self._effects, effects
        return new

    def _note_call(self, site: Site, injection: Injection | None) -> None:
        self.timeline.add_call(site, injection)
        self.faults.endless = self.timeline.endless.is_set()

    def _note_effects(self, site: Site) -> None:
        if not site.writes:
            return
        new = self._new_effects()
        self.timeline.add_effects(process_name(site.process), new)
        # Without effects(), it is unknown which calls had an effect.
        unknown = type(self._scenario).effects is Scenario.effects
        if site.outside and self._expected is None and (new or unknown):
            self._leftovers.note_outside(site)

    def _start_replica(self) -> None:
        # An empty context: the replica does not belong to the process that starts it.
        replica = asyncio.get_running_loop().create_task(self._keep_running(), context=contextvars.Context())
        self._replicas.append(replica)

    async def _keep_running(self) -> None:
        """Starts a new process whenever one ends, as a Deployment does."""
        ended = "it was killed"
        for _ in range(RESTARTS):
            self._processes += 1
            ended = await self._run_process(self._processes)
            await asyncio.sleep(RESTART_SECONDS)
        raise _Failed(f"The operator ended {RESTARTS} times, last time because {ended}.")

    async def _run_process(self, number: int) -> str:
        """Runs a process until it ends, and returns why it ended."""
        name = f"operator-{number}"
        self.timeline.add(process_name(number), "starts")
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
        ended = _why_ended(work)
        self.timeline.add(process_name(number), f"ended: {ended}")
        return ended

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
        for watch in self._watches(process):
            add_watch(manager, recorded(watch, self.timeline, process))
        try:
            await manager.run(process.stop)
        finally:
            # The manager of a killed process may not have done this. The kernel would close the socket.
            await manager.server.stop()

    def _watches(self, process: Process) -> Sequence[Watch]:
        try:
            watches = self._scenario.watches(process)
        except Exception as error:
            raise Misuse(str(error)) from error
        if not isinstance(watches, list | tuple) or not all(isinstance(each, Watch) for each in watches):
            kind = type(self._scenario).__name__
            wrong = TypeError(
                f"{kind}.watches returned {type(watches).__name__}. Return a list: [Watch(...)]."
            )
            raise Misuse(str(wrong)) from wrong
        self._leftovers.watch(watches)
        return watches

    def _cluster_api(self) -> ModelApi:
        """Returns the client for the stand-ins of Kubernetes' own controllers."""
        api = self.api.another_client()

        async def note(call: Call) -> None:
            if call.writes:
                self.timeline.add(CLUSTER, str(call))

        api.after = note
        return api

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
    """Runs a scenario under virtual time, on a loop of its own. The same seed results in the same run.

    Args:
        scenario: The scenario.
        injections: The faults.
        expected: The steps of the run without faults, with which the steps of this run are compared. None if
            this is the run without faults: its rules are checked instead, see `Scenario`.
        elected: Whether the processes elect a leader.
        seed: The seed for all random choices.

    Returns:
        The run. `failure` says why it failed.

    Raises:
        TypeError: An attribute of the scenario has the wrong type, or its `play` does not yield steps.
        ValueError: An attribute of the scenario, or a name in `Outside`, is misspelled.
    """
    require_declared(scenario)
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


def _why_ended(work: asyncio.Task[None]) -> str:
    if work.cancelled():
        return "it was killed"
    error = work.exception()
    if isinstance(error, Misuse):
        raise error
    return repr(error) if error else "it was asked to stop"


def _unrest(unrest: str) -> str:
    return (
        f"the operator {unrest}. Let it wait for a change instead, or declare it in polls_every "
        "or recurring of the scenario."
    )


def _not_converged(name: str, expected: Step | None, before: Step | None, now: Step) -> str:
    if expected is None:
        changes = differences(before.state if before else None, now.state)
        lines = "\n".join(f"  {line}" for line in changes) or "  its effects grow"
        return f"Step {name!r} never settles. After {PATIENCE:g} s the state still changes:\n{lines}"
    lines = "\n".join(f"  {line}" for line in differences(expected.state, now.state))
    return f"Step {name!r} ends in another state than without faults:\n{lines}"
