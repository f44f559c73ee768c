"""Assembles the parts that play a watch: for the operator, and for one object that is played manually."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from pilothouse.controller import (
    Controller,
    EventRecorder,
    Fence,
    OwnWrites,
    any_of,
    meaningful_change,
)
from pilothouse.informer import IndexFunc, Informer, Store
from pilothouse.kube import Api, ObjectKey, Resource
from pilothouse.playbook.awaited import PlaybookError
from pilothouse.playbook.cluster import OWNER, Cluster
from pilothouse.playbook.mapping import Mapper, Stores, index_changed
from pilothouse.playbook.metrics import TaskMetrics
from pilothouse.playbook.ownership import owner_uids, owners_of
from pilothouse.playbook.playbook import Recap
from pilothouse.playbook.reconciler import Reconciler
from pilothouse.playbook.watch import Watch
from pilothouse.process import Manager
from pilothouse.queue import WorkQueue

log = logging.getLogger(__name__)


class Surroundings(NamedTuple):
    """What a watch's parts need of the process that they run in.

    Attributes:
        name: The operator's name: the field manager of what its plays apply.
        api: Reaches the API server, behind the fence.
        fence: Lets changes of outside systems through.
        recorder: Takes Events.
        namespaces: The namespaces that the operator watches; empty: all.
    """

    name: str
    api: Api
    fence: Fence
    recorder: EventRecorder
    namespaces: Sequence[str] = ()


def assemble(
    watch: Watch,
    around: Surroundings,
    store: Store[Any],
    others: Sequence[Informer[Any]],
    *,
    own_writes: OwnWrites[Any] | None = None,
    played: Callable[[Recap], None] | None = None,
) -> Reconciler[Any]:
    """Builds the reconciler of a watch, and the cluster that its plays reach.

    Args:
        watch: The watch.
        around: What the parts need of the process.
        store: Where the objects of the watched kind are read.
        others: The informers of the watch's secondary kinds, in their order.
        own_writes: Takes what syncs write, where a controller runs; unless given, the stores do.
        played: Takes each recap; unless given, the metrics do.
    """
    _add_indexes(watch.resource, store, watch.indexes)
    for secondary, informer in zip(watch.secondaries, others, strict=True):
        _add_indexes(secondary.resource, informer.store, {OWNER: owner_uids, **secondary.indexes})
    cluster = Cluster(
        around.api,
        around.fence,
        watch.resource,
        manager=around.name,
        informers=others,
        namespaces=around.namespaces,
        wrote=own_writes.wrote_secondary if own_writes else None,
    )
    return Reconciler(
        around.api,
        watch.resource,
        store,
        watch.playbook,
        around.recorder,
        cluster,
        wrote=own_writes.wrote if own_writes else None,
        played=played or TaskMetrics(watch.name).played,
        meaningful=any_of(meaningful_change, watch.predicate) if watch.predicate else meaningful_change,
        owner=around.name if watch.name == watch.resource.kind.lower() else f"{around.name}.{watch.name}",
        writes_status=watch.writes_status,
    )


def add_watch(manager: Manager, watch: Watch) -> Controller[Any]:
    """Adds the controller of a watch to a manager. The manager's settings override what the watch says."""
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
    around = Surroundings(manager.name, manager.api, manager.fence, manager.recorder, namespaces)
    own_writes: OwnWrites[Any] = OwnWrites(manager.api, informer, WorkQueue(watch.name))
    reconciler = assemble(watch, around, informer.store, others, own_writes=own_writes)
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
        own_writes=own_writes,
    )
    informer.add_handler(partial(_on_drop, watch, reconciler))
    owners = owners_of(watch.resource, informer.store)
    stores = Stores(watch.resource, informer.store, watch.indexes, others)
    for secondary, other in zip(watch.secondaries, others, strict=True):
        mapper = owners if secondary.mapper is None else partial(_map, secondary.mapper, stores)
        controller.watch(other, mapper, secondary.predicate)
    if watch.indexes:
        controller.watch(informer, lambda obj: [obj.metadata.key], index_changed(watch.indexes))
    manager.add(controller)
    return controller


def _on_drop(watch: Watch, reconciler: Reconciler[Any], old: Any, new: Any, initial: bool) -> None:
    """Takes leave of an object that the watch shows no more: a handler of its informer."""
    if new is not None or old is None:
        return
    metadata = old.metadata
    reconciler.forget(metadata.key)
    finalizers = watch.playbook.finalizers
    selected = watch.selector or watch.field_selector
    if selected and finalizers.hold(metadata) and metadata.deletion_timestamp is None:
        log.warning(
            "%s %s carries the finalizer %s and is not selected by %r any more: nobody plays it, and once "
            "deleted it would stay for ever. Let it be selected again, or clean up what it stands for and "
            "take the finalizer away",
            watch.resource.kind,
            metadata.key,
            finalizers,
            selected,
        )


def _map(mapper: Mapper[Any], stores: Stores, obj: Any) -> Iterable[ObjectKey]:
    return mapper(obj, stores)


def _add_indexes(resource: Resource[Any], store: Store[Any], indexes: Mapping[str, IndexFunc[Any]]) -> None:
    """Lets the objects of a store be found by declared values.

    Raises:
        PlaybookError: Another watch of the same objects has an index of that name with another function.
    """
    for name, values in indexes.items():
        try:
            store.add_index(name, values)
        except ValueError as taken:
            raise PlaybookError(
                f"two watches of {resource} declare the index {name!r} with different functions. Use one "
                "function for both, or two names."
            ) from taken
