"""The modules of a play that read and change objects of the cluster."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from pilothouse.kube import Conflict, KubeError, KubeObject, NotFound, ObjectKey, Resource
from pilothouse.playbook.actions import Actions
from pilothouse.playbook.apply import Apply
from pilothouse.playbook.awaited import PlaybookError, awaited
from pilothouse.playbook.cluster import Cluster
from pilothouse.playbook.contention import Contended
from pilothouse.playbook.create import Create, to_be_created
from pilothouse.playbook.jobs import job_manifest, verdict
from pilothouse.playbook.manifest import completed, is_secret
from pilothouse.playbook.records import Records, elapsed
from pilothouse.playbook.rollouts import explained
from pilothouse.playbook.tasks import RESULT, TaskFailed, Waiting, refused
from pilothouse.playbook.tasks import seconds as in_seconds
from pilothouse.views import JOB, Deployment, Job, StatefulSet

T = TypeVar("T", bound=KubeObject)
K = TypeVar("K", bound=KubeObject)
W = TypeVar("W", Deployment, StatefulSet)

# Watches report what is waited for. This is for what no watch reports, or reports late. Seconds.
FALLBACK = 60.0
# No watch shows why a pod does not run. Seconds.
ROLLOUT_FALLBACK = 15.0

WAIT_TIMED_OUT = "WaitTimedOut"

# What tells objects apart: a patch is for the object of its key, as it was seen.
_IDENTITY = {"name", "namespace", "uid", "resourceVersion"}


@awaited
class ObjectModules(Generic[T]):
    """The part of `Play` that reads and changes objects of the cluster.

    Attributes:
        object: The object that is reconciled.
        check: Change nothing, and report what would change.
        records: Which plans are under way, and since when tasks wait.
    """

    object: T
    check: bool
    records: Records

    @property
    def cluster(self) -> Cluster:
        """What the modules reach."""
        raise NotImplementedError

    def _report(self, contended: Contended) -> None:
        """Makes a fight with another client visible; the play goes on."""
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
        """Makes an object be as stated, by server-side apply under the operator's name.

        What the body leaves out is left to others, or is taken away if the operator had stated it before. In
        what the server takes as one value (a Service's selector, the rules of a Role, any list without keys)
        there are no others: it is as stated to the last field, defaults apart.

        An object that is as stated costs no request as long as nobody changes it; one that is not known to be
        is read once, and applied unless it plainly is as stated. The diff is what the server changed. A
        creation takes a read and an apply; what somebody else makes between them is noticed where it states
        a field otherwise, or has another controller.

        Some fields of an existing object never change: of a Pod all but the images, the metadata,
        activeDeadlineSeconds, and additional tolerations. A manifest that changes another one is the failure
        `Immutable`, which names the fields. To replace the object, rescue that failure and `delete` it. What
        the server and others have added to a Pod (defaults, nodeName, injected volumes) is no difference.

        Another client may keep changing a field that is stated. From the third correction on, the operator
        corrects the object with growing pauses of 1 s to 5 minutes, and Ready is False with the reason
        FieldContended until the object has been left alone for a minute. In the meantime the object that is
        returned is not as stated.

        Args:
            resource: The kind; the watch declares it in `owns`.
            body: What is stated. apiVersion and kind need not be; the name and namespace are the object's own
                unless given: see `child_name` for others.
            owned: Delete the object together with this one, by an owner reference. False is for an object
                that outlives this one (a retained PersistentVolumeClaim), is in another namespace, or has
                none: it carries the annotation `pilothouse.dev/owner-uid` instead. The garbage collector does
                not delete it, so the cleanup must. Either way its changes cause a play.
            adopt: Take over an existing object that does not belong to this one. It may belong to no one, to
                another object, or to an earlier object of the same name, which had another UID. A controller
                reference to another object is removed.
            force: Take fields over from other managers, as the API's documentation advises for controllers.

        Returns:
            The object as stored; in check mode as it is, or would be made.

        Raises:
            TaskFailed: NameTaken: the object exists and does not belong to this one; Immutable: the server
                does not change a field of an existing object; FieldConflict: another manager
                wants the same field; FieldContended: another client keeps deleting the object;
                NotSelected: the watch's selectors or namespaces would never show it; KubernetesRefused: the
                API server cannot be reached or refused.
            Conflict: The object changed meanwhile: leave it to the engine, which plays again.
        """
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
        with refusals():
            applied = await apply.run()
        if applied.diff:
            verb = "create" if applied.created else "change"
            RESULT.get().changed(f"{verb} {resource.kind} {applied.object.metadata.name}", applied.diff)
        if applied.contended is not None:
            self._report(applied.contended)
        return applied.object

    async def create(self, resource: Resource[K], body: Mapping[str, Any], *, owned: bool = True) -> K:
        """Creates an object that must not exist, by one request (POST) that never changes an existing object.

        A task may be stopped after the server has stored the object and before the answer arrives. So the
        object carries a digest of its manifest, which contains the UID of this object, in the annotation
        `pilothouse.dev/created-from`. If an object of that name belongs to this one and carries that digest,
        an earlier try has created it: `create` returns it as it is now, and reports no change. Any other
        object of that name is a failure, also one that is being deleted.

        A later change of the body is a failure as well: guard the call, as in `if play.get(...) is None`.
        Later changes are made by `patch`, or by `apply`, which takes over the fields that it states; it
        does not remove a field that only `create` stated.

        Args:
            resource: The kind; the watch declares it in `owns`.
            body: The object, as for `apply`.
            owned: As for `apply`.

        Returns:
            The object as stored; in check mode as it would be made.

        Raises:
            TaskFailed: AlreadyExists: another object has the name; NotSelected: the watch's selectors or
                namespaces would never show it; KubernetesRefused: the API server cannot be reached or
                refused.
            Conflict: It was deleted and created meanwhile: leave it to the engine, which plays again.
        """
        metadata = self.object.metadata
        manifest = completed(resource, body, self.cluster.owner, metadata, owned=owned)
        create = Create(self.cluster, resource, to_be_created(manifest), metadata, check=self.check)
        with refusals():
            created = await create.run()
        if created.diff:
            RESULT.get().changed(f"create {resource.kind} {manifest['metadata']['name']}", created.diff)
        return created.object

    async def patch(
        self,
        resource: Resource[K],
        name: str,
        body: Mapping[str, Any],
        *,
        namespace: str = "",
        owned: bool = True,
    ) -> K:
        """Changes some fields of an object, by a merge patch (RFC 7386): None removes a field.

        A list is replaced as a whole; to change one container of a Pod, `apply` its manifest. The patch
        carries the UID and the resourceVersion of the object that the play has seen, so the server refuses
        it if the object has changed since. If nothing differs no patch is sent, and as long as nobody changes
        the object, no request.

        Args:
            resource: The kind; the watch declares it.
            name: Its name.
            body: The fields; not the status.
            namespace: The object's own unless given.
            owned: Refuse an object that does not belong to this one. False changes such an object on purpose.

        Returns:
            The object as stored; in check mode as it is.

        Raises:
            PlaybookError: The patch states the status, or which object it is for.
            TaskFailed: NothingToPatch: there is no such object; NotOwned: it does not belong to this one;
                Immutable: the server does not change these fields of an existing object; KubernetesRefused:
                the API server cannot be reached or refused.
            Conflict: It changed meanwhile: leave it to the engine, which plays again.
        """
        if "status" in body or _IDENTITY & body.get("metadata", {}).keys():
            raise PlaybookError(
                f"a patch of {resource.kind} {name} states the status or its identity: state other fields"
            )
        key = self._key(resource, name, namespace)
        with refusals():
            patched, found = await self._actions(owned=owned).patch(resource, key, body)
        if found:
            diff = [each.told(hidden=is_secret(resource, each.path)) for each in found]
            RESULT.get().changed(f"patch {resource.kind} {name}", diff)
        self._report_contention(f"{resource}/patch", key)
        return patched

    async def read(self, resource: Resource[K], name: str, *, namespace: str = "") -> K | None:
        """Reads an object from the API server, in check mode too; returns None when there is none.

        `get` reads from the store and costs no request, but may be a moment behind. This is for decisions
        that must not rest on an older state. The operator's role needs the verb `get`.

        Args:
            resource: The kind, in any view; the watch need not declare it.
            name: Its name.
            namespace: The object's own unless given.

        Raises:
            TaskFailed: KubernetesRefused: the API server cannot be reached or refused.
        """
        with refusals():
            try:
                return await self.cluster.api.get(resource, self._key(resource, name, namespace))
            except NotFound:
                return None

    async def delete(
        self,
        resource: Resource[Any],
        name: str,
        *,
        namespace: str = "",
        propagation: str = "Background",
        owned: bool = True,
    ) -> bool:
        """Deletes an object, exactly the one that was seen; returns whether it is gone.

        It stays until its finalizers are gone: see `wait_for`.

        An object belongs to this one if this one controls it, if it carries this one's UID in the annotation
        `pilothouse.dev/owner-uid` and has no controller, or if its controller belongs to this one and the
        watch declares the controller's kind. That also holds for `scale`, `evict` and `patch`.

        Args:
            resource: The kind; the watch declares it.
            name: Its name.
            namespace: The object's own unless given.
            propagation: Background, Foreground or Orphan: what happens to what it owns.
            owned: Refuse an object that does not belong to this one. False deletes such an object on purpose.

        Raises:
            TaskFailed: NotOwned: the object does not belong to this one; KubernetesRefused: the API server
                cannot be reached or refused.
            Conflict: There is another one of that name by now: leave it to the engine, which plays again.
        """
        key = self._key(resource, name, namespace)
        with refusals():
            deleted = await self._actions(owned=owned).delete(resource, key, propagation=propagation)
        if deleted:
            what = f"delete {resource.kind} {name}"
            RESULT.get().changed(what, (f"- {resource.kind} {key}",))
        return self.cluster.store(resource).get(key) is None

    async def scale(
        self,
        resource: Resource[Any],
        name: str,
        replicas: int,
        *,
        namespace: str = "",
        owned: bool = True,
    ) -> None:
        """Makes a Deployment, or whatever else has the subresource `scale`, have so many replicas.

        One that is left as it is costs no request as long as nobody changes it. What applies the same object
        must not state `replicas`.

        Args:
            resource: The kind; the watch declares it.
            name: Its name.
            replicas: How many there shall be; whether they are there by now is what its status tells.
            namespace: The object's own unless given.
            owned: Refuse an object that does not belong to this one. False scales such an object on purpose.

        Raises:
            TaskFailed: NothingToScale: there is none; NotOwned: it does not belong to this one;
                KubernetesRefused: the API server cannot be reached or refused.
            Conflict: It changed meanwhile: leave it to the engine, which plays again.
        """
        key = self._key(resource, name, namespace)
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
        """Asks a pod to go, where its disruption budgets allow that; returns whether it is gone.

        It is the very pod that was seen. It goes some time later: see `wait_for`.

        Args:
            resource: Pods, in the view that the watch declares.
            name: Its name.
            namespace: The object's own unless given.
            grace_seconds: What it gets to end; None leaves it to the pod.
            owned: Refuse a pod that does not belong to this object. False evicts such a pod on purpose. A pod
                of this object's Deployment belongs to it if the watch declares ReplicaSets and Deployments.

        Raises:
            TaskFailed: NotOwned: the pod does not belong to this object; KubernetesRefused: a budget does not
                allow it now, or the API server cannot be reached or refused. The operator retries.
            Conflict: There is another one of that name by now: leave it to the engine, which plays again.
        """
        key = self._key(resource, name, namespace)
        with refusals():
            evicted = await self._actions(owned=owned).evict(resource, key, grace_seconds=grace_seconds)
        if evicted:
            RESULT.get().changed(f"evict {resource.kind} {name}", (f"- {resource.kind} {key}",))
        return self.cluster.store(resource).get(key) is None

    async def pod_log(
        self, name: str, *, namespace: str = "", container: str = "", tail_lines: int | None = None
    ) -> str:
        """What a pod's container has written so far, read from the API server, in check mode too.

        Args:
            name: The pod.
            namespace: The object's own unless given.
            container: Which one; may be empty for a pod that has one only.
            tail_lines: The last so many lines; None: the first 1 MiB.

        Raises:
            TaskFailed: KubernetesRefused: the container has not started, there is no such pod, or the API
                server cannot be reached or refused.
        """
        key = ObjectKey(namespace or self.object.metadata.namespace, name)
        with refusals():
            return await self.cluster.pod_log(key, container=container, tail_lines=tail_lines)

    async def wait_for_rollout(
        self, workload: W, *, fallback: float = ROLLOUT_FALLBACK, within: float | None = None
    ) -> None:
        """Ends the play unless a workload is rolled out. The condition Ready then says why it is not.

        ::

            deployment = await play.apply(DEPLOYMENT, manifest)
            await play.wait_for_rollout(deployment)

        A rollout is done when `kubectl rollout status` says so. Until then each play reads the workload's
        pods, and the claims of pods that cannot be scheduled, from the API server. The reason of Ready is
        RollingOut, or what is in the way: ImagePullBackOff, CrashLoopBackOff, Unschedulable, VolumePending,
        QuotaExceeded. The operator needs the permissions to list pods and to get persistentvolumeclaims;
        without them the condition only says how far the rollout is.

        Args:
            workload: The Deployment or StatefulSet, as `apply` or `get` returned it.
            fallback: Seconds until the next check. Changes of the workload are seen earlier; those of its
                pods are not.
            within: Seconds that the rollout may last, as for `wait_for`; None: no limit.

        Raises:
            Waiting: The rollout is not done.
            TaskFailed: The Deployment has exceeded its progressDeadlineSeconds, or WaitTimedOut: the rollout
                has lasted longer than `within`. The engine retries.
        """
        rollout = await explained(self.cluster.api, workload)
        if rollout.failed:
            raise TaskFailed(rollout.reason, rollout.message)
        if not rollout.done:
            wait = Waiting(rollout.reason, rollout.message, fallback=fallback)
            what = f"{type(workload).__name__} {workload.metadata.name} is rolled out"
            raise self._limited(wait, what, within, detail=rollout.message)

    async def run_job(
        self,
        body: Mapping[str, Any],
        *,
        owned: bool = True,
        adopt: bool = False,
        fallback: float = FALLBACK,
        within: float | None = None,
        ready: bool = False,
    ) -> Job:
        """Has a Job run to its end, once per content.

        Its name ends in a digest of what is stated: another content is another Job, the same content is the
        same Job. It is deleted with the object, or earlier where the body has a ttlSecondsAfterFinished; one
        that is gone is run anew, so note in the status that it is done.

        Args:
            body: The Job; the watch declares `JOB` in `owns`.
            owned: As for `apply`. A Job with `owned=False` is not deleted with the object.
            adopt: As for `apply`.
            fallback: Seconds until the Job is checked again in any case.
            within: Seconds that the Job may take, as for `wait_for`; None: no limit. It is not stopped.
            ready: Whether a Job that runs leaves Ready as if there were none, as for `wait_for`.

        Returns:
            The Job, which has succeeded.

        Raises:
            Waiting: It has not ended.
            TaskFailed: JobFailed: it is not run again until it is deleted; WaitTimedOut: it has taken longer
                than `within`; what `apply` raises.
        """
        job = await self.apply(JOB, job_manifest(body, self.object.metadata.name), owned=owned, adopt=adopt)
        try:
            return verdict(job, fallback)
        except Waiting as running:
            wait = Waiting(running.reason, running.message, fallback=running.fallback, ready=ready)
        raise self._limited(wait, f"Job {job.metadata.name} has ended", within)

    def _limited(self, wait: Waiting, what: str, within: float | None, *, detail: str = "") -> Waiting:
        """Returns a wait that ends in time.

        Args:
            wait: The wait.
            what: What is waited for, in words.
            within: Seconds that the wait may last; None: no limit.
            detail: A further sentence for the failure.

        Raises:
            TaskFailed: It has lasted longer.
        """
        if within is None:
            return wait
        limit = in_seconds(within, "within")
        waited = elapsed(self.records.waiting_since(self.object.metadata, RESULT.get().task, what))
        if waited < limit:
            fallback = min(wait.fallback, limit - waited)
            return Waiting(wait.reason, wait.message, fallback=fallback, ready=wait.ready)
        message = f"The wait until {what} has lasted longer than {limit:g} s. The operator keeps checking."
        raise TaskFailed(WAIT_TIMED_OUT, f"{message} {detail}".rstrip())

    def _key(self, resource: Resource[Any], name: str, namespace: str) -> ObjectKey:
        own = self.object.metadata.namespace if resource.namespaced else ""
        return ObjectKey(namespace or own, name)

    def _report_contention(self, aspect: str, key: ObjectKey) -> None:
        contended = self.cluster.contention.state(aspect, key)
        if contended is not None:
            self._report(contended)

    def _actions(self, *, owned: bool) -> Actions:
        return Actions(self.cluster, self.object.metadata, owned=owned, check=self.check)


@contextmanager
def refusals() -> Iterator[None]:
    """Turns a refusal of the API server into a failure of the task. The engine handles a Conflict."""
    try:
        yield
    except Conflict:
        raise
    except KubeError as error:
        raise refused(RESULT.get().task, error) from error
