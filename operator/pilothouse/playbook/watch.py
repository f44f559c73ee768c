"""Watches: which playbook is played over which kind, and what else it reads; declared in one place."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from pilothouse.controller import Controller, Manager, Mapper, owner_mapper
from pilothouse.informer import IndexFunc, Informer
from pilothouse.kube import Resource
from pilothouse.playbook.cluster import OWNER, Cluster, owner_uid
from pilothouse.playbook.playbook import Playbook
from pilothouse.playbook.reconciler import Reconciler


@dataclass(frozen=True)
class Secondary:
    """Another kind that a playbook reads, and whose changes cause plays.

    Attributes:
        resource: The kind and the view of it that the playbook reads.
        mapper: Tells the keys of the objects that one of it concerns; None: the one that controls it.
        selector: Only objects with these labels.
        field_selector: Only objects with these fields: "metadata.name=web".
        indexes: By what else than owner `play.list` finds them: names, and functions to their values.
    """

    resource: Resource[Any]
    mapper: Mapper[Any] | None = None
    selector: str = ""
    field_selector: str = ""
    indexes: Mapping[str, IndexFunc[Any]] = field(default_factory=dict)


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
        watches: Other kinds that concern the playbook, and owned ones of which it reads a part.
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
    )
    others = [
        manager.informer(
            each.resource,
            label_selector=each.selector,
            field_selector=each.field_selector,
            namespaces=namespaces,
        )
        for each in watch.secondaries
    ]
    cluster = Cluster(
        manager.api, manager.fence, watch.resource, manager=manager.name, informers=[informer, *others]
    )
    reconciler: Reconciler[Any] = Reconciler(
        manager.api, watch.resource, informer.store, watch.playbook, manager.recorder, cluster
    )
    controller: Controller[Any] = Controller(
        watch.resource.kind.lower(),
        manager.api,
        informer,
        reconciler.sync,
        workers=watch.workers if settings.workers is None else settings.workers,
        resync=watch.resync if settings.resync is None else settings.resync,
        sync_timeout=settings.sync_timeout,
        predicate=reconciler.worth_a_play,
        on_timeout=reconciler.timed_out,
    )
    reconciler.wrote = controller.wrote
    cluster.wrote = controller.wrote_secondary
    for secondary, other in zip(watch.secondaries, others, strict=True):
        add_indexes(other, secondary)
        controller.watch(other, secondary.mapper or owner_mapper(watch.resource))
    manager.add(controller)
    return controller


def add_indexes(informer: Informer[Any], secondary: Secondary) -> None:
    """Lets objects of another kind be found by their owner, and by what else is declared."""
    for name, values in {OWNER: owner_uid, **secondary.indexes}.items():
        # Several watches may share an informer: the first has added the index of the owner.
        with suppress(ValueError):
            informer.store.add_index(name, values)
