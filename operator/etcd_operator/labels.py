"""The label by which the operator finds the objects of a cluster, and the problem that it is missing. No I/O.

The operator does not label such an object again: the user who removed the label may have had a reason.
"""

from typing import Any

from etcd_operator.blueprint import APP, NODE_LABEL
from etcd_operator.model import Problem
from etcd_operator.types import LABEL
from etcd_operator.views import POD
from pilothouse import ObjectMeta, Resource


def lacks_label(metadata: ObjectMeta, cluster: str) -> bool:
    """Whether an object does not have the label with the name of a cluster."""
    return metadata.labels.get(LABEL) != cluster


def label_missing(resource: Resource[Any], name: str, *, cluster: str, namespace: str) -> Problem:
    """Returns the problem that a pod or a PVC has lost the label, with the command that puts it back.

    Args:
        resource: The kind.
        name: The name of the object, and of the member.
        cluster: The name of the EtcdCluster.
        namespace: Its namespace.
    """
    what, effect = "PVC", "so the operator does not change or delete it"
    if resource.kind == POD.kind:
        what, effect = "pod", "so the Services do not lead to it, and the operator does not change it"
    labels = {**APP, LABEL: cluster, NODE_LABEL: name}
    words = " ".join(f"{key}={value}" for key, value in labels.items())
    return Problem(
        "LabelMissing",
        f"The {what} {name} does not have the label {LABEL}={cluster}, {effect}. Put its labels back: "
        f"kubectl label --overwrite -n {namespace} {what.lower()} {name} {words}",
    )
