"""The meaning of each reason of the condition Ready of an EtcdCluster, for the reference page."""

PLAN = {
    "Settled": "The cluster matches its spec, and all members serve.",
    # The founding.
    "Founding": "The operator creates the first members. The message has the current step.",
    "Founded": "The first members serve and agree. The cluster is complete.",
    "AbandoningFounding": "The founding is given up, because the spec changed or a volume was lost before a "
    "majority of the members ran. The operator deletes its pods, and founds the cluster again. It keeps the "
    "volumes that a pod may have used, and lists them in `status.retainedVolumes`.",
    "FoundingLostVolumes": "A volume was lost during the founding, and a client may have written. The "
    "operator keeps everything as it is until a majority of the members serves.",
    "FoundingStarted": "`spec.TLS` or `spec.pod.ClusterDomain` was changed during the founding, and a client "
    "may have written. Set the field back. The message has what else you can do.",
    "FoundingUnknown": "There are pods of a founding that the status does not record. The operator deletes "
    "them, and founds the cluster again.",
    "ForeignObjects": "There are pods or PersistentVolumeClaims with the label of this cluster that this "
    "operator did not create, or the status is that of the coreos operator. Nothing is founded. The message "
    "names them.",
    "UnreadableAnnotation": "An annotation of a PersistentVolumeClaim cannot be read. The message names "
    "both. Correct the annotation; the operator then continues.",
    "EarlierPods": "A cluster of this name was deleted, and its pods still exist. The operator waits.",
    "Resuming": "Volumes of a deleted cluster of this name are retained. The operator starts their members "
    "again.",
    "VolumesMissing": "Retained volumes cannot be resumed, because volumes of other voters are missing. The "
    "message explains what to do.",
    "VolumesOfDifferentClusters": "The retained volumes belong to more than one cluster. Delete the "
    "PersistentVolumeClaims that you do not need.",
    "DataLost": "The status and all volumes of the cluster are lost. The operator does not found "
    "another cluster for this object. The message explains what you can do.",
    "OtherStorage": "PersistentVolumeClaims hold a cluster, and `spec.storage.ephemeral` is `true`. Remove "
    "the field, or delete the PersistentVolumeClaims in the message.",
    "OtherScheme": "The retained volumes hold a cluster with other TLS settings. Set `spec.TLS` as it was.",
    "OtherDomain": "The retained volumes hold a cluster whose peer URLs have another domain. Set "
    "`spec.pod.ClusterDomain` as it was.",
    "OtherService": "The retained volumes are copies of volumes of a cluster with another name or namespace. "
    "Their members would connect to that cluster, so the operator does not start them.",
    "VolumeCopied": "PersistentVolumeClaims are copies of volumes of other members, which the message names. "
    "Two processes with one member ID can lose data, so the operator does not use a copy. Remove its label "
    "`etcd_cluster`.",
    "OtherVersion": "A newer version of etcd has run on the retained volumes. Set `spec.version` to the "
    "version in the message, or newer.",
    # The members.
    "ProtectingMembers": "The operator configures the members so that they refuse an empty volume.",
    "RecordingMembers": "The operator records the voters in the status and on their volumes.",
    "AddingToService": "The operator adds members to the client Service.",
    "RemovingFromService": "The operator removes pods that are not voters from the client Service.",
    "RecreatingPods": "Pods of members are missing or have ended. The operator creates them again on their "
    "volumes.",
    "CorrectingMember": "A pod fails and differs from the spec. The operator corrects it.",
    "ReplacingMember": "The volume of a member is lost or empty, or the member keeps crashing. The operator "
    "removes the member from etcd and adds a new one.",
    "AddingMember": "The operator adds a member: first as a learner, which gets a vote once it has caught "
    "up.",
    "GivingUpMember": "The operator stops adding a member, because the spec changed, or because the member "
    "crashes or does not come up.",
    "RemovingMember": "There are more members than `spec.size`, because the spec changed, or because another "
    "member replaces one whose data will be lost. The operator removes one.",
    "RemovedMember": "etcd has confirmed that a member is removed. The operator deletes its pod, and keeps "
    "or deletes its volume according to `spec.storage.whenScaled`.",
    "UpdatingMember": "A pod differs from the spec. The operator upgrades or restarts one member at a time.",
    "AuthoritiesReplaced": "The certificate authorities for peers were replaced in their Secret, so the "
    "others would refuse a restarted member. Upgrades and other restarts wait. The message names the Secret.",
    "ChangeComplete": "The last change is complete.",
    "WaitingForMembers": "The operator waits until members serve, are linked and have caught up.",
    "WaitingForQuorum": "The next step would endanger the quorum, or etcd refuses it until more members "
    "serve. The operator waits.",
    "WaitingForLeader": "The operator waits until it knows the leader.",
    "WaitingForLearner": "A user has added a learner, and etcd accepts only one. The operator waits until "
    "it is promoted or removed.",
    "NoQuorum": "A quorum of the members does not serve. The operator starts the known members on their "
    "volumes, and waits.",
    "MembersHidden": "The operator cannot see any member, although they may serve. The message has the "
    "cause, for example that etcd's auth is enabled. `status.members` then shows which pods are Ready.",
    "QuorumLost": "The volumes of a majority of the members are lost. The operator never founds a cluster "
    "over the rest. The message names the surviving members and what to do. "
    "[Recover an etcd cluster](../howto/etcd/recover.md#the-volumes-of-a-majority-are-lost) has the "
    "commands.",
    "SecondQuorum": "Two groups of members of the cluster have a leader of their own: volumes of replaced "
    "members were restored and started. The operator changes nothing. The message names both groups.",
    "OtherCluster": "A member answers with the ID of another cluster: two clusters use the same name, or the "
    "status was edited. The operator changes nothing. [Recover an etcd "
    "cluster](../howto/etcd/recover.md#a-member-belongs-to-another-cluster) explains how to find out.",
}

PROBLEMS = {
    "MemberDown": "A member does not serve.",
    "MemberUnknown": "The operator cannot see whether a member serves. It does not replace such a member.",
    "NodeNotReady": "The node of a member is not ready. The operator does not replace the member.",
    "NodeUnknown": "The node of a member does not report, or the operator may not read nodes. The operator "
    "does not replace the member.",
    "MemberPending": "A pod cannot be scheduled, or its volume is not ready. The message has the reason.",
    "MemberCrashing": "etcd keeps exiting in a pod. The message has the exit code and the command that shows "
    "the log.",
    "PodEnded": "The kubelet has evicted or rejected a pod, or its node was shut down. The message has the "
    "reason. The operator creates the pod again on its volume, 30 s after its creation at the earliest. The "
    "member stays. With `storage.ephemeral` the data is lost with the pod, so the member is replaced.",
    "ImageUnavailable": "The image of etcd cannot be pulled. Check `spec.version` and `spec.repository`.",
    "ContainerNotStarted": "The kubelet cannot create or start the container of etcd, for example because a "
    "variable in `spec.pod.etcdEnv` refers to a Secret that does not exist. The message has the kubelet's "
    "reason.",
    "UnexpectedVersion": "The image of a pod has another version of etcd than its tag. The message names "
    "both versions. An upgrade waits until you correct `spec.version` or `spec.repository`.",
    "PodTerminating": "A pod is being deleted and its containers have ended, but finalizers of another "
    "client keep it. The message names the pod, its finalizers and the command that removes them. The "
    "operator can create the pod of a member again only after that.",
    "VolumeLost": "The volume of a member is lost.",
    "VolumeWiped": "The volume of a member is empty, although the member has started before.",
    "VolumeTerminating": "The PersistentVolumeClaim of a member is being deleted.",
    "LabelMissing": "A pod or a PersistentVolumeClaim of a member has lost the label `etcd_cluster`, or has "
    "that of another cluster. The operator does not change or delete such an object, and does not count it "
    "as lost. The message has the command that puts the labels back.",
    "PeerUrlChanged": "The peer URL of a member is not the one that the operator expects. The operator keeps "
    "the member. The message names both URLs and the command to set it back.",
    "MembersAddedByUser": "etcd has members that the operator did not add. It never removes them.",
    "ForeignPods": "Pods that do not belong to this EtcdCluster have its label.",
    "Alarm": "etcd reports alarms, for example `NOSPACE`.",
    "DowngradeRefused": "`spec.version` is older than what runs. Downgrades are not supported.",
    "UpgradeStepRequired": "`spec.version` skips a minor release, and `spec.upgradePolicy` is `OneMinor`.",
}

_FAILURES = {
    "InvalidSpec": "The spec has a mistake. The message names the field, its value and how to correct it, or "
    "has the answer of the API server to a pod with this spec. The last valid spec stays in force until you "
    "correct the mistake.",
    "Paused": "`spec.paused` or the annotation `pilothouse.dev/paused` is `true`. Until you change that, "
    "the operator does not touch the cluster. etcd continues to run. The condition is `Unknown`.",
    "SecretUnusable": "A Secret with certificates is missing or cannot be used, for example because its "
    "certificate has expired. The message names the Secret and the key.",
    "NoStorageClass": "The StorageClass of the spec does not exist, or the spec names none and there is no "
    "default. The message names the field to set.",
    "PermissionDenied": "etcd refuses a call of the next step, because its auth is enabled. The message "
    "names the call and what to do.",
    "VolumeNotResized": "The API server refused to resize a volume. If its StorageClass does not allow it, "
    "set the size in the spec back. The operator keeps retrying.",
    "UnreadableRecord": "`status.record` was edited and cannot be read. The operator changes nothing.",
}

# Reasons of the framework and of its modules.
_ENGINE = {
    "AlreadyExists": "An object that the operator has to create exists already. The operator retries with "
    "back-off.",
    "FieldConflict": "Another client owns a field that the operator sets. The message names both.",
    "FieldContended": "Another client keeps changing an object of the cluster. The message names the fields.",
    "Immutable": "A field of an existing object cannot be changed. The message names it.",
    "InvalidManifest": "The operator has a bug: it built an object that cannot be applied.",
    "KubernetesRefused": "The API server rejected a write, or would reject the pod that a restart needs. The "
    "message has its answer. Usual causes are a missing permission and a policy of the namespace. A member "
    "that is to be restarted keeps its pod until the API server accepts the new one.",
    "NameTaken": "An object with a name that the cluster needs belongs to another owner. The message names "
    "it. Delete it, or create the cluster under another name.",
    "NotOwned": "An object does not belong to the cluster, so the operator does not change it.",
    "StatusNotWritten": "The API server refused the status of the cluster. The message has its answer. The "
    "operator retries with back-off.",
    "Terminating": "A Service or the PodDisruptionBudget is being deleted. The operator creates it again "
    "once it is gone. The message names its finalizers.",
    "Timeout": "The reconcile took longer than the operator's SYNC_TIMEOUT. The operator retries with "
    "back-off.",
    "Undecodable": "The operator cannot read the cluster, because a field does not fit the types of this "
    "release. The message names the field. Correct it; the operator then continues.",
    "UnexpectedError": "The operator has a bug. Its log has the details. The operator retries with back-off.",
}

ALARMS = frozenset(
    {
        # etcd refuses writes, or its data is damaged.
        "Alarm",
        # The operator is blocked until a user acts.
        "DataLost",
        "ForeignObjects",
        "OtherCluster",
        "OtherDomain",
        "OtherScheme",
        "OtherService",
        "OtherStorage",
        "OtherVersion",
        "QuorumLost",
        "SecondQuorum",
        "VolumeCopied",
        "VolumesMissing",
        "VolumesOfDifferentClusters",
        # The spec is not in force.
        "InvalidSpec",
        "KubernetesRefused",
        # The operator cannot see or change the members.
        "LabelMissing",
        "MembersHidden",
        "NoStorageClass",
        "PeerUrlChanged",
        "PermissionDenied",
        "SecretUnusable",
        "UnexpectedVersion",
        "UnreadableAnnotation",
    }
)
"""The reasons of problems that need a user. Events show when one begins, and when it ends."""

SEEN_IN_ONE_ANSWER = frozenset({"OtherCluster", "SecondQuorum", "UnexpectedVersion"})
"""Those of them that one member may show alone, so they have ended only if the members of all pods answer."""

SEEN_IN_ANSWERS = SEEN_IN_ONE_ANSWER | {
    "Alarm",
    "MembersHidden",
    "PeerUrlChanged",
    "PermissionDenied",
    "QuorumLost",
}
"""Those that have ended only if a quorum of the members answers, and the problem is not seen."""

REASONS = {**PLAN, **PROBLEMS, **_FAILURES, **_ENGINE}
