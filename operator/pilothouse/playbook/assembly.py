"""Assembles the parts of a watch, for the operator and for manual plays."""

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
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
from pilothouse.playbook.indexes import index_failure
from pilothouse.playbook.mapping import Mapper, Stores, index_changed, mapped_keys
from pilothouse.playbook.metrics import TaskMetrics
from pilothouse.playbook.ownership import owner_uids, owners_of
from pilothouse.playbook.playbook import Recap
from pilothouse.playbook.reconciler import Reconciler
from pilothouse.playbook.tasks import TaskFailed
from pilothouse.playbook.trouble import UNDECODABLE
from pilothouse.playbook.watch import Watch
from pilothouse.process import Claim, Manager
from pilothouse.queue import WorkQueue
from pilothouse.telemetry import hiding, log_defect

log = logging.getLogger(__name__)

DESELECTED = "NoLongerSelected"
"""The reason of the Event about an object that has our finalizer and has left the watch's selection."""


class Surroundings(NamedTuple):
    """What the parts of a watch need from their process.

    Attributes:
        name: The operator's name, which is also its field manager.
        api: The client of the API server, behind the fence.
        fence: The fence for changes of outside systems.
        recorder: Records the Events.
        namespaces: The namespaces that the operator watches; empty for all.
        finalizers: Returns the finalizers of all watches of a kind in the process, given the kind and its
            group.
    """

    name: str
    api: Api
    fence: Fence
    recorder: EventRecorder
    namespaces: Sequence[str] = ()
    finalizers: Callable[[str], Collection[str]] = lambda resource: ()


def assemble(
    watch: Watch,
    around: Surroundings,
    store: Store[Any],
    others: Sequence[Informer[Any]],
    *,
    own_writes: OwnWrites[Any] | None = None,
    played: Callable[[Recap], None] | None = None,
) -> Reconciler[Any]:
    """Creates the reconciler of a watch, with the cluster that its modules use.

    Args:
        watch: The watch.
        around: What the parts need from the process.
        store: The store of the reconciled objects.
        others: The informers of the watch's secondary kinds, in the order of `watch.secondaries`.
        own_writes: The controller's own writes. Without a controller, written objects are put into the
            stores.
        played: Called with each recap. By default it is counted in the metrics.

    Raises:
        PlaybookError: Two watches declare an index with the same name and different functions.
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
        known_finalizers=partial(around.finalizers, str(watch.resource)),
    )


def add_watch(manager: Manager, watch: Watch) -> Controller[Any]:
    """Adds the controller of a watch to a manager. The manager's settings override those of the watch.

    Raises:
        PlaybookError: The watch contradicts another one, or a view is not valid.
    """
    try:
        return _add_watch(manager, watch)
    except PlaybookError:
        raise
    except (TypeError, ValueError) as error:
        # The inner packages do not know about watches.
        raise PlaybookError(f"the Watch of {watch.resource} ({watch.place}): {error}") from error


def _add_watch(manager: Manager, watch: Watch) -> Controller[Any]:
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
    around = Surroundings(
        manager.name, manager.api, manager.fence, manager.recorder, namespaces, manager.finalizers
    )
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
        predicate=reconciler.changes.worth_a_play,
        on_timeout=reconciler.interruptions.timed_out,
        on_defect=reconciler.interruptions.met_defect,
        own_writes=own_writes,
        admits=manager.admits,
    )
    own_reports = Announcer(watch.resource, manager.recorder)
    informer.add_handler(partial(_on_drop, watch, reconciler, own_reports))
    informer.store.add_misfit_handler(partial(_on_misfit_gone, informer.store, reconciler))
    owners = owners_of(watch.resource, informer.store)
    stores = Stores(watch.resource, informer.store, watch.indexes, others)
    for secondary, other in zip(watch.secondaries, others, strict=True):
        reports = Announcer(secondary.resource, manager.recorder)
        mapper: Callable[[Any], Iterable[ObjectKey]] = owners
        if secondary.mapper is not None:
            mapper = partial(_map, secondary.mapper, stores, owners, reports)
        controller.watch(other, mapper, secondary.predicate)
        if secondary.indexes:
            other.add_handler(partial(_report_index, secondary.resource, other.store, reports))
        other.store.add_misfit_handler(partial(_on_misfit, controller, owners, reports, {}))
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


def _on_drop(
    watch: Watch, reconciler: Reconciler[Any], reports: Announcer, old: Any, new: Any, initial: bool
) -> None:
    """Forgets an object that the watch no longer shows: a handler of the kind's informer."""
    if new is not None or old is None:
        return
    metadata = old.metadata
    reconciler.forget(metadata.key)
    finalizers = watch.playbook.finalizers
    selected = watch.selector or watch.field_selector
    if selected and finalizers.hold(metadata) and metadata.deletion_timestamp is None:
        report = (
            f"{watch.resource.kind} {metadata.key} has the finalizer {finalizers} and is no longer selected "
            f"by {selected!r}. It is not reconciled, and its deletion would never finish. Make it match the "
            "selector again, or clean up manually and remove the finalizer."
        )
        log.warning("%s", report)
        reports.warn(metadata, TaskFailed(DESELECTED, report))


def _on_misfit_gone(
    store: Store[Any], reconciler: Reconciler[Any], key: ObjectKey, misfit: Misfit | None
) -> None:
    """Records that an object can be decoded again, or is gone: a misfit handler of its store."""
    if misfit is None:
        (reconciler.forget if store.get(key) is None else reconciler.readable)(key)


def _on_misfit(
    controller: Controller[Any],
    owners: Callable[[Any], Iterable[ObjectKey]],
    reports: Announcer,
    known: dict[ObjectKey, Misfit],
    key: ObjectKey,
    misfit: Misfit | None,
) -> None:
    """Reports an object of a secondary kind that cannot be decoded, and queues its owner.

    The owner is also queued when the object can be decoded again or is deleted.
    """
    last = known.pop(key, None)
    if misfit is not None:
        known[key] = last = misfit
        failure = TaskFailed(UNDECODABLE, f"The operator cannot read this object: {misfit.why}.")
        reports.warn(misfit.metadata, failure)
    if last is not None:
        for owner in owners(PartialObjectMetadata(last.metadata)):
            controller.queue.add(owner)


def _report_index(
    resource: Resource[Any], store: Store[Any], reports: Announcer, old: Any, new: Any, initial: bool
) -> None:
    """Reports an object of a secondary kind that an index lacks: a handler of the kind's informer."""
    failure = index_failure(resource, new.metadata.key, store) if new is not None else None
    if failure is not None:
        reports.warn(new.metadata, failure)


def _map(
    mapper: Mapper[Any],
    stores: Stores,
    owners: Callable[[Any], Iterable[ObjectKey]],
    reports: Announcer,
    obj: Any,
) -> Iterable[ObjectKey]:
    """Calls a mapper. If it fails, this is reported on the object, and the object's owner is queued."""
    # The mapper may read Secrets from the stores.
    with hiding():
        return _mapped(mapper, stores, owners, reports, obj)


def _mapped(
    mapper: Mapper[Any],
    stores: Stores,
    owners: Callable[[Any], Iterable[ObjectKey]],
    reports: Announcer,
    obj: Any,
) -> Iterable[ObjectKey]:
    try:
        return mapped_keys(mapper(obj, stores), stores.watched)
    except PlaybookError as error:
        log.error("Mapper failed for %s, reconciling only its owner: %s", obj.metadata.key, error)
        why = f"a mistake in the mapper: {error}"
    except DEFECTS as error:
        log_defect(log, error, "Mapper failed for %s, reconciling only its owner", obj.metadata.key)
        why = f"an unexpected error ({type(error).__name__}). The operator's log has the details."
    reports.warn(
        obj.metadata,
        TaskFailed(
            "UnexpectedError",
            "The operator does not reconcile the objects that depend on this one when it changes, because "
            f"of {why}",
        ),
    )
    return owners(obj)


def _add_indexes(resource: Resource[Any], store: Store[Any], indexes: Mapping[str, IndexFunc[Any]]) -> None:
    """Adds indexes to a store.

    Raises:
        PlaybookError: Another watch of the same objects has an index of that name with another function.
    """
    for name, values in indexes.items():
        try:
            store.add_index(name, values)
        except ValueError as taken:
            raise PlaybookError(
                f"Two watches of {resource} declare the index {name!r} with different functions. Use the "
                "same function in both, or two names."
            ) from taken
