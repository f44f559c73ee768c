"""Says what a user can do after the data of a majority is lost: what survives, and the commands."""

from collections.abc import Sequence

from etcd_operator import pages
from etcd_operator.seats import Cluster, Place, listed, quorum


def lost_quorum(cluster: Cluster, lost: Sequence[Place], left: Sequence[Place]) -> str:
    """Returns the message about a lost quorum. It never advises to delete what may be the last copy.

    Args:
        cluster: The cluster.
        lost: The voters whose data is lost.
        left: The other voters.
    """
    survivors = [f"{each.name} (revision {each.endpoint.revision or 'unknown'})" for each in left]
    summary = (
        f"The data of {listed([each.name for each in lost])} is lost, so the cluster of size {cluster.count} "
        f"has no quorum. Surviving members: {listed(survivors) or 'none'}. The operator founds nothing over "
        "them."
    )
    restored = [each.name for each in lost if each.replaced]
    if restored:
        advice = _from_copies(cluster, restored, left)
    elif cluster.desired.ephemeral:
        advice = _from_pod(left)
    else:
        advice = _from_volume(cluster, left)
    return f"{summary} {advice} {pages.MAJORITY_LOST if left else pages.ALL_LOST} has all commands."


def _from_copies(cluster: Cluster, restored: list[str], left: Sequence[Place]) -> str:
    """PVCs of the lost members are there again. The status does not have their UIDs.

    They can be older copies. A majority of these could discard what only a survivor has.
    """
    missing = quorum(cluster.count) - len(left) - len(restored)
    more = f" and the PVCs of {missing} more of the lost members are restored, too" if missing > 0 else ""
    retain = _patch(cluster, '"storage":{"whenDeleted":"Retain"}')
    held = "the lost data, and not older copies" if left else "copies of the lost data"
    advice = (
        f"The PVCs {listed(restored)} are not those that the status records, so they may miss writes. Keep "
        f"all PVCs. If they hold {held}{more}, resume the cluster from its PVCs: run {retain}, wait until no "
        f"PVC has an owner reference, run kubectl delete etcdcluster {cluster.observation.name}, and create "
        "the EtcdCluster again."
    )
    return f"{advice} Otherwise: {_steps(cluster, left)}" if left else advice


def _from_volume(cluster: Cluster, left: Sequence[Place]) -> str:
    if not left:
        return "Restore the lost PVCs with their data, or create the EtcdCluster again from a snapshot."
    return f"Restore the lost PVCs with their data. If you cannot: {_steps(cluster, left)}"


def _from_pod(left: Sequence[Place]) -> str:
    if not left:
        return "Create the EtcdCluster again, and copy the keys of a snapshot."
    return f"Save a snapshot of {_best(left)} before you delete its pod, which has the data."


def _steps(cluster: Cluster, left: Sequence[Place]) -> str:
    best = _best(left)
    paused = _patch(cluster, '"paused":true,"storage":{"whenScaled":"Retain"}')
    return (
        f"run {paused}, delete the pod of {best}, and run etcd once with --force-new-cluster on its volume."
    )


def _best(left: Sequence[Place]) -> str:
    revisions = [each.endpoint.revision for each in left]
    if len(left) > 1 and 0 in revisions:
        return "the survivor with the highest revision"
    return max(left, key=lambda each: each.endpoint.revision).name


def _patch(cluster: Cluster, fields: str) -> str:
    name = cluster.observation.name
    return f"kubectl patch etcdcluster {name} --type=merge -p '{{\"spec\":{{{fields}}}}}'"
