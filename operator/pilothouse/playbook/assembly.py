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
from pilothouse.informer import DEFECTS, IndexFunc, Informer, Store
from pilothouse.kube import Api, Misfit, ObjectKey, PartialObjectMetadata, Resource
from pilothouse.playbook.announcer import Announcer
from pilothouse.playbook.awaited import PlaybookError
from pilothouse.playbook.cluster import OWNER, Cluster
from pilothouse.playbook.mapping import Mapper, Stores, index_changed
from pilothouse.playbook.metrics import TaskMetrics
from pilothouse.playbook.ownership import owner_uids, owners_of
from pilothouse.playbook.playbook import Recap
from pilothouse.playbook.reconciler import Reconciler
from pilothouse.playbook.tasks import TaskFailed
from pilothouse.playbook.trouble import UNDECODABLE
from pilothouse.playbook.watch import Watch
from pilothouse.process import Claim, Manager
from pilothouse.queue import WorkQueue
from pilothouse.telemetry import log_defect

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
        owners=store,
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
        later=own_writes.queue.add_after if own_writes else None,
    )


def add_watch(manager: Manager, watch: Watch) -> Controller[Any]:
    """Adds the controller of a watch to a manager. The manager's settings override what the watch says."""
    settings = manager.settings
    namespaces = settings.watch_namespaces or watch.namespaces
    manager.claim(_claim(watch, namespaces))
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
    informer.store.add_misfit_handler(partial(_on_misfit_gone, informer.store, reconciler))
    owners = owners_of(watch.resource, informer.store)
    stores = Stores(watch.resource, informer.store, watch.indexes, others)
    for secondary, other in zip(watch.secondaries, others, strict=True):
        reports = Announcer(secondary.resource, manager.recorder)
        mapper: Callable[[Any], Iterable[ObjectKey]] = owners
        if secondary.mapper is not None:
            mapper = partial(_map, secondary.mapper, stores, owners, reports)
        controller.watch(other, mapper, secondary.predicate)
        other.store.add_misfit_handler(partial(_on_misfit, controller, owners, reports))
    if watch.indexes:
        controller.watch(informer, lambda obj: [obj.metadata.key], index_changed(watch.indexes))
    manager.add(controller)
    return controller


def _claim(watch: Watch, namespaces: Sequence[str]) -> Claim:
    return Claim(
        watch.name,
        str(watch.resource),
        frozenset(namespaces if watch.resource.namespaced else ()),
        watch.selector,
        watch.field_selector,
        bool(watch.writes_status),
        frozenset((watch.playbook.finalizers.current, *watch.playbook.finalizers.retired)) - {""},
    )


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


def _on_misfit_gone(
    store: Store[Any], reconciler: Reconciler[Any], key: ObjectKey, misfit: Misfit | None
) -> None:
    """Takes note that an object fits the view again, or is gone: a misfit handler of its store."""
    if misfit is None:
        (reconciler.forget if store.get(key) is None else reconciler.readable)(key)


def _on_misfit(
    controller: Controller[Any],
    owners: Callable[[Any], Iterable[ObjectKey]],
    reports: Announcer,
    key: ObjectKey,
    misfit: Misfit | None,
) -> None:
    """Reports an object of a secondary kind that does not fit the view, and wakes its owner."""
    if misfit is None:
        return
    failure = TaskFailed(UNDECODABLE, f"The operator cannot read this object: {misfit.why}.")
    reports.warn(misfit.metadata, failure)
    for owner in owners(PartialObjectMetadata(misfit.metadata)):
        controller.queue.add(owner)


def _map(
    mapper: Mapper[Any],
    stores: Stores,
    owners: Callable[[Any], Iterable[ObjectKey]],
    reports: Announcer,
    obj: Any,
) -> Iterable[ObjectKey]:
    """Asks a mapper; where it fails, the object shows that, and its owner is woken."""
    try:
        return list(mapper(obj, stores))
    except DEFECTS as error:
        log_defect(log, error, "the mapper failed on %s, of which only the owner is woken", obj.metadata.key)
        reports.warn(
            obj.metadata,
            TaskFailed(
                "UnexpectedError",
                f"The operator could not find out which objects this one concerns ({type(error).__name__}). "
                "They are not reconciled when it changes; the operator's log has the details.",
            ),
        )
        return owners(obj)


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
