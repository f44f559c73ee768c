"""Watches: which playbook reconciles which kind, and which other kinds it reads."""

import inspect
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from pilothouse.api import Kind
from pilothouse.controller import Predicate, any_change
from pilothouse.informer import IndexFunc, Transform, drop_last_applied
from pilothouse.kube import BadRequest, Resource
from pilothouse.playbook.arguments import (
    require_count,
    require_list,
    require_no_duplicates,
    require_plain_function,
    require_resource,
    require_text,
    shown,
)
from pilothouse.playbook.awaited import PlaybookError
from pilothouse.playbook.groups import Step, require_distinct, require_steps
from pilothouse.playbook.indexes import require_indexes
from pilothouse.playbook.mapping import ByIndex, Mapper, require_mapper
from pilothouse.playbook.play import Play
from pilothouse.playbook.playbook import Playbook
from pilothouse.playbook.tasks import seconds
from pilothouse.process.hosts import is_label

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Secondary:
    """Another kind that a playbook reads, and whose changes cause reconciles.

    Attributes:
        resource: The kind, and the view of it that the playbook reads.
        mapper: Returns the keys of the objects to reconcile, given the changed object and the stores of the
            watch: `by_index("secret")`, or a function. By default the owner of the changed object.
        selector: Only objects with these labels, for example "app=web,tier!=cache".
        field_selector: Only objects with these fields, for example "metadata.name=web".
        predicate: Selects the changes that cause a reconcile. By default all do. `generation_changed` ignores
            changes of the status only; `labels_changed` and `annotations_changed` pass only those changes;
            `any_of` combines predicates.
        transform: Removes unused fields from each object before it is stored. It replaces
            `drop_last_applied`.
        indexes: Indexes with which `play.list` finds objects, by name. Each function returns the values of an
            object. Lookup by owner needs none.

    Raises:
        PlaybookError: An argument has the wrong type, a selector is not valid, or a function cannot be called
            with its arguments: the mapper with an object and the stores, the predicate with the old and the
            new object, the transform and the indexes with an object.
    """

    resource: Resource[Any]
    mapper: Mapper[Any] | None = None
    selector: str = ""
    field_selector: str = ""
    predicate: Predicate[Any] = any_change
    transform: Transform[Any] = drop_last_applied
    indexes: Mapping[str, IndexFunc[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require_resource(self.resource, "Secondary")
        where = f"the Secondary of {self.resource}"
        _require_view(where, self.resource)
        _require_selectors(where, self.selector, self.field_selector)
        require_plain_function(
            self.predicate, f"the predicate of {where}", "the old object", "the new object"
        )
        require_plain_function(self.transform, f"the transform of {where}", "an object")
        require_indexes(where, self.indexes)
        if self.mapper is not None:
            require_mapper(self.mapper, self.resource)

    @property
    def selection(self) -> tuple[object, ...]:
        """The view, selectors and transform: equal for all Secondaries of the kind in a watch."""
        return self.resource, self.selector, self.field_selector, self.transform


@dataclass(frozen=True)
class Watch:
    """Connects a kind to the tasks that reconcile its objects.

    ::

        Watch(WEB_SITE, tasks=[apply_deployment], owns=[DEPLOYMENT])

    Attributes:
        kind: The kind: a Kind of your own, or the Resource of another kind.
        tasks: The tasks and groups, in order. Or a Playbook, which can also have a Play of your own, cleanup
            tasks and a finalizer.
        resync: The time in seconds in which every object is reconciled about once, changed or not; 0 disables
            resyncs.
        workers: The maximum number of objects that are reconciled at the same time.
        selector: Only objects with these labels, for example "app=web,tier!=cache".
        field_selector: Only objects with these fields, for example "metadata.name=web".
        namespaces: Only objects in these namespaces; by default in all that the operator watches. The
            operator's setting overrides it.
        owns: The kinds of the objects that the playbook applies. A change of such an object causes a
            reconcile of its owner.
        watches: Other kinds that the playbook reads, and owned kinds that need a selector or another view.
            If a task reads other objects of the watched kind, declare that kind here, too. A kind may be in
            both `owns` and `watches` if view and selector are equal.
        name: The name of the watch in metrics, logs and commands, unique in the operator. By default the
            kind in lower case.
        predicate: Selects further changes that cause a reconcile, for example `labels_changed`. Changes of
            the spec, finalizers and annotations, the deletion, and a status that another client wrote always
            do.
        transform: Removes unused fields from each object before it is stored. It replaces
            `drop_last_applied`. Keep finalizers, annotations and the status: the engine reads them.
        writes_status: Whether the operator writes the status of the kind: the condition Ready,
            observedGeneration, and the fields that tasks set. Otherwise results are reported by Events and in
            the log. By default it is True for a Kind whose view has a status, and for a Resource of a group
            of your own whose view has the status fields that the engine writes: observedGeneration and
            conditions, as in `Status`. It is False for the groups of Kubernetes (those without a dot, such as
            apps, and those that end in .k8s.io), whose controllers write the status, and for all other views.
            Set it to False for the CRD of another project, such as cert-manager's Certificate, if your view
            has these fields: its controller writes the status.
        indexes: Indexes with which the mappers of `watches` find objects of the watched kind, by name. Each
            function returns the values of an object, for example the names of the Secrets that it refers to.
            If the values of an object change, it is reconciled.

    Raises:
        PlaybookError: An argument has the wrong type or is not valid, or a mapper reads an index that is not
            in `indexes`. A kind is declared twice with different views or selectors. Or the operator writes
            the status, but the view has no status with `observed_generation` and `conditions`.
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
    _assumed: bool = field(init=False, repr=False, compare=False, default=False)
    _place: str = field(init=False, repr=False, compare=False, default="")

    def __post_init__(self) -> None:
        object.__setattr__(self, "_place", _caller())
        self._require_types()
        if not self.name:
            object.__setattr__(self, "name", self.resource.kind.lower())
        if self.writes_status is None:
            object.__setattr__(self, "writes_status", _is_own_status(self.resource))
            object.__setattr__(self, "_assumed", True)
        if self.writes_status:
            _require_status(self.resource)
        for each in self.watches:
            if isinstance(each.mapper, ByIndex) and each.mapper.index not in self.indexes:
                raise PlaybookError(
                    f"The mapper of the Secondary of {each.resource} reads the index {each.mapper.index!r}, "
                    f"which the Watch of {self.resource} does not have. Add it to `indexes` of the Watch."
                )
        declared: dict[tuple[str, str], Secondary] = {}
        for each in self.secondaries:
            first = declared.setdefault((each.resource.group, each.resource.kind), each)
            if first.selection != each.selection:
                raise PlaybookError(
                    f"The Watch of {self.resource} declares {each.resource} twice, with different views, "
                    "selectors or transforms. Use the same ones in both: a view with all the fields that the "
                    "playbook reads, and a selector that matches all the objects."
                )

    @property
    def assumes_status(self) -> bool:
        """Whether the operator writes the status of a Resource only because `writes_status` is not given."""
        return bool(self.writes_status) and self._assumed and not self.resource.declared

    @property
    def place(self) -> str:
        """The file and line where the watch was created, for errors: "web_operator/__main__.py:12"."""
        return self._place

    def _require_types(self) -> None:
        """Refuses values of the wrong type, which would fail later and far from the mistake.

        Raises:
            PlaybookError: The text names the argument and the value.
        """
        if not isinstance(self.kind, Kind | Resource):
            raise PlaybookError(
                f"Watch: the kind is {shown(self.kind)}. Pass a Kind or a Resource, such as "
                "Watch(WEB_SITE, ...)."
            )
        where = f"The Watch of {self.resource}"
        _require_view(where, self.resource)
        if not isinstance(self.tasks, Playbook):
            require_steps(where, tasks=self.tasks)
            require_distinct(where, self.tasks)
        require_list(where, namespaces=self.namespaces, owns=self.owns, watches=self.watches)
        self._require_kinds(where)
        require_text(self.name, f"{where}: name")
        if self.name and not is_label(self.name):
            raise PlaybookError(
                f"{where}: name is {shown(self.name)}. Use at most 63 lower-case letters, digits and '-': "
                "the name is part of annotations, metrics and commands."
            )
        for namespace in self.namespaces:
            require_text(namespace, f"{where}: a namespace")
            if not is_label(namespace):
                raise PlaybookError(
                    f"{where}: {namespace!r} in namespaces is not the name of a namespace. Use at most 63 "
                    "lower-case letters, digits and '-', or no namespaces for all."
                )
        require_no_duplicates(where, namespaces=self.namespaces, owns=self.owns)
        require_no_duplicates(where, lambda each: f"the Secondary of {each.resource}", watches=self.watches)
        _require_selectors(where, self.selector, self.field_selector)
        seconds(self.resync, f"{where}: resync")
        require_count(self.workers, f"{where}: workers")
        if not self.workers:
            raise PlaybookError(f"{where}: workers is 0, so no object would be reconciled. Use at least 1.")
        if self.predicate is not None:
            require_plain_function(self.predicate, f"{where}: predicate", "the old object", "the new object")
        require_plain_function(self.transform, f"{where}: transform", "an object")
        if self.writes_status is not None and not isinstance(self.writes_status, bool):
            raise PlaybookError(
                f"{where}: writes_status is {shown(self.writes_status)}, but must be True, False or None"
            )
        require_indexes(where, self.indexes)

    def _require_kinds(self, where: str) -> None:
        for each in self.owns:
            if not isinstance(each, Resource):
                hint = "Pass a Resource, such as DEPLOYMENT."
                if isinstance(each, Kind):
                    hint = "Pass its Resource: KIND.resource."
                elif isinstance(each, Secondary):
                    hint = "Move it to `watches`."
                raise PlaybookError(f"{where}: owns has {shown(each)}, which is not a Resource. {hint}")
        for other in self.watches:
            if not isinstance(other, Secondary):
                raise PlaybookError(
                    f"{where}: watches has {shown(other)}, which is not a Secondary. Pass "
                    "watches=[Secondary(CONFIG_MAP)]."
                )

    @cached_property
    def resource(self) -> Resource[Any]:
        """The kind and the view of it that the playbook reads."""
        return self.kind.resource if isinstance(self.kind, Kind) else self.kind

    @cached_property
    def playbook(self) -> Playbook[Any]:
        """The playbook that reconciles each object."""
        return self.tasks if isinstance(self.tasks, Playbook) else Playbook(Play, tasks=self.tasks)

    @property
    def secondaries(self) -> Sequence[Secondary]:
        """The owned and watched kinds."""
        return (*map(Secondary, self.owns), *self.watches)


def require_distinct_names(watches: Sequence[Watch]) -> None:
    """Refuses two watches with the same name, such as those of the same kind in two groups.

    Raises:
        PlaybookError: The text names both, with file and line.
    """
    seen: dict[str, Watch] = {}
    for watch in watches:
        if first := seen.get(watch.name):
            raise PlaybookError(
                f"two watches are named {watch.name!r}: that of {first.resource} ({first.place}) and that of "
                f"{watch.resource} ({watch.place}). Metrics, logs and commands could not tell them apart. "
                "Give one of them another name: Watch(..., name=...)."
            )
        seen[watch.name] = watch


def warn_of_foreign_statuses(watches: Sequence[Watch]) -> None:
    """Logs the watches whose status probably belongs to the controller of another project.

    Those are watches of a Resource without `writes_status`, in a group in which the operator declares no
    kind. An operator that declares no kind at all gets no warning: its own kinds are Resources.

    Args:
        watches: All watches of the operator.
    """
    groups = {watch.resource.group for watch in watches if watch.resource.declared}
    for watch in watches:
        if groups and watch.assumes_status and watch.resource.group not in groups:
            log.warning(
                "The operator writes the status of %s, including the condition Ready. If the kind belongs to "
                "another project, declare Watch(..., writes_status=False), because its controller writes the "
                "status. If it is your own, declare writes_status=True",
                watch.resource,
            )


def _caller() -> str:
    """Returns the file and line that create a watch."""
    frame = inspect.currentframe()
    for _ in range(3):  # This function, __post_init__ and the __init__ of the dataclass.
        frame = frame.f_back if frame is not None else None
    if frame is None:
        return ""
    return f"{'/'.join(Path(frame.f_code.co_filename).parts[-2:])}:{frame.f_lineno}"


def _require_view(where: str, resource: Resource[Any]) -> None:
    """Refuses a view that is not a Struct with the metadata of an object.

    Raises:
        PlaybookError: The text names the view.
    """
    view: object = resource.view
    if not (
        isinstance(view, type) and issubclass(view, msgspec.Struct) and "metadata" in view.__struct_fields__
    ):
        raise PlaybookError(
            f"{where}: the view is {shown(view)}, but must be a Struct of objects: class "
            "View(msgspec.Struct, frozen=True) with the field metadata: ObjectMeta."
        )


def _require_selectors(where: str, selector: object, field_selector: object) -> None:
    """Refuses selectors that the API server cannot parse.

    Raises:
        PlaybookError: The text names the selector.
    """
    for name, value in (("selector", selector), ("field_selector", field_selector)):
        require_text(value, f"{where}: {name}")
    if not (selector or field_selector):
        return
    # Most watches have no selector and do not pay for it.
    from pilothouse.kube.selectors import matcher

    try:
        matcher(str(selector), str(field_selector))
    except BadRequest as error:
        raise PlaybookError(
            f"{where}: the selector is not valid ({error}). Write it as for kubectl: selector="
            "'app=web,tier!=cache'."
        ) from None


def _built_in(resource: Resource[Any]) -> bool:
    """Returns whether a kind belongs to Kubernetes: the groups of other CRDs have a dot and not k8s.io."""
    return "." not in resource.group or resource.group.endswith(".k8s.io")


def _require_status(resource: Resource[Any]) -> None:
    """Refuses a view without a status that the engine can write.

    Raises:
        PlaybookError: The text names the missing fields.
    """
    status = _fields_of_status(resource.view)
    if status is None:
        return  # A type that this check does not inspect, such as an Annotated or a union.
    if missing := _missing_fields(status):
        raise PlaybookError(
            f"The Watch of {resource} writes the status of the kind, but the view {resource.view.__name__} "
            f"has no status with {' and '.join(missing)}. Add the fields, or declare "
            "Watch(..., writes_status=False) to report by Events only."
        )


def _is_own_status(resource: Resource[Any]) -> bool:
    """Returns whether the operator writes the status of a kind by default; see `Watch.writes_status`."""
    status = _fields_of_status(resource.view)
    if resource.declared:
        return status is None or "status" in resource.view.__struct_fields__
    return status is not None and not _missing_fields(status) and not _built_in(resource)


def _fields_of_status(view: type[Any]) -> Sequence[str] | None:
    """Returns the fields of the status of a view; None if the type of the status cannot be inspected."""
    fields = {each.name: each.type for each in msgspec.structs.fields(view)}
    if "status" not in fields:
        return ()
    names: Sequence[str] | None = getattr(fields["status"], "__struct_fields__", None)
    return names


def _missing_fields(status: Sequence[str]) -> Sequence[str]:
    """Returns the fields that the engine writes and a status does not have."""
    return [name for name in ("observed_generation", "conditions") if name not in status]
