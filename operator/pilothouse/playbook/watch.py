"""Watches: which playbook is played over which kind, and what else it reads; declared in one place."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import msgspec

from pilothouse.api import Kind
from pilothouse.controller import Predicate, any_change
from pilothouse.informer import IndexFunc, Transform, drop_last_applied
from pilothouse.kube import Resource
from pilothouse.playbook.awaited import PlaybookError
from pilothouse.playbook.groups import Group, Step
from pilothouse.playbook.mapping import ByIndex, Mapper, require_mapper
from pilothouse.playbook.play import Play
from pilothouse.playbook.playbook import Playbook
from pilothouse.playbook.tasks import Task


@dataclass(frozen=True)
class Secondary:
    """Another kind that a playbook reads, and whose changes cause plays.

    Attributes:
        resource: The kind and the view of it that the playbook reads.
        mapper: Returns the keys of the reconciled objects that a change concerns, given the changed object
            and the stores of the watch: `by_index("secret")`, or a function. None: the object that owns it.
        selector: Only objects with these labels.
        field_selector: Only objects with these fields: "metadata.name=web".
        predicate: Which of its changes cause a play: `generation_changed` leaves out those of its status,
            `labels_changed` and `annotations_changed` all but those; `any_of` joins them.
        transform: Drops from each object what nobody reads, before it is stored; instead of
            `drop_last_applied`.
        indexes: By what else than owner `play.list` finds them: names, and functions to their values.

    Raises:
        PlaybookError: The mapper cannot be called with an object and the stores.
    """

    resource: Resource[Any]
    mapper: Mapper[Any] | None = None
    selector: str = ""
    field_selector: str = ""
    predicate: Predicate[Any] = any_change
    transform: Transform[Any] = drop_last_applied
    indexes: Mapping[str, IndexFunc[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.mapper is not None:
            require_mapper(self.mapper, self.resource)

    @property
    def selection(self) -> tuple[object, ...]:
        """Which objects are read, and how: alike wherever a watch declares the kind."""
        return self.resource, self.selector, self.field_selector, self.transform


@dataclass(frozen=True)
class Watch:
    """Maps a kind to the tasks that reconcile its objects.

    ::

        Watch(WEB_SITE, tasks=[apply_deployment], owns=[DEPLOYMENT])

    Attributes:
        kind: The kind: one of your own, or the Resource of another's.
        tasks: The tasks and groups, in order; or a Playbook, which adds a Play of your own, cleanup tasks and
            their finalizer.
        resync: Every object is played again about once in this many seconds, changed or not; 0: never.
        workers: How many objects are played at once.
        selector: Only objects with these labels: "app=web,tier!=cache".
        field_selector: Only objects with these fields: "metadata.name=web".
        namespaces: Only objects of these; empty: of all that the operator watches. Its setting goes before.
        owns: The kinds of the objects that the playbook applies; a change of one causes a play of its owner.
        watches: Other kinds that concern the playbook, and owned ones of which it reads a part. The played
            kind, too, if it reads others of it.
        name: Names it in metrics, logs and commands: the kind in lower case unless given. No other watch of
            the operator may have it.
        predicate: Which further changes cause a play: `labels_changed`. Those of spec, finalizers and
            annotations, deletion, and a status that somebody else wrote always do.
        transform: Drops from each object what nobody reads, before it is stored; instead of
            `drop_last_applied`. Finalizers, annotations and the status must stay: the engine reads them.
        writes_status: Whether the status of the kind is the operator's to write: the condition Ready,
            observedGeneration, and what tasks set. If not, plays are reported by Events and in the log.
            Unless given, it is for the operator's own kinds. It is not for the API groups of Kubernetes
            (those without a dot, such as apps, and those that end in .k8s.io), whose controllers write the
            status, nor for views without a status, such as one of Secrets.
        indexes: By what the mappers of `watches` find objects of the watched kind: names, and functions from
            an object to its values, such as the names of the Secrets that it refers to. An object whose
            values change is reconciled.

    Raises:
        TypeError: The kind, a task or an owned kind is a value of another type.
        PlaybookError: A mapper reads an index that `indexes` does not have.
        ValueError: It declares a kind twice, in different views or selections; or the status is the
            operator's, and the view has no status or one without `observed_generation` and `conditions`.
    """

    kind: Kind[Any] | Resource[Any]
    tasks: Playbook[Any] | Sequence[Step[Any]]
    resync: float = 600.0
    workers: int = 16
    selector: str = ""
    field_selector: str = ""
    namespaces: Sequence[str] = ()
    owns: Sequence[Resource[Any]] = ()
    watches: Sequence[Secondary] = ()
    name: str = ""
    predicate: Predicate[Any] | None = None
    transform: Transform[Any] = drop_last_applied
    writes_status: bool | None = None
    indexes: Mapping[str, IndexFunc[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._require_types()
        if not self.name:
            object.__setattr__(self, "name", self.resource.kind.lower())
        if self.writes_status is None:
            has_status = "status" in self.resource.view.__struct_fields__
            object.__setattr__(self, "writes_status", has_status and not _built_in(self.resource))
        if self.writes_status:
            _require_status(self.resource)
        for each in self.watches:
            if isinstance(each.mapper, ByIndex) and each.mapper.index not in self.indexes:
                raise PlaybookError(
                    f"the mapper of the Secondary of {each.resource} reads the index {each.mapper.index!r}, "
                    f"which the Watch of {self.resource} does not have. Add it to `indexes` of the Watch."
                )
        declared: dict[tuple[str, str], Secondary] = {}
        for each in self.secondaries:
            first = declared.setdefault((each.resource.group, each.resource.kind), each)
            if first.selection != each.selection:
                raise ValueError(
                    f"the Watch of {self.resource} declares {each.resource} twice, in different views or "
                    "selections: the playbook could not tell which one it reads. Declare it alike, in the "
                    "one view and with the one selector that bring all that it needs"
                )

    def _require_types(self) -> None:
        """Raises TypeError where another kind of value would fail later, and far from the mistake."""
        if not isinstance(self.kind, Kind | Resource):
            raise TypeError(
                f"Watch: the kind is {self.kind!r}. Pass a Kind or a Resource, such as Watch(WEB_SITE, ...)."
            )
        if isinstance(self.tasks, Playbook):
            steps: Sequence[object] = ()
        else:
            steps = self.tasks if isinstance(self.tasks, list | tuple) else (self.tasks,)
        if wrong := [step for step in steps if not isinstance(step, Task | Group)]:
            raise TypeError(
                f"the Watch of {self.resource}: {wrong[0]!r} is not a task. Pass a list of functions with "
                "the decorator @task(...), groups and plans, or a Playbook."
            )
        if not isinstance(self.tasks, Playbook | list | tuple):
            raise TypeError(f"the Watch of {self.resource}: tasks is one task. Pass a list: tasks=[...].")
        for each in self.owns:
            if not isinstance(each, Resource):
                hint = ".resource" if isinstance(each, Kind) else ""
                raise TypeError(
                    f"the Watch of {self.resource}: owns has {getattr(each, 'kind', each)!r}, which is not a "
                    f"Resource. Pass a Resource, such as {'KIND' + hint if hint else 'DEPLOYMENT'}."
                )

    @cached_property
    def resource(self) -> Resource[Any]:
        """The kind and the view of it that the playbook reads."""
        return self.kind.resource if isinstance(self.kind, Kind) else self.kind

    @cached_property
    def playbook(self) -> Playbook[Any]:
        """What runs over each object."""
        return self.tasks if isinstance(self.tasks, Playbook) else Playbook(Play, tasks=self.tasks)

    @property
    def secondaries(self) -> Sequence[Secondary]:
        """All other kinds than the played one."""
        return (*map(Secondary, self.owns), *self.watches)


def _built_in(resource: Resource[Any]) -> bool:
    """Whether a kind is one of Kubernetes' own, by the rule that CRDs of others must keep."""
    return "." not in resource.group or resource.group.endswith(".k8s.io")


def _require_status(resource: Resource[Any]) -> None:
    """Raises ValueError unless the view has a status that the engine can write."""
    view = resource.view
    fields = {each.name: each.type for each in msgspec.structs.fields(view)}
    status = fields.get("status")
    names = getattr(status, "__struct_fields__", None)
    if status is not None and names is None:
        return  # A type that the decoder knows and this check does not: an Annotated or a union.
    missing = [name for name in ("observed_generation", "conditions") if names is None or name not in names]
    if missing:
        raise ValueError(
            f"the Watch of {resource} writes the status of the kind, but the view {view.__name__} has no "
            f"status with {' and '.join(missing)}. Add the fields, or declare "
            "Watch(..., writes_status=False) to report by Events only"
        )
