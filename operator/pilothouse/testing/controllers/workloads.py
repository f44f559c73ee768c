"""Stand-ins for the Deployment and StatefulSet controllers, which create Pods and set the status."""

from collections.abc import Sequence
from typing import Any

from pilothouse.kube import Resource
from pilothouse.playbook.names import digest
from pilothouse.testing.controllers.cluster import Built, Cluster, StandIn
from pilothouse.testing.controllers.pods import CLAIM, POD, is_ready
from pilothouse.testing.documents import Json

DEPLOYMENT: Resource[Built] = Resource("apps", "v1", "Deployment", "deployments", Built)
REPLICA_SET: Resource[Built] = Resource("apps", "v1", "ReplicaSet", "replicasets", Built)
STATEFUL_SET: Resource[Built] = Resource("apps", "v1", "StatefulSet", "statefulsets", Built)

HASH, REVISION = "pod-template-hash", "controller-revision-hash"

#: The default of progressDeadlineSeconds: seconds after which a Deployment reports that it makes no progress.
PROGRESS_DEADLINE_SECONDS = 600.0


class Deployments(StandIn):
    """Rolls out Deployments: a ReplicaSet per template, its Pods, and the status. Needs `Pods()` as well.

    In an update, all new Pods are created first. When they are ready, the old ReplicaSet and its Pods are
    deleted: there is no rollout history.
    """

    kinds = (DEPLOYMENT, REPLICA_SET, POD)

    async def sync(self, cluster: Cluster, obj: Built) -> float | None:
        """Does the next step for a Deployment."""
        if obj.metadata.deletion_timestamp is not None:
            return None
        template, replicas = obj.spec.get("template", {}), obj.spec.get("replicas", 1)
        revision = digest(template)
        name = f"{obj.metadata.name}-{revision}"
        if not obj.spec.get("paused"):
            await _make_replica_set(cluster, obj, name, revision)
        sets = cluster.owned(REPLICA_SET, obj)
        pods = [pod for each in sets for pod in cluster.owned(POD, each)]
        new = [pod for pod in pods if pod.metadata.labels.get(HASH) == revision]
        current = next((each for each in sets if each.metadata.name == name), None)
        if current is not None:
            await _make_pods(cluster, current, template, [f"{name}-{index}" for index in range(replicas)])
            for pod in new:
                if int(pod.metadata.name.rpartition("-")[2]) >= replicas:
                    await cluster.delete(POD, pod)
            if sum(map(is_ready, new)) >= replicas:
                for each in sets:
                    if each is not current:
                        await _delete_replica_set(cluster, each)
        return await self._set_status(cluster, obj, pods, new, replicas)

    async def _set_status(
        self, cluster: Cluster, obj: Built, pods: Sequence[Built], new: Sequence[Built], replicas: int
    ) -> float | None:
        ready, updated = sum(map(is_ready, pods)), len(new)
        complete = len(pods) == updated == replicas and ready == replicas
        phase = f"progress {obj.metadata.generation} {updated} {ready}"
        waited = cluster.elapsed(obj, phase)
        deadline = obj.spec.get("progressDeadlineSeconds", PROGRESS_DEADLINE_SECONDS)
        late = not complete and waited >= deadline
        status = {
            "observedGeneration": obj.metadata.generation,
            "replicas": len(pods),
            "updatedReplicas": updated,
            "readyReplicas": ready,
            "availableReplicas": ready,
            "unavailableReplicas": max(0, max(replicas, len(pods)) - ready),
            "conditions": [_available(ready >= replicas), _progressing(obj, complete=complete, late=late)],
        }
        await cluster.set_status(DEPLOYMENT, obj, status)
        return None if complete or late else deadline - waited

    def concerned(self, resource: Resource[Built], obj: Built, cluster: Cluster) -> Any:
        """Yields the key of the Deployment that a ReplicaSet or a Pod belongs to."""
        if resource is not POD:
            yield from super().concerned(resource, obj, cluster)
            return
        for each in cluster.all(REPLICA_SET):
            if each.metadata.uid == obj.owner:
                yield from super().concerned(REPLICA_SET, each, cluster)


class StatefulSets(StandIn):
    """Rolls out StatefulSets: Pods with ordinals and their claims, one after another, and the status.

    Needs `Pods()` as well, and `VolumeClaims()` for claims. As in a cluster, the claims stay when the
    StatefulSet is deleted. With the podManagementPolicy Parallel, all Pods are created at the same time.
    """

    kinds = (STATEFUL_SET, POD)

    async def sync(self, cluster: Cluster, obj: Built) -> float | None:
        """Does the next step for a StatefulSet."""
        if obj.metadata.deletion_timestamp is not None:
            return None
        replicas = obj.spec.get("replicas", 1)
        revision = f"{obj.metadata.name}-{digest(obj.spec.get('template', {}))}"
        pods = {pod.metadata.name: pod for pod in cluster.owned(POD, obj)}
        names = [f"{obj.metadata.name}-{index}" for index in range(replicas)]
        await self._scale(cluster, obj, names, pods, revision)
        current = [pods[name] for name in names if name in pods]
        outdated = [pod for pod in current if pod.metadata.labels.get(REVISION) != revision]
        if outdated and len(current) == replicas and all(map(is_ready, current)):
            await cluster.delete(POD, outdated[-1])
        ready, updated = sum(map(is_ready, pods.values())), len(current) - len(outdated)
        status: Json = {
            "observedGeneration": obj.metadata.generation,
            "replicas": len(pods),
            "readyReplicas": ready,
            "availableReplicas": ready,
            "updatedReplicas": updated,
            "updateRevision": revision,
        }
        if updated == replicas == len(pods) or "currentRevision" not in obj.status:
            status |= {"currentRevision": revision, "currentReplicas": updated}
        await cluster.set_status(STATEFUL_SET, obj, status)
        return None

    async def _scale(
        self, cluster: Cluster, obj: Built, names: Sequence[str], pods: dict[str, Built], revision: str
    ) -> None:
        """Creates the next missing Pod, or deletes the last Pod that is too many."""
        parallel = obj.spec.get("podManagementPolicy") == "Parallel"
        for name in names:
            if name not in pods:
                await self._make_pod(cluster, obj, name, revision)
            if not parallel and not (name in pods and is_ready(pods[name])):
                return
        too_many = sorted((name for name in pods if name not in names), key=_ordinal)
        for name in too_many[-1:]:
            await cluster.delete(POD, pods[name])

    async def _make_pod(self, cluster: Cluster, obj: Built, name: str, revision: str) -> None:
        volumes = []
        for claim in obj.spec.get("volumeClaimTemplates") or ():
            base = claim["metadata"]["name"]
            body = {**claim, "metadata": {**claim["metadata"], "name": f"{base}-{name}"}}
            body.pop("status", None)
            await cluster.create(CLAIM, obj, STATEFUL_SET, body, owned=False)
            volumes.append({"name": base, "persistentVolumeClaim": {"claimName": f"{base}-{name}"}})
        labels = {
            REVISION: revision,
            "statefulset.kubernetes.io/pod-name": name,
            "apps.kubernetes.io/pod-index": str(_ordinal(name)),
        }
        body = _pod(obj.spec.get("template", {}), name, labels)
        body["spec"] = {**body["spec"], "hostname": name, "subdomain": obj.spec.get("serviceName", "")}
        if volumes:
            body["spec"]["volumes"] = [*body["spec"].get("volumes", ()), *volumes]
        await cluster.create(POD, obj, STATEFUL_SET, body)


async def _make_replica_set(cluster: Cluster, obj: Built, name: str, revision: str) -> None:
    template = _pod(obj.spec.get("template", {}), "", {HASH: revision})
    selector = obj.spec.get("selector", {})
    labels = {**selector.get("matchLabels", {}), HASH: revision}
    body = {
        "metadata": {"name": name, "labels": template["metadata"]["labels"]},
        "spec": {
            "replicas": obj.spec.get("replicas", 1),
            "selector": {**selector, "matchLabels": labels},
            "template": template,
        },
    }
    await cluster.create(REPLICA_SET, obj, DEPLOYMENT, body)


async def _make_pods(cluster: Cluster, owner: Built, template: Json, names: Sequence[str]) -> None:
    there = {pod.metadata.name for pod in cluster.owned(POD, owner)}
    for name in names:
        if name not in there:
            labels = {HASH: owner.metadata.labels.get(HASH, "")}
            await cluster.create(POD, owner, REPLICA_SET, _pod(template, name, labels))


async def _delete_replica_set(cluster: Cluster, replica_set: Built) -> None:
    for pod in cluster.owned(POD, replica_set):
        await cluster.delete(POD, pod)
    await cluster.delete(REPLICA_SET, replica_set)


def _pod(template: Json, name: str, labels: Json) -> Json:
    metadata = template.get("metadata", {})
    named = {"name": name} if name else {}
    merged = {**metadata, **named, "labels": {**metadata.get("labels", {}), **labels}}
    return {"metadata": merged, "spec": dict(template.get("spec", {}))}


def _ordinal(name: str) -> int:
    return int(name.rpartition("-")[2])


def _available(available: bool) -> Json:
    reason = "MinimumReplicasAvailable" if available else "MinimumReplicasUnavailable"
    message = f"Deployment {'has' if available else 'does not have'} minimum availability."
    return {"type": "Available", "status": str(available), "reason": reason, "message": message}


def _progressing(obj: Built, *, complete: bool, late: bool) -> Json:
    name = obj.metadata.name
    if late:
        reason, message = "ProgressDeadlineExceeded", f'Deployment "{name}" has timed out progressing.'
    elif complete:
        reason, message = "NewReplicaSetAvailable", f'Deployment "{name}" has successfully progressed.'
    else:
        reason, message = "ReplicaSetUpdated", f'Deployment "{name}" is progressing.'
    return {"type": "Progressing", "status": str(not late), "reason": reason, "message": message}
