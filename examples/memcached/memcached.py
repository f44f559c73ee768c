"""Keeps a Deployment for each Memcached: the first example of the Operator SDK, as a playbook."""

from typing import Annotated, Any

import msgspec
from msgspec.structs import replace

from pilothouse import DEPLOYMENT, Column, Kind, ObjectMeta, Play, Status, Watch, field, main, task
from pilothouse.api import Scale


class MemcachedSpec(msgspec.Struct, frozen=True):
    """The desired state."""

    size: Annotated[int, field("The number of servers.", minimum=0, maximum=5, format="int32")] = 1
    version: Annotated[str, field("The version of memcached.", pattern=r"^[0-9]+\.[0-9]+\.[0-9]+$")] = (
        "1.6.39"
    )


class MemcachedStatus(Status, frozen=True):
    """The observed state."""

    ready: Annotated[int, field("The number of ready servers.", format="int32")] = 0
    version: Annotated[str, field("The version that all servers run.")] = ""


class Memcached(msgspec.Struct, frozen=True):
    """A cache in the cluster."""

    metadata: ObjectMeta = ObjectMeta()
    spec: Annotated[MemcachedSpec, field("The desired state.")] = MemcachedSpec()
    status: Annotated[MemcachedStatus, field("The observed state, written by the operator.")] = (
        MemcachedStatus()
    )


MEMCACHED = Kind(
    Memcached,
    group="cache.example.com",
    version="v1",
    description="Runs memcached servers.",
    columns=(
        Column("Size", ".spec.size", type="integer"),
        Column("Ready", ".status.ready", type="integer"),
        Column("Version", ".status.version"),
        Column("Reason", '.status.conditions[?(@.type=="Ready")].reason'),
    ),
    scale=Scale(".spec.size", ".status.ready"),
)


def manifest(cache: Memcached) -> dict[str, Any]:
    """Returns the Deployment of a Memcached."""
    labels = {"app.kubernetes.io/name": "memcached", "app.kubernetes.io/instance": cache.metadata.name}
    server = {
        "name": "memcached",
        "image": f"docker.io/library/memcached:{cache.spec.version}-alpine",
        "ports": [{"name": "memcached", "containerPort": 11211}],
        "readinessProbe": {"tcpSocket": {"port": "memcached"}},
    }
    template = {"metadata": {"labels": labels}, "spec": {"containers": [server]}}
    return {"spec": {"replicas": cache.spec.size, "selector": {"matchLabels": labels}, "template": template}}


@task("the servers run")
async def run_servers(play: Play[Memcached, MemcachedStatus]) -> None:
    """Applies the Deployment and waits until it is rolled out."""
    deployment = await play.apply(DEPLOYMENT, manifest(play.object))
    play.status = replace(play.status, ready=deployment.status.ready_replicas)
    await play.wait_for_rollout(deployment)
    play.status = replace(play.status, version=play.object.spec.version)


def watch() -> Watch:
    """Returns what the operator watches: Memcacheds, and the Deployments that they own."""
    return Watch(MEMCACHED, tasks=[run_servers], owns=[DEPLOYMENT])


if __name__ == "__main__":
    raise SystemExit(main("memcached", [watch()]))
