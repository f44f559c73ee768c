"""Watches: which playbook is played over which kind, and what else it reads; declared in one place."""

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from pilothouse.controller import (
    Controller,
    Mapper,
    Predicate,
    any_change,
    any_of,
    meaningful_change,
    owner_mapper,
)
from pilothouse.informer import IndexFunc, Informer, Transform, drop_last_applied
from pilothouse.kube import Resource
from pilothouse.playbook.cluster import OWNER, Cluster, owner_uid
from pilothouse.playbook.metrics import TaskMetrics
from pilothouse.playbook.playbook import Playbook
from pilothouse.playbook.reconciler import Reconciler
from pilothouse.process import Manager

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Secondary:
    """Another kind that a playbook reads, and whose changes cause plays.

    Attributes:
        resource: The kind and the view of it that the playbook reads.
        mapper: Tells the keys of the objects that one of it concerns; None: the one that controls it.
        selector: Only objects with these labels.
        field_selector: Only objects with these fields: "metadata.name=web".
        predicate: Which of its changes cause a play: `generation_changed` leaves out those of its status,
            `labels_changed` and `annotations_changed` all but those; `any_of` joins them.
        transform: Drops from each object what nobody reads, before it is stored; instead of
            `drop_last_applied`.
        indexes: By what else than owner `play.list` finds them: names, and functions to their values.
    """

    resource: Resource[Any]
    mapper: Mapper[Any] | None = None
    selector: str = ""
    field_selector: str = ""
    predicate: Predicate[Any] = any_change
    transform: Transform[Any] = drop_last_applied
    indexes: Mapping[str, IndexFunc[Any]] = field(default_factory=dict)

    @property
    def selection(self) -> tuple[object, ...]:
        """Which objects are read, and how: alike wherever a watch declares the kind."""
        return self.resource, self.selector, self.field_selector, self.transform


@dataclass(frozen=True)
class Watch:
    """Maps a kind to the playbook that is played over its objects. The finalizer is the playbook's.

    Attributes:
        resource: The kind and the view of it that the playbook reads.
        playbook: What is played.
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
            `drop_last_applied`. Finalizers and the status must stay: they are written from what is stored.

    Raises:
        ValueError: It declares a kind twice, in different views or selections.
    """

    resource: Resource[Any]
    playbook: Playbook[Any]
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

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", self.resource.kind.lower())
        declared: dict[tuple[str, str], Secondary] = {}
        for each in self.secondaries:
            first = declared.setdefault((each.resource.group, each.resource.kind), each)
            if first.selection != each.selection:
                raise ValueError(
                    f"the Watch of {self.resource} declares {each.resource} twice, in different views or "
                    "selections: the playbook could not tell which one it reads. Declare it alike, in the "
                    "one view and with the one selector that bring all that it needs"
                )

    @property
    def secondaries(self) -> Sequence[Secondary]:
        """All other kinds than the played one."""
        return (*map(Secondary, self.owns), *self.watches)


def add_watch(manager: Manager, watch: Watch) -> Controller[Any]:
    """Makes the controller of a watch and adds it to a manager. Settings go before what the watch says."""
    settings = manager.settings
    namespaces = settings.watch_namespaces or watch.namespaces
    informer = manager.informer(
        watch.resource,
        label_selector=watch.selector,
        field_selector=watch.field_selector,
        namespaces=namespaces,
        transform=watch.transform,
    )
    others = [
        manager.informer(
            each.resource,
            label_selector=each.selector,
            field_selector=each.field_selector,
            namespaces=namespaces,
            transform=each.transform,
        )
        for each in watch.secondaries
    ]
    cluster = Cluster(
        manager.api,
        manager.fence,
        watch.resource,
        manager=manager.name,
        informers=others,
        namespaces=namespaces,
    )
    reconciler: Reconciler[Any] = Reconciler(
        manager.api, watch.resource, informer.store, watch.playbook, manager.recorder, cluster
    )
    reconciler.played = TaskMetrics(watch.name).played
    if watch.predicate is not None:
        reconciler.meaningful = any_of(meaningful_change, watch.predicate)
    controller: Controller[Any] = Controller(
        watch.name,
        manager.api,
        informer,
        reconciler.sync,
        workers=watch.workers if settings.workers is None else settings.workers,
        resync=watch.resync if settings.resync is None else settings.resync,
        sync_timeout=settings.sync_timeout,
        predicate=reconciler.worth_a_play,
        on_timeout=reconciler.timed_out,
        on_defect=reconciler.met_defect,
    )
    reconciler.wrote = controller.wrote
    cluster.wrote = controller.wrote_secondary
    informer.add_handler(partial(_on_drop, watch, reconciler))
    for secondary, other in zip(watch.secondaries, others, strict=True):
        add_indexes(other, secondary)
        controller.watch(other, secondary.mapper or owner_mapper(watch.resource), secondary.predicate)
    manager.add(controller)
    return controller


def _on_drop(watch: Watch, reconciler: Reconciler[Any], old: Any, new: Any, initial: bool) -> None:
    """Takes leave of an object that the watch shows no more: a handler of its informer."""
    if new is not None or old is None:
        return
    metadata = old.metadata
    reconciler.forget(metadata.key)
    finalizer = watch.playbook.finalizer
    selected = watch.selector or watch.field_selector
    if selected and finalizer in metadata.finalizers and metadata.deletion_timestamp is None:
        log.warning(
            "%s %s carries the finalizer %s and is not selected by %r any more: nobody plays it, and once "
            "deleted it would stay for ever. Let it be selected again, or clean up what it stands for and "
            "take the finalizer away",
            watch.resource.kind,
            metadata.key,
            finalizer,
            selected,
        )


def add_indexes(informer: Informer[Any], secondary: Secondary) -> None:
    """Lets objects of another kind be found by their owner, and by what else is declared."""
    for name, values in {OWNER: owner_uid, **secondary.indexes}.items():
        # Several watches may share an informer: the first has added the index of the owner.
        with suppress(ValueError):
            informer.store.add_index(name, values)
