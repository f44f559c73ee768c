"""Applies specs with one mistake each, and finds out how a user learns of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from etcd_operator.types import ETCD_CLUSTER, EtcdCluster
from pilothouse.kube import BadRequest, Client, Invalid, ObjectKey

#: How a user learns of a mistake: from the API server, from the condition Ready or Warning, or not at all.
REFUSED, REPORTED, WARNED, SILENT = "refused", "reported", "warned", "silent"
#: Seconds until the operator has reported a mistake, and between two checks.
_PATIENCE, _POLL = 30.0, 0.2
#: The fewest words of a sentence.
_WORDS = 5


def _env(*variables: tuple[str, str]) -> dict[str, Any]:
    return {"pod": {"etcdEnv": [{"name": name, "value": value} for name, value in variables]}}


def _volume(**claim: Any) -> dict[str, Any]:
    return {"pod": {"persistentVolumeClaimSpec": claim}}


def _requested(size: str) -> dict[str, Any]:
    return _volume(resources={"requests": {"storage": size}})


_GIB: Mapping[str, str] = {"cpu": "2", "memory": "2Gi"}

#: What is wrong -> the fields that differ from a valid spec. Warnings are about specs that are accepted.
BAD_SPECS: Mapping[str, Mapping[str, Any]] = {
    "no members": {"size": 0},
    "too many members": {"size": 8},
    "a text as the size": {"size": "3"},
    "an even size": {"size": 2},
    "a version without numbers": {"version": "latest"},
    "a version of two numbers": {"version": "3.6"},
    "a version that is too old": {"version": "3.4.1"},
    "a version that does not exist": {"version": "3.9.0"},
    "a version with a known defect": {"version": "3.5.0"},
    "an image with a tag": {"repository": "quay.io/coreos/etcd:v3.6.14"},
    "a tiny quota": {"quotaBackendBytes": "1Ki"},
    "a huge quota": {"quotaBackendBytes": "16Gi", **_requested("32Gi")},
    "a quota above the volume": {"quotaBackendBytes": "8Gi", **_requested("1Gi")},
    "a quota that is no quantity": {"quotaBackendBytes": "8 GB"},
    "a tiny volume": _requested("1Mi"),
    "a volume that cannot be written": _volume(accessModes=["ReadOnlyMany"]),
    "a block volume": _volume(volumeMode="Block"),
    "one volume for all members": _volume(volumeName="pv-1"),
    "a volume with the data of another": _volume(dataSource={"kind": "VolumeSnapshot", "name": "s"}),
    "a volume for emptyDir": {"storage": {"ephemeral": True}, **_volume()},
    "emptyDir": {"storage": {"ephemeral": True}},
    "an unknown retention": {"storage": {"whenScaled": "Keep"}},
    "a compaction without a time": {"autoCompaction": {"retention": "often"}},
    "a compaction by revisions with a time": {"autoCompaction": {"mode": "revision", "retention": "1h"}},
    "a variable that founds another cluster": _env(("ETCD_FORCE_NEW_CLUSTER", "true")),
    "a variable that disables all flags": _env(("ETCD_CONFIG_FILE", "/etc/etcd.yaml")),
    "a variable that risks data": _env(("ETCD_UNSAFE_NO_FSYNC", "true")),
    "a variable that a flag shadows": _env(("ETCD_DATA_DIR", "/var/lib/etcd")),
    "a variable of TLS": _env(("ETCD_CERT_FILE", "/etc/a.crt")),
    "a variable that is set twice": _env(("ETCD_LOG_LEVEL", "info"), ("ETCD_LOG_LEVEL", "debug")),
    "a variable beside its field": {
        "quotaBackendBytes": "512Mi",
        **_env(("ETCD_QUOTA_BACKEND_BYTES", "1073741824")),
    },
    "a variable with a reference": _env(("ETCD_SNAPSHOT_COUNT", "$(COUNT)")),
    "a variable without a name": _env(("", "1")),
    "a variable that the version ignores": {
        "version": "3.7.3",
        **_env(("ETCD_EXPERIMENTAL_WATCH_PROGRESS_NOTIFY_INTERVAL", "1s")),
    },
    "a variable that the operator overrides": _env(("ETCD_SNAPSHOT_COUNT", "10000")),
    "requests above the limits": {"pod": {"resources": {"requests": _GIB, "limits": {"memory": "1Gi"}}}},
    "a limit that is no quantity": {"pod": {"resources": {"limits": {"cpu": "much"}}}},
    "a reserved label": {"pod": {"labels": {"etcd_cluster": "other"}}},
    "a label that Kubernetes refuses": {"pod": {"labels": {"a b": "c"}}},
    "a domain without a dot": {"pod": {"ClusterDomain": "cluster.local"}},
    "a priority class that cannot exist": {"pod": {"priorityClassName": "A B"}},
    "a server Secret without one for the operator": {"TLS": {"static": {"member": {"serverSecret": "s"}}}},
    "a Secret that does not exist": {"TLS": {"static": {"member": {"peerSecret": "absent"}}}},
}


async def measure(client: Client, namespace: str) -> dict[str, str]:
    """Returns how a user learns of each mistake: `REFUSED`, `REPORTED`, `WARNED` or `SILENT`.

    Every cluster is paused, so the operator judges its spec and creates nothing.

    Args:
        client: The client for the API server.
        namespace: A namespace that the operator watches.
    """
    return {
        what: await _judged(client, ObjectKey(namespace, f"bad-{number}"), fields)
        for number, (what, fields) in enumerate(BAD_SPECS.items())
    }


async def _judged(client: Client, key: ObjectKey, fields: Mapping[str, Any]) -> str:
    spec = {"size": 3, "version": "3.6.14", "paused": True, **fields}
    head = {"apiVersion": ETCD_CLUSTER.resource.api_version, "kind": ETCD_CLUSTER.resource.kind}
    body = {**head, "metadata": {"name": key.name}, "spec": spec}
    try:
        await client.create(ETCD_CLUSTER.resource, body, namespace=key.namespace)
    except (Invalid, BadRequest) as error:
        return REFUSED if _is_sentence(str(error)) else SILENT
    try:
        return await _reported(client, key)
    finally:
        await client.delete(ETCD_CLUSTER.resource, key)


async def _reported(client: Client, key: ObjectKey) -> str:
    ends = time.monotonic() + _PATIENCE
    while time.monotonic() < ends:
        if found := _shown(await client.get(ETCD_CLUSTER.resource, key)):
            return found
        await asyncio.sleep(_POLL)
    return SILENT


def _shown(cluster: EtcdCluster) -> str:
    for each in cluster.status.conditions:
        named = each.reason in ("InvalidSpec", "SecretUnusable")
        if each.type == "Ready" and each.status == "False" and named and _is_sentence(each.message):
            return REPORTED
        if each.type == "Warning" and each.status == "True" and _is_sentence(each.message):
            return WARNED
    return ""


def _is_sentence(text: str) -> bool:
    return len(text.split()) >= _WORDS
