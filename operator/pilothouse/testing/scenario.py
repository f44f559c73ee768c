"""A scenario: what a user does to an operator's objects, on a model of the API server, under faults."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from pilothouse.playbook import Watch
from pilothouse.playbook.records import WAIT_PREFIX
from pilothouse.testing.controllers import StandIn
from pilothouse.testing.documents import Json
from pilothouse.testing.faults import WORDS, Injection, Site
from pilothouse.testing.laws import EVENTS_AND_LEASES
from pilothouse.testing.model import ModelApi
from pilothouse.testing.process import Process
from pilothouse.testing.timeline import Timeline


class Scenario(ABC):
    """What a user does, and the result. Each run makes a new one, so that all runs begin alike.

    It holds the models of the outside systems, which outlive the operator's processes.

    The run without faults must not raise an error that nobody foresaw, must come to rest after each step,
    and must leave nothing behind once all objects of the watched kinds are deleted. A scenario that breaks
    one of these rules on purpose declares it with an attribute, or with `held_outside`.

    Attributes:
        streams_lists: Whether the API server streams its lists, as it does by default since 1.34.
        shards: Where processes elect leaders: the number of shards among which they divide the objects; 0:
            one process leads.
        polls_every: How often, in seconds, an object may be reconciled, and a call repeated, when everything
            has settled. An operator that polls more often must say so here.
        recurring: Changes that go on when everything has settled: patterns of calls as reports show them,
            such as "registry.renew" or "patch leases.example.com *".
        retained: Objects that stay when their owner is deleted: patterns such as "persistentvolumeclaims *".
        controllers: Stand-ins for Kubernetes' own controllers, such as `Deployments()` and `Pods()` of
            `pilothouse.testing.controllers`. What they make for an object is left out of `objects_state`.
        expected_errors: Exceptions that tasks raise on purpose and that are not a TaskFailed.
    """

    streams_lists = True
    shards = 0
    polls_every: float = 5.0
    recurring: Sequence[str] = ()
    retained: Sequence[str] = ()
    controllers: Sequence[StandIn] = ()
    expected_errors: tuple[type[BaseException], ...] = ()

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

    def held_outside(self) -> object:
        """Return what the outside systems hold for objects that exist.

        Once all objects of the watched kinds are deleted, it must be what it was at the beginning. By default
        it is the part of `state` that does not come from the API server: `state` of an empty one. Override it
        to leave out what stays on purpose, such as closed entries of a ledger.
        """
        return self.state(ModelApi())


def objects_state(api: ModelApi) -> dict[str, Json]:
    """Return every object, without what differs from run to run.

    Events and Leases are left out, and so is what Kubernetes' own controllers make for an object: the Pods of
    a Deployment, for example.
    """
    return {
        f"{collection.resource} {key}": _timeless(obj)
        for collection in api.server.collections()
        if str(collection.resource) not in EVENTS_AND_LEASES
        for key, obj in collection.objects.items()
        if not _of_built_in_controller(obj)
    }


def _of_built_in_controller(obj: Json) -> bool:
    owners = obj["metadata"].get("ownerReferences", ())
    return any(each.get("controller") and each["apiVersion"] in ("apps/v1", "batch/v1") for each in owners)


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: "" if name.startswith(WAIT_PREFIX) else _timeless(each)
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
        timeline: what happened; None before the run.
    """

    injections: tuple[Injection, ...]
    steps: list[Step] = field(default_factory=list)
    sites: list[Site] = field(default_factory=list)
    elections: list[Site] = field(default_factory=list)
    struck: set[Injection] = field(default_factory=set)
    failure: str = ""
    timeline: Timeline | None = None

    def __str__(self) -> str:
        if not self.failure:
            faults = " and ".join(map(self._fault, self.injections)) or "no fault"
            return f"{faults}: converged"
        faults = "\n".join(map(self._fault_in_words, self.injections)) or "Without faults:"
        lines = "\n".join(self.timeline.lines()) if self.timeline else ""
        failure = self.failure.replace("\n", "\n  ")
        return f"{faults}\n  {failure}\n  Timeline; --> marks a call that a fault struck:\n{lines}"

    def _fault(self, injection: Injection) -> str:
        if injection in self.struck:
            return str(injection)
        return f"{injection} (not struck: of {len(self.sites)} calls, none is that one and can suffer it)"

    def _fault_in_words(self, injection: Injection) -> str:
        if injection not in self.struck:
            return self._fault(injection)
        sites = self.elections if injection.election else self.sites
        return f"{injection.fault} at {sites[injection.at - 1]}: {WORDS[injection.fault]}"
