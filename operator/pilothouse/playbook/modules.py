"""The modules of a play that read and change objects of the cluster."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pilothouse.kube import (
    ApiError,
    BadRequest,
    Conflict,
    Forbidden,
    Invalid,
    KubeError,
    KubeObject,
    NotFound,
    ObjectKey,
    Resource,
    ServerError,
    hide_contents,
    holds_secrets,
    version,
)
from pilothouse.kube.subresources import PODS
from pilothouse.playbook.arguments import (
    object_key,
    require_count,
    require_flags,
    require_resource,
    require_text,
    shown,
)
from pilothouse.playbook.awaited import PlaybookError, awaited, running_calls
from pilothouse.playbook.cluster import Cluster, unreadable
from pilothouse.playbook.contention import Contended
from pilothouse.playbook.records import Records
from pilothouse.playbook.tasks import RESULT, NamespaceTerminating, TaskFailed, Waiting, in_task, refused
from pilothouse.playbook.tasks import seconds as in_seconds

if TYPE_CHECKING:
    from pilothouse.playbook.actions import Actions
    from pilothouse.playbook.apply import Applied
    from pilothouse.playbook.time_limits import TimeLimit
    from pilothouse.views import Deployment, Job, StatefulSet

T = TypeVar("T", bound=KubeObject)
K = TypeVar("K", bound=KubeObject)
W = TypeVar("W", "Deployment", "StatefulSet")

# Seconds. A watch reports most changes that a task waits for. This is for those that no watch reports.
FALLBACK = 60.0
# Seconds. Shorter, because no watch reports why a pod does not run.
ROLLOUT_FALLBACK = 15.0

# The reason of Ready while an applied object is being deleted.
TERMINATING = "Terminating"

# k8s.io/apiserver, endpoints/handlers/fieldmanager: the object has an unknown field, or a key twice in a list
# that is a map. The API server answers an apply with this mistake with a 500.
_NOT_IN_SCHEMA = "failed to create typed patch object"
# What happens to the objects that a deleted object owns (metav1.DeletionPropagation).
_PROPAGATIONS = ("Background", "Foreground", "Orphan")


@awaited
class ObjectModules(Generic[T]):
    """The methods of `Play` that read and change objects of the cluster.

    Attributes:
        object: The object that is reconciled.
        check: Whether this is check mode: change nothing, and report what would change.
        records: The plans in progress, and the times when tasks began to wait.
    """

    object: T
    check: bool
    records: Records

    @property
    def cluster(self) -> Cluster:
        """The cluster that the modules use."""
        raise NotImplementedError

    def _report(self, contended: Contended) -> None:
        """Reports a fight with another client. The reconcile continues."""
        raise NotImplementedError

    async def apply(
        self,
        resource: Resource[K],
        body: Mapping[str, Any],
        *,
        owned: bool = True,
        adopt: bool = False,
        force: bool = True,
    ) -> K:
        """Applies a manifest: creates the object, changes what differs, or does nothing.

        ::

            await play.apply(CONFIG_MAP, {"data": {"greeting": "Hello"}})

        This is a server-side apply with the operator as field manager. Fields that the manifest leaves out
        keep their values, unless the operator had applied them before: then the API server removes them. The
        API server treats some fields as one value, such as the selector of a Service, the rules of a Role, or
        a list without keys. State these completely.

        If the object is known to match the manifest and has not changed since, no request is sent. Otherwise
        the object is read, and applied if it may differ. The diff lists the fields that the API server
        changed.

        Some fields of an existing object cannot be changed. Of a Pod, only the images, the metadata and
        activeDeadlineSeconds can, and tolerations can be added. If the manifest changes another field, the
        task fails with `Immutable`, and the message names the field. To replace the object, catch that
        failure and `delete` the object. Fields that the API server and others have added to a Pod (defaults,
        nodeName, injected volumes) are not differences.

        If another client keeps changing a field of the manifest, the operator waits before each correction
        from the third one on: first 1 s, at most 5 minutes. Ready is False with the reason FieldContended
        until no correction was needed for a minute. During that time the returned object may differ from the
        manifest.

        If the object is being deleted, the manifest is applied to it, and then the task waits until the
        object is gone. The next reconcile creates it again. A cleanup and check mode do not wait.

        Args:
            resource: The kind, which the watch declares in `owns`.
            body: The manifest. apiVersion and kind may be left out. Default for name and namespace: those of
                the play's object. For other names see `child_name`.
            owned: Whether to set an owner reference, so that the object is deleted together with the play's
                object. False is for an object that outlives it (a retained PersistentVolumeClaim), is in
                another namespace, or has none. It gets the annotation `pilothouse.dev/owner-uid` instead, and
                the cleanup must delete it. In both cases a change of the object causes a reconcile.
            adopt: Whether to take over an existing object that does not belong to the play's object. It may
                belong to no object, to another one, or to an earlier object of the same name, with another
                UID. A controller reference to another object is removed.
            force: Whether to take fields over from other field managers, as the Kubernetes documentation
                recommends for controllers.

        Returns:
            The object as stored. In check mode: the object as it is, or as a dry run creates it.

        Raises:
            PlaybookError: The kind is not a Resource that the watch declares. The manifest is not a mapping,
                contradicts the kind, states the status or metadata that only the API server sets, or has a
                value that JSON cannot express, such as NaN, a set or bytes. Or the play's object cannot own
                the object.
            TaskFailed: NameTaken: The object exists and does not belong to the play's object. Immutable: The
                manifest changes a field of an existing object that cannot be changed. FieldConflict: Another
                manager owns a field, and `force` is False. FieldContended: Another client keeps deleting the
                object. NotSelected: The selectors or namespaces of the watch exclude the object.
                InvalidManifest: The contents of a Secret are not valid, or the manifest states a field that
                an apply could not remove later. NamespaceTerminating: The object's namespace is being
                deleted. Undecodable: The object does not match the view. KubernetesRefused: The API server
                refused the request or is unreachable.
            Waiting: The object is being deleted.
            Conflict: The object has changed. Do not catch it: the engine reconciles again.
        """
        applied = await self._apply(resource, body, owned=owned, adopt=adopt, force=force)
        self._require_lasting(resource, applied)
        return applied

    async def _apply(
        self,
        resource: Resource[K],
        body: Mapping[str, Any],
        *,
        owned: bool,
        adopt: bool,
        force: bool = True,
    ) -> K:
        """Applies a manifest, also to an object that is being deleted."""
        # Imported when used, as in the methods below: an operator that changes only something outside of the
        # cluster does not pay for it.
        from pilothouse.playbook.apply import Apply
        from pilothouse.playbook.manifest import completed

        require_resource(resource, "play.apply")
        require_flags("play.apply", owned=owned, adopt=adopt, force=force)
        metadata = self.object.metadata
        manifest = completed(resource, body, self.cluster.owner, metadata, owned=owned)
        apply = Apply(
            self.cluster,
            resource,
            manifest,
            metadata,
            adopt=adopt,
            force=force,
            check=self.check,
        )
        with _creation(resource, manifest):
            applied = await apply.run()
        if applied.diff:
            verb = "create" if applied.created else "change"
            self._report_change(f"{verb} {resource.kind} {manifest['metadata']['name']}", resource, applied)
        self._wrote_own(resource, applied.object)
        if applied.contended is not None:
            self._report(applied.contended)
        return applied.object

    def _require_lasting(self, resource: Resource[Any], obj: KubeObject) -> None:
        """Waits while an applied object is being deleted. The next reconcile after that creates another one.

        A cleanup and check mode do not wait.

        Raises:
            Waiting: The object is being deleted.
        """
        metadata = obj.metadata
        if metadata.deletion_timestamp is None or self.check or self.object.metadata.deletion_timestamp:
            return
        finalizers = f"; its finalizers are: {', '.join(metadata.finalizers)}" if metadata.finalizers else ""
        message = f"{resource.kind} {metadata.name} is being deleted{finalizers}."
        raise ending(Waiting(TERMINATING, message, fallback=FALLBACK))

    async def create(self, resource: Resource[K], body: Mapping[str, Any], *, owned: bool = True) -> K:
        """Creates an object that must not exist yet. An existing object is never changed.

        The object gets the annotation `pilothouse.dev/created-from`: a digest of the manifest and of the UID
        of the play's object. If a reconcile is interrupted after the API server has stored the object, the
        next one finds its digest, returns the object as it is now, and reports no change. Any other object of
        that name is a failure, even if it is being deleted.

        A later change of the manifest is a failure, too. So guard the call, for example with
        `if play.get(...) is None`. Make later changes with `patch`, or with `apply`. The object is created by
        a server-side apply. So a later `apply` removes the fields that only `create` stated, except for the
        annotation. The operator's role needs the verbs `create` and `patch`.

        Args:
            resource: The kind, which the watch declares in `owns`.
            body: The manifest, as for `apply`.
            owned: Whether to set an owner reference, as for `apply`.

        Returns:
            The object as stored. In check mode: as a dry run creates it.

        Raises:
            PlaybookError: See `apply`.
            TaskFailed: AlreadyExists: Another object has the name. NotSelected: The selectors or namespaces
                of the watch exclude the object. NamespaceTerminating: The object's namespace is being
                deleted. KubernetesRefused: The API server refused the request or is unreachable.
            Conflict: The object was deleted and created again. Do not catch it: the engine reconciles again.
        """
        from pilothouse.playbook.create import Create, to_be_created
        from pilothouse.playbook.manifest import completed

        require_resource(resource, "play.create")
        require_flags("play.create", owned=owned)
        metadata = self.object.metadata
        manifest = completed(resource, body, self.cluster.owner, metadata, owned=owned)
        create = Create(self.cluster, resource, to_be_created(manifest), metadata, check=self.check)
        with _creation(resource, manifest):
            created = await create.run()
        if created.diff:
            self._report_change(f"create {resource.kind} {manifest['metadata']['name']}", resource, created)
        return created.object

    async def dry_run(
        self, resource: Resource[Any], body: Mapping[str, Any], *, owned: bool = True
    ) -> ApiError | None:
        """Asks the API server whether it would create an object. Nothing is stored.

        ::

            if refusal := await play.dry_run(POD, {**pod, "metadata": {"name": f"{name}-dry-run"}}):
                raise TaskFailed("PodRefused", f"The pod {name} is not replaced: {refusal}.")
            await play.delete(POD, name)

        Use it before you delete an object to create it again in another form. This is a server-side dry run:
        it includes admission, such as policies and quotas, and validation. The object still exists at that
        time, so give the manifest a name that is free, and expect a quota to count both. It costs two
        requests, also in check mode. The operator's role needs the verbs `get`, `create` and `patch`.

        Args:
            resource: The kind, which the watch declares in `owns`.
            body: The manifest, as for `create`.
            owned: Whether to set an owner reference, as for `apply`.

        Returns:
            The refusal: `Invalid`, `Forbidden`, `BadRequest`, or a `ServerError` about an object that does
            not fit the schema. None: the API server accepts the object, or a webhook does not support dry
            runs.

        Raises:
            PlaybookError: See `apply`.
            TaskFailed: AlreadyExists: An object has the name. KubernetesRefused: The API server is
                unreachable or cannot answer now. Also the other failures of `create`.
        """
        from pilothouse.playbook.create import Create, to_be_created
        from pilothouse.playbook.manifest import completed

        require_resource(resource, "play.dry_run")
        require_flags("play.dry_run", owned=owned)
        metadata = self.object.metadata
        manifest = completed(resource, body, self.cluster.owner, metadata, owned=owned)
        with _creation(resource, manifest):
            try:
                creation = Create(self.cluster, resource, to_be_created(manifest), metadata, check=True)
                tried = await creation.run()
            except (Invalid, Forbidden, BadRequest, ServerError) as refusal:
                if isinstance(refusal, Forbidden) and _terminates(refusal):
                    raise
                if isinstance(refusal, ServerError) and _NOT_IN_SCHEMA not in refusal.message:
                    raise
                return refusal
        # Without the permission, the object cannot be created later either.
        return tried.unchecked if isinstance(tried.unchecked, Forbidden) else None

    async def patch(
        self,
        resource: Resource[K],
        name: str,
        body: Mapping[str, Any],
        *,
        namespace: str = "",
        owned: bool = True,
    ) -> K:
        """Changes some fields of an object with a merge patch (RFC 7386). None removes a field.

        ::

            await play.patch(CONFIG_MAP, "web", {"metadata": {"labels": {"tier": "front"}}})

        A list is replaced as a whole. To change one container of a Pod, `apply` its manifest. A field that a
        patch set stays when a later `apply` leaves it out: patch it with None to remove it.

        A Secret's `stringData` is sent as `data`: None removes the key, and a key that is left out stays. To
        remove keys that are left out, `apply` the Secret.

        The patch carries the UID and the resourceVersion of the object that the play has seen, so the API
        server refuses it if the object has changed since. If nothing differs, no patch is sent. If the object
        has not changed since that was found out, there is no request at all.

        Args:
            resource: The kind, which the watch declares.
            name: The name of the object.
            body: The fields to change, without the status.
            namespace: The namespace of the object. Default: that of the play's object.
            owned: Whether to refuse an object that does not belong to the play's object.

        Returns:
            The object as stored. In check mode: as it is.

        Raises:
            PlaybookError: The patch states the status, the name, the namespace, or metadata that only the API
                server sets. Or see `apply`.
            TaskFailed: NothingToPatch: The object does not exist. NotOwned: It does not belong to the play's
                object. Immutable: The patch changes a field that cannot be changed. InvalidManifest: The
                contents of a Secret are not valid. Undecodable: The object does not match the view.
                NotSelected: The selectors or namespaces of the watch exclude the object. KubernetesRefused:
                The API server refused the request or is unreachable.
            Conflict: The object has changed. Do not catch it: the engine reconciles again.
        """
        from pilothouse.playbook.manifest import completed_patch, is_secret

        key = self._key(resource, name, namespace, "patch")
        require_flags("play.patch", owned=owned)
        patch = completed_patch(resource, body)
        with refusals():
            patched, found = await self._actions(owned=owned).patch(resource, key, patch)
        if found:
            diff = [each.line(hidden=is_secret(resource, each.path)) for each in found]
            RESULT.get().changed(f"patch {resource.kind} {name}", diff)
        self._wrote_own(resource, patched)
        self._report_contention(f"{resource}/patch", key)
        return patched

    async def read(self, resource: Resource[K], name: str, *, namespace: str = "") -> K | None:
        """Reads an object from the API server, also in check mode.

        Use it for decisions that need the current state. `get` reads from the store, which costs no request
        but may lag behind by a moment. The operator's role needs the verb `get`.

        Args:
            resource: The kind, with any view. The watch need not declare it.
            name: The name of the object.
            namespace: The namespace of the object. Default: that of the play's object.

        Returns:
            The object; None if it does not exist.

        Raises:
            TaskFailed: Undecodable: The object does not match the view. KubernetesRefused: The API server
                refused the request or is unreachable.
        """
        with refusals():
            try:
                return await self.cluster.api.get(resource, self._key(resource, name, namespace, "read"))
            except NotFound:
                return None

    async def read_list(
        self, resource: Resource[K], *, selector: str = "", namespace: str = ""
    ) -> Sequence[K]:
        """Lists the objects of a kind from the API server, also in check mode.

        Use it for decisions that need all current objects, such as whether there are none yet. `list` reads
        from the store, which costs no request but may lag behind by a moment. The operator's role needs the
        verb `list`.

        Args:
            resource: The kind, with any view. The watch need not declare it.
            selector: The label selector, such as `app=web,tier!=cache`. Empty: all objects.
            namespace: The namespace. Default: that of the play's object.

        Raises:
            TaskFailed: Undecodable: An object does not match the view. KubernetesRefused: The API server
                refused the request or is unreachable.
        """
        require_resource(resource, "play.read_list")
        require_text(selector, "play.read_list: the selector")
        require_text(namespace, "play.read_list: the namespace")
        found: list[K] = []
        if namespace and not resource.namespaced:
            raise PlaybookError(
                f"play.read_list({resource.kind}): the kind is cluster-scoped, so its objects have no "
                f"namespace. Remove namespace={namespace!r}."
            )
        own = self.object.metadata.namespace if resource.namespaced else ""
        with refusals():
            async for page in self.cluster.api.pages(
                resource, namespace=namespace or own, label_selector=selector
            ):
                for misfit in page.misfits:
                    raise unreadable(resource, misfit)
                found.extend(page.items)
        for each in found if holds_secrets(resource) else ():
            hide_contents(resource, each)
        return found

    async def delete(
        self,
        resource: Resource[Any],
        name: str,
        *,
        namespace: str = "",
        propagation: str = "Background",
        owned: bool = True,
    ) -> bool:
        """Deletes an object, and returns whether it no longer exists.

        ::

            gone = await play.delete(JOB, "backup")
            play.wait_for("the Job is deleted", gone)

        Only the object that the play has seen is deleted, not another one of the same name. It exists until
        its finalizers have been removed. An object that does not match the view is deleted, too.

        If the watch has a selector for the kind, or does not watch the namespace, it does not show whether
        the object exists. Then `delete` reads the object, for which the operator's role needs the verb `get`.
        The same holds for `scale` and `evict`.

        An object belongs to the play's object if that is its controller, or if it has no controller and its
        annotation `pilothouse.dev/owner-uid` holds the UID of the play's object. It also belongs to it if its
        controller does, and the watch declares the controller's kind. The same holds for `scale`, `evict` and
        `patch`.

        Args:
            resource: The kind, which the watch declares.
            name: The name of the object.
            namespace: The namespace of the object. Default: that of the play's object.
            propagation: What happens to the objects that it owns: Background, Foreground or Orphan.
            owned: Whether to refuse an object that does not belong to the play's object.

        Returns:
            Whether the object no longer exists.

        Raises:
            TaskFailed: NotOwned: The object does not belong to the play's object. KubernetesRefused: The API
                server refused the request or is unreachable.
            Conflict: Another object has the name now. Do not catch it: the engine reconciles again.
        """
        key = self._key(resource, name, namespace, "delete")
        require_flags("play.delete", owned=owned)
        if propagation not in _PROPAGATIONS:
            raise PlaybookError(
                f"play.delete({resource.kind}): propagation is {shown(propagation)}, but must be Background, "
                "Foreground or Orphan"
            )
        actions = self._actions(owned=owned)
        with refusals():
            deleted = await actions.delete(resource, key, propagation=propagation)
            gone = not await actions.exists(resource, key)
        if deleted:
            what = f"delete {resource.kind} {name}"
            RESULT.get().changed(what, (f"- {resource.kind} {key}",))
        return gone

    async def scale(
        self,
        resource: Resource[Any],
        name: str,
        replicas: int,
        *,
        namespace: str = "",
        owned: bool = True,
    ) -> None:
        """Sets the replicas of a Deployment, or of another object with the subresource `scale`.

        If the object is known to have this number and has not changed since, no request is sent. A task that
        applies the same object must leave `replicas` out of its manifest.

        Args:
            resource: The kind, which the watch declares.
            name: The name of the object.
            replicas: The desired number of replicas. The status of the object shows how many there are.
            namespace: The namespace of the object. Default: that of the play's object.
            owned: Whether to refuse an object that does not belong to the play's object.

        Raises:
            TaskFailed: NothingToScale: The object does not exist. NotOwned: It does not belong to the play's
                object. KubernetesRefused: The API server refused the request or is unreachable.
            Conflict: The object has changed. Do not catch it: the engine reconciles again.
        """
        key = self._key(resource, name, namespace, "scale")
        require_flags("play.scale", owned=owned)
        require_count(replicas, f"play.scale({resource.kind}): replicas")
        with refusals():
            had = await self._actions(owned=owned).scale(resource, key, replicas)
        if had != replicas:
            diff = f"replicas: {had} -> {replicas}"
            RESULT.get().changed(f"scale {resource.kind} {name} to {replicas}", (diff,))
        self._report_contention(f"{resource}/scale", key)

    async def evict(
        self,
        resource: Resource[Any],
        name: str,
        *,
        namespace: str = "",
        grace_seconds: int | None = None,
        owned: bool = True,
    ) -> bool:
        """Evicts a pod if its PodDisruptionBudgets allow it, and returns whether it no longer exists.

        Only the pod that the play has seen is evicted. It terminates some time later: see `wait_for`.

        Args:
            resource: The kind Pod, with the view that the watch declares.
            name: The name of the pod.
            namespace: The namespace of the pod. Default: that of the play's object.
            grace_seconds: The time that the pod has to terminate; None: the pod's own setting.
            owned: Whether to refuse a pod that does not belong to the play's object. A pod of a Deployment
                belongs to the owner of the Deployment if the watch declares ReplicaSets and Deployments.

        Returns:
            Whether the pod no longer exists.

        Raises:
            TaskFailed: NotOwned: The pod does not belong to the play's object. KubernetesRefused: A budget
                does not allow the eviction now, or the API server refused the request or is unreachable. The
                operator retries. NamespaceTerminating: The pod's namespace is being deleted.
            Conflict: Another pod has the name now. Do not catch it: the engine reconciles again.
        """
        key = self._key(resource, name, namespace, "evict")
        require_flags("play.evict", owned=owned)
        if resource.kind != "Pod":
            raise PlaybookError(f"play.evict: the kind is {resource.kind}, but only a Pod can be evicted")
        if grace_seconds is not None:
            require_count(grace_seconds, "play.evict: grace_seconds")
        actions = self._actions(owned=owned)
        # An eviction is an object that the API server creates.
        with refusals(f"the eviction of Pod {key}", key.namespace):
            evicted = await actions.evict(resource, key, grace_seconds=grace_seconds)
            gone = not await actions.exists(resource, key)
        if evicted:
            RESULT.get().changed(f"evict {resource.kind} {name}", (f"- {resource.kind} {key}",))
        return gone

    async def pod_log(
        self, name: str, *, namespace: str = "", container: str = "", tail_lines: int | None = None
    ) -> str:
        """Returns the log of a pod's container, read from the API server, also in check mode.

        Args:
            name: The name of the pod.
            namespace: The namespace of the pod. Default: that of the play's object.
            container: The name of the container. It may be empty if the pod has only one.
            tail_lines: The number of lines to read from the end; None: the first 1 MiB of the log.

        Raises:
            TaskFailed: KubernetesRefused: The container has not started, the pod does not exist, or the API
                server refused the request or is unreachable.
        """
        key = object_key(PODS, name, namespace, self.object.metadata.namespace, "play.pod_log")
        require_text(container, "play.pod_log: the container")
        if tail_lines is not None:
            require_count(tail_lines, "play.pod_log: tail_lines")
        with refusals():
            return await self.cluster.pod_log(key, container=container, tail_lines=tail_lines)

    async def wait_for_rollout(
        self, workload: W, *, fallback: float = ROLLOUT_FALLBACK, within: float | None = None
    ) -> None:
        """Ends the reconcile, without a failure, unless a workload is rolled out. Ready shows why it is not.

        ::

            deployment = await play.apply(DEPLOYMENT, manifest)
            await play.wait_for_rollout(deployment)

        The workload is rolled out under the same conditions as for `kubectl rollout status`. Until then each
        reconcile reads the workload's pods, and the claims of pods that cannot be scheduled, from the API
        server. The reason of Ready is RollingOut, or the problem: ImagePullBackOff, CrashLoopBackOff,
        Unschedulable, VolumePending or QuotaExceeded. The operator needs permission to list pods and to get
        persistentvolumeclaims. Without it the condition only shows the progress of the rollout.

        Args:
            workload: The Deployment or StatefulSet, as `apply` or `get` returned it.
            fallback: Seconds until the next check, at least 0.1. Changes of the workload cause an earlier
                one. Changes of its pods do not. While a pod is younger than 30 s and has no known problem,
                the next check comes after 5 s at most.
            within: Seconds that the call may wait for this workload, as for `wait_for`; None: no limit.

        Raises:
            Waiting: The rollout has not finished.
            TaskFailed: The Deployment has exceeded its progressDeadlineSeconds. WaitTimedOut: The rollout has
                lasted longer than `within`. The operator retries.
        """
        # Operators that wait for no rollout do not pay for the views: 130 KiB.
        from pilothouse.playbook.rollouts import STARTING_FALLBACK, explained, require_workload

        require_workload(workload)
        name = f"{type(workload).__name__} {workload.metadata.name}"
        limit = self._limit(within, name)
        rollout, starting = await explained(self.cluster.api, workload)
        if rollout.failed:
            raise TaskFailed(rollout.reason, rollout.message)
        if not rollout.done:
            pause = min(in_seconds(fallback, "fallback"), STARTING_FALLBACK) if starting else fallback
            wait = Waiting(rollout.reason, rollout.message, fallback=pause)
            raise ending(limit.of(wait, f"{name} is rolled out", detail=rollout.message) if limit else wait)
        if limit:
            limit.end()

    async def run_job(
        self,
        body: Mapping[str, Any],
        *,
        owned: bool = True,
        adopt: bool = False,
        fallback: float = FALLBACK,
        within: float | None = None,
        ready: bool = False,
    ) -> "Job":
        """Runs a Job and waits until it has finished. Each spec of the Job runs once.

        ::

            name = child_name(play.object.metadata.name, "backup")
            await play.run_job({"metadata": {"name": name}, "spec": {"template": {...}}})

        Give the Jobs of different objects different names, as in the example. By default a Job is named after
        the play's object. The name of the Job ends with a digest of its spec. So the same spec refers to the
        same Job, and a changed spec starts another Job. The Job is deleted with the play's object, or earlier
        if its spec has ttlSecondsAfterFinished. A deleted Job would run again, so record in the status that
        it has finished.

        Args:
            body: The manifest of the Job. The watch declares `JOB` in `owns`.
            owned: Whether to set an owner reference, as for `apply`. Without it, the cleanup must delete the
                Job.
            adopt: Whether to take over an existing Job, as for `apply`.
            fallback: Seconds until the Job is checked again in any case, at least 0.1.
            within: Seconds that the call may wait, as for `wait_for`; None: no limit. The Job is not stopped.
                A changed spec starts another Job and does not reset the time, unless the spec of the play's
                object has changed, too.
            ready: Whether the wait for the Job is routine and does not affect Ready, as for `wait_for`.

        Returns:
            The Job, which has succeeded.

        Raises:
            Waiting: The Job has not finished.
            TaskFailed: JobFailed: The Job failed. It does not run again until it is deleted. WaitTimedOut: It
                has taken longer than `within`. NameTaken: The Job belongs to another object. Also the other
                failures of `apply`.
            Conflict: The Job has changed. Do not catch it: the engine reconciles again.
        """
        from pilothouse.playbook.jobs import job_manifest, named_by_playbook, verdict
        from pilothouse.views import JOB

        require_flags("play.run_job", owned=owned, adopt=adopt, ready=ready)
        name = self.object.metadata.name
        manifest = job_manifest(body, name)
        # Without the digest of the spec: Jobs that follow each other have one limit together.
        limit = self._limit(within, f"Job {body.get('metadata', {}).get('name', name)}")
        with named_by_playbook(body, self.cluster.owner.kind):
            job = await self._apply(JOB, manifest, owned=owned, adopt=adopt)
        try:
            # A Job that has finished has run, even if it is being deleted by now.
            done = verdict(job, fallback)
        except Waiting as running:
            self._require_lasting(JOB, job)
            wait = Waiting(running.reason, running.message, fallback=running.fallback, ready=ready)
            what = f"Job {job.metadata.name} has finished"
            raise ending(limit.of(wait, what) if limit else wait) from None
        if limit:
            limit.end()
        return done

    def _limit(self, within: float | None, call: str) -> "TimeLimit | None":
        """Returns the time limit of a wait; None if there is none."""
        if within is None:
            return None
        from pilothouse.playbook.time_limits import time_limit

        limit = in_seconds(within, "within")
        return time_limit(limit, RESULT.get(), call, self.object.metadata, self.records)

    def _key(self, resource: Resource[Any], name: str, namespace: str, module: str) -> ObjectKey:
        """Returns the key of an object that a task names.

        Raises:
            PlaybookError: The kind is not a Resource, or the name or namespace is not valid.
        """
        require_resource(resource, f"play.{module}")
        return object_key(resource, name, namespace, self.object.metadata.namespace, f"play.{module}")

    def _wrote_own(self, resource: Resource[Any], written: Any) -> None:
        """Replaces the play's object if a task has written it. Otherwise the status would not be written.

        The status is written with the resourceVersion of the play's object. Of two versions the later one is
        the written one, because a task at the same time writes with the resourceVersion that it has seen.
        """
        own = self.object
        if self.check or type(written) is not type(own) or resource.kind != self.cluster.owner.kind:
            return
        if written.metadata.uid == own.metadata.uid and version(written) > version(own):
            self.object = written

    def _report_change(self, what: str, resource: Resource[Any], applied: "Applied[Any]") -> None:
        result = RESULT.get()
        result.changed(what, applied.diff)
        if applied.unchecked:
            from pilothouse.playbook.dry_run import why_unchecked

            why = why_unchecked(resource, applied.unchecked)
            result.note(result.state, f"the API server has not checked it: {why}")

    def _report_contention(self, aspect: str, key: ObjectKey) -> None:
        contended = self.cluster.contention.state(aspect, key)
        if contended is not None:
            self._report(contended)

    def _actions(self, *, owned: bool) -> "Actions":
        # Imported when used, as in `create`.
        from pilothouse.playbook.actions import Actions

        return Actions(self.cluster, self.object.metadata, owned=owned, check=self.check)


def ending(cause: TaskFailed | Waiting) -> TaskFailed | Waiting:
    """Returns what a module raises, after it has registered a wait with the running task."""
    if isinstance(cause, Waiting) and (calls := running_calls()):
        calls.raised_wait(cause.message)
    return cause


def _creation(resource: Resource[Any], manifest: Mapping[str, Any]) -> AbstractContextManager[None]:
    """Returns `refusals` for a module that may create the object of a manifest."""
    name, namespace = manifest["metadata"]["name"], manifest["metadata"].get("namespace", "")
    return refusals(f"{resource.kind} {ObjectKey(namespace, name)}", namespace)


@contextmanager
def refusals(created: str = "", namespace: str = "") -> Iterator[None]:
    """Turns a failed request into a failure of the task. A Conflict is left to the engine.

    Args:
        created: The object that the request may create: "ConfigMap default/web".
        namespace: The namespace of that object.
    """
    try:
        yield
    except Conflict as conflict:
        if calls := running_calls():
            calls.raised_conflict(conflict)
        raise
    except KubeError as error:
        task = RESULT.get().task
        if created and isinstance(error, Forbidden) and _terminates(error):
            raise NamespaceTerminating(task, namespace, created) from error
        raise refused(in_task(task), error) from error


def _terminates(error: Forbidden) -> bool:
    """Returns whether the API server refused to create an object because its namespace is being deleted."""
    return any(cause.reason == "NamespaceTerminating" for cause in error.causes)
