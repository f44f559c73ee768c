"""Reads nodes and StorageClasses. The rights on these cluster-scoped objects are optional.

They are read only while something waits for them, so a settled cluster costs no request.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from etcd_operator.model import Signal
from etcd_operator.pod_states import node_signal, unready_since
from etcd_operator.views import NODE, STORAGE_CLASS, Pod, StorageClass
from pilothouse import Play, TaskFailed

NODE_GRACE: Final = timedelta(seconds=10)
"""How long a pod must be unready before its node is read. Most pods are Ready again earlier."""


async def storage_classes(play: Play[Any, Any]) -> Sequence[StorageClass] | None:
    """Returns all StorageClasses. None: the operator cannot read them."""
    try:
        return await play.read_list(STORAGE_CLASS)
    except TaskFailed:
        return None


async def node_signals(play: Play[Any, Any], pods: Iterable[Pod], now: datetime) -> Mapping[str, Signal]:
    """Returns the states of the nodes of unready pods, by the names of the nodes.

    Kubernetes sets the pods of a node that does not report to unready.

    Args:
        play: The reconcile.
        pods: The pods of the cluster.
        now: The current time.
    """
    names = {each.spec.node_name for each in pods if each.spec.node_name and _stays_unready(each, now)}
    return {name: await _node_signal(play, name) for name in sorted(names)}


async def _node_signal(play: Play[Any, Any], name: str) -> Signal:
    try:
        return node_signal(await play.read(NODE, name))
    except TaskFailed:
        return Signal.UNKNOWN


def _stays_unready(pod: Pod, now: datetime) -> bool:
    since = unready_since(pod)
    return since is not None and now - since >= NODE_GRACE
