"""A scenario: what a user does to the objects of an operator, on a model of the API server, with faults."""

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
    """What a user does, and how to compare the results. Each run creates a new one, so all start equal.

    A scenario contains the models of the outside systems, which outlive the processes of the operator.

    The run without faults must not raise unexpected errors, must stop changing things after each step, and
    must leave nothing behind of deleted objects of the watched kinds. To check that, the user of this run
    deletes all of them in a last step; to inject faults into the cleanup, delete objects in `play`. A
    scenario that breaks one of these rules on purpose declares it with an attribute, or with `held_outside`.

    Attributes:
        streams_lists: Whether the API server supports streaming lists, as it does by default since 1.34.
        shards: The number of shards among which processes with leader election divide the objects. With 0,
            one process is the leader of all.
        polls_every: Seconds between two reconciles of an object, or two equal calls, that are allowed when
            everything has settled. An operator that polls more often must declare it here.
        recurring: Changes that continue when everything has settled: patterns of calls as reports show them,
            such as "registry.renew" or "patch leases.example.com *".
        delete_at_end: Whether the user of the run without faults deletes all objects of the watched kinds
            after the last step of `play`. With False, what the objects leave behind that exist then is not
            checked.
        retained: Objects that stay when their owner is deleted: patterns such as "persistentvolumeclaims *".
        controllers: Stand-ins for Kubernetes' own controllers, such as `Deployments()` and `Pods()` of
            `pilothouse.testing.controllers`. `objects_state` leaves out the objects that they create.
        expected_errors: Exceptions that tasks raise on purpose and that are not a TaskFailed.
    """

    streams_lists = True
    shards = 0
    polls_every: float = 5.0
    recurring: Sequence[str] = ()
    delete_at_end = True
    retained: Sequence[str] = ()
    controllers: Sequence[StandIn] = ()
    expected_errors: tuple[type[BaseException], ...] = ()

    @abstractmethod
    def watches(self, process: Process) -> Sequence[Watch]:
        """Returns the watches of a new process of the operator. Processes must not share anything in them.

        Give the playbooks `Outside(model, process, ...)` instead of the clients of outside systems.
        """

    @abstractmethod
    def play(self, user: ModelApi) -> Iterator[str | float]:
        """Does what a user does, step by step.

        Yield the name of a step to continue when everything has settled. Yield a number to continue after
        that many seconds, even if the operator is still at work.
        """

    def effects(self) -> Sequence[str]:
        """Returns the effects outside so far. No run may have more of them than the one without faults."""
        return ()

    def state(self, api: ModelApi) -> object:
        """Returns the state that must be the same in all runs at the end of a step.

        By default these are all objects except Events and Leases, without resourceVersions and times. Add the
        contents of the outside systems.
        """
        return objects_state(api)

    def held_outside(self) -> object:
        """Returns what the outside systems contain for existing objects.

        When all objects of the watched kinds are deleted, it must be what it was at the beginning. While
        others exist, it must not contain the UID of a deleted object, nor an entry with its name that a call
        for it has made. By default it is the part of `state` that does not come from the API server: `state`
        of an empty API server. Override it to leave out what stays on purpose, such as closed entries of a
        ledger.
        """
        return self.state(ModelApi())


def objects_state(api: ModelApi) -> dict[str, Json]:
    """Returns all objects, without the fields that differ from run to run.

    Events and Leases are left out, as are the objects that Kubernetes' own controllers create, for example
    the Pods of a Deployment.
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
    """The state and the effects at the end of a step, which are compared between runs."""

    name: str
    state: object
    effects: Counter[str]


@dataclass
class Run:
    """One run of a scenario.

    Attributes:
        injections: The faults to inject.
        steps: The results of the steps.
        sites: All calls except those of leader elections.
        elections: The calls of leader elections.
        struck: The faults that were injected.
        leftovers: For the run without faults: sentences about which effects that outlive an object were
            checked.
        failure: Why the run did not reach the expected state; empty if it did.
        timeline: What happened. None before the run.
    """

    injections: tuple[Injection, ...]
    steps: list[Step] = field(default_factory=list)
    sites: list[Site] = field(default_factory=list)
    elections: list[Site] = field(default_factory=list)
    struck: set[Injection] = field(default_factory=set)
    leftovers: Sequence[str] = ()
    failure: str = ""
    timeline: Timeline | None = None

    def __str__(self) -> str:
        if not self.failure:
            faults = " and ".join(map(self._fault, self.injections)) or "no fault"
            return f"{faults}: converged"
        faults = "\n".join(map(self._fault_in_words, self.injections)) or "Without faults:"
        lines = "\n".join(self.timeline.lines()) if self.timeline else ""
        failure = self.failure.replace("\n", "\n  ")
        return f"{faults}\n  {failure}\n  Timeline (--> marks a call with a fault):\n{lines}"

    def _fault(self, injection: Injection) -> str:
        if injection in self.struck:
            return str(injection)
        return (
            f"{injection} (not injected: none of the {len(self.sites)} calls has this number and allows it)"
        )

    def _fault_in_words(self, injection: Injection) -> str:
        if injection not in self.struck:
            return self._fault(injection)
        sites = self.elections if injection.election else self.sites
        return f"{injection.fault} at {sites[injection.at - 1]}: {WORDS[injection.fault]}"
