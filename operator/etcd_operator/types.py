"""The kind EtcdCluster, etcd.database.coreos.com/v1beta2. `inv generate` writes its CRD and reference page.

Every field of the coreos operator keeps its name, even an odd one. Objects that it stored must stay valid:
OLM checks them against the schema, and refuses to install a CRD that they do not fit. So bounds are rules,
which the API server checks only when the value changes.
"""

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

import msgspec

from etcd_operator import variables
from etcd_operator.reasons import REASONS
from pilothouse import Column, Kind, ManagedResource, ObjectMeta, Rule, Status, field
from pilothouse.api import LenientCondition, Quantity, QuantityText, Scale, core

GROUP = "etcd.database.coreos.com"

LABEL = "etcd_cluster"
"""The label of the coreos operator that has the name of the cluster. Pods, claims and Services have it."""

PREFIX = "etcd.pilothouse.dev/"
"""The prefix of the labels and annotations that this operator sets. Users may not set them."""

MAX_SIZE = 7
MAX_NAME = 52
"""The longest name of a cluster, in characters, as in the coreos operator."""

NAME_PATTERN = f"^[a-z]([-a-z0-9]{{0,{MAX_NAME - 2}}}[a-z0-9])?$"
"""The names that a cluster can have: they are valid for a Service."""

DEFAULT_REPOSITORY = "quay.io/coreos/etcd"
"""The image of a cluster whose spec has none, without its tag."""

DEFAULT_STORAGE = "1Gi"
"""The requested storage of a volume, if the spec has none."""

LEAST_QUOTA = "16Mi"
"""The smallest quota of a database. A new one has 20 KiB, and etcd allocates several pages per write."""

LEAST_STORAGE = "128Mi"
"""The smallest volume. etcd's write-ahead log has files of 64 MB, of which there are at least two."""

BY_FIELD = {
    "ETCD_QUOTA_BACKEND_BYTES": "spec.quotaBackendBytes",
    "ETCD_AUTO_COMPACTION_MODE": "spec.autoCompaction",
    "ETCD_AUTO_COMPACTION_RETENTION": "spec.autoCompaction",
}
"""The environment variables that a field of the spec sets, too."""

_REQUESTED = "self.resources.requests['storage']"
_ADVANCED = "com.tectonic.ui:advanced"
_TEXT = ("com.tectonic.ui:text",)
_SECRET = ("io.kubernetes:Secret",)
_SWITCH = ("com.tectonic.ui:booleanSwitch",)
_SHOWN = ("text",)


def _is_one_of(value: str, texts: Iterable[str]) -> str:
    """Returns the CEL expression that a value is one of some texts."""
    return " || ".join(f"{value} == {text!r}" for text in texts)


def _sets(field: str) -> str:
    """Returns the CEL expression that a variable sets the same option as a field."""
    return _is_one_of("each.name", (name for name, other in BY_FIELD.items() if other == field))


def _is_short(value: str) -> str:
    """Returns the CEL expression that an integer or a text has few characters, so it is cheap to compare.

    The API server computes powers of ten to read a quantity: for 1e480314535, for more than a minute. A rule
    that searches the text would exceed its budget. The operator judges longer quantities.
    """
    return f"string({value}).size() <= 8"


def _at_least(value: str, least: str) -> str:
    """Returns the CEL expression that a short integer or text is a quantity of at least a size."""
    quantity = f"quantity(string({value}))"
    return (
        f"!({_is_short(value)}) || isQuantity(string({value})) && !{quantity}.isLessThan(quantity({least!r}))"
    )


class Retention(StrEnum):
    """What happens to the volume of a member that is no longer needed."""

    RETAIN = "Retain"
    DELETE = "Delete"

    @classmethod
    def _missing_(cls, value: object) -> "Retention":
        """Decodes a value of another release as Retain, which loses nothing."""
        return cls.RETAIN


class UpgradePolicy(StrEnum):
    """How far one change of the version may go."""

    ONE_MINOR = "OneMinor"
    AUTOMATIC = "Automatic"

    @classmethod
    def _missing_(cls, value: object) -> "UpgradePolicy":
        """Decodes a value of another release as OneMinor, which does less."""
        return cls.ONE_MINOR


class CompactionMode(StrEnum):
    """What the retention of compacted revisions is measured in."""

    PERIODIC = "periodic"
    REVISION = "revision"

    @classmethod
    def _missing_(cls, value: object) -> "CompactionMode":
        """Decodes a value of another release as periodic, etcd's default."""
        return cls.PERIODIC


class ServiceType(StrEnum):
    """The type of the client Service."""

    CLUSTER_IP = "ClusterIP"
    NODE_PORT = "NodePort"
    LOAD_BALANCER = "LoadBalancer"

    @classmethod
    def _missing_(cls, value: object) -> "ServiceType":
        """Decodes a value of another release as ClusterIP, which exposes nothing."""
        return cls.CLUSTER_IP


class PodPolicy(msgspec.Struct, frozen=True, gc=False, rename="camel", omit_defaults=True):
    """How the pods of the members are created."""

    labels: Annotated[
        dict[str, str],
        field(
            "Labels for the pods. `app` and keys that begin with `etcd_` or `etcd.pilothouse.dev/` are "
            "reserved. A change does not restart the members.",
            title="Labels",
            descriptors=(_ADVANCED,),
            rules=(
                Rule(
                    "self.all(key, key != 'app' && !key.startsWith('etcd_') "
                    "&& !key.startsWith('etcd.pilothouse.dev/'))",
                    "use other keys: app, etcd_... and etcd.pilothouse.dev/... are reserved for the operator",
                    reason="FieldValueForbidden",
                ),
            ),
        ),
    ] = {}
    annotations: Annotated[
        dict[str, str],
        field(
            "Annotations for the pods. `etcd.version` and keys that begin with `etcd.pilothouse.dev/` are "
            "reserved. A change does not restart the members.",
            title="Annotations",
            descriptors=(_ADVANCED,),
            rules=(
                Rule(
                    "self.all(key, key != 'etcd.version' && !key.startsWith('etcd.pilothouse.dev/'))",
                    "use other keys: etcd.version and etcd.pilothouse.dev/... are reserved for the operator",
                    reason="FieldValueForbidden",
                ),
            ),
        ),
    ] = {}
    node_selector: Annotated[
        dict[str, str],
        field(
            "The labels of the nodes that members may run on.",
            title="Node selector",
            descriptors=(_ADVANCED,),
        ),
    ] = {}
    affinity: Annotated[
        core.Affinity | None,
        field(
            "The affinity of the pods. It replaces the operator's own, which prefers different nodes for the "
            "members.",
            title="Affinity",
            descriptors=(_ADVANCED,),
            nullable=True,
        ),
    ] = None
    anti_affinity: Annotated[
        bool,
        field(
            "Deprecated: use `affinity`. If true and `affinity` is absent, two members never run on the "
            "same node.",
            title="Anti-affinity",
            descriptors=(*_SWITCH, _ADVANCED),
        ),
    ] = False
    topology_spread_constraints: Annotated[
        tuple[core.TopologySpreadConstraint, ...],
        field(
            "How the members are spread. It replaces the operator's own constraint, which prefers different "
            "zones. A constraint without a `labelSelector` selects the members of the cluster.",
            title="Topology spread",
            descriptors=(_ADVANCED,),
        ),
    ] = ()
    resources: Annotated[
        core.ResourceRequirements,
        field(
            "The resources of each member. A change restarts the members one after the other.",
            title="Resources",
            descriptors=("com.tectonic.ui:resourceRequirements",),
            rules=tuple(
                Rule(
                    f"!has(self.requests) || !has(self.limits) || !({name!r} in self.requests) "
                    f"|| !({name!r} in self.limits) || !({_is_short(f'self.requests[{name!r}]')}) "
                    f"|| !({_is_short(f'self.limits[{name!r}]')}) "
                    f"|| !quantity(string(self.requests[{name!r}]))"
                    f".isGreaterThan(quantity(string(self.limits[{name!r}])))",
                    f"lower the request for {name}, or raise its limit: the request is above the limit",
                    field_path=".requests",
                )
                for name in ("cpu", "memory")
            ),
        ),
    ] = {}
    tolerations: Annotated[
        tuple[core.Toleration, ...],
        field("The taints that the pods tolerate.", title="Tolerations", descriptors=(_ADVANCED,)),
    ] = ()
    etcd_env: Annotated[
        tuple[core.EnvVar, ...],
        field(
            "Environment variables for etcd, for example `ETCD_HEARTBEAT_INTERVAL`. Variables that the "
            "operator sets, and variables that endanger data, are refused. A change restarts the members "
            "one after the other.",
            title="Environment variables",
            descriptors=(_ADVANCED,),
            rules=(
                *(
                    Rule(
                        f"self.all(each, {' && '.join(f'!each.name.startsWith({n!r})' for n in names)})",
                        f"remove variables that begin with {' or '.join(names)}: {why}",
                        reason="FieldValueForbidden",
                    )
                    for names, why in variables.GROUPS
                ),
                Rule(
                    "self.all(each, !has(each.valueFrom) || "
                    f"!({_is_one_of('each.name', variables.BY_VALUE)}))",
                    f"set value instead of valueFrom for {' and '.join(variables.BY_VALUE)}: the operator "
                    "passes them on for each version of etcd, so it needs the values",
                ),
                # The cost of a rule that searches each whole value would exceed the budget of the API server.
                Rule(
                    "self.all(each, !has(each.value) || !each.value.startsWith('$(') || "
                    f"!({_is_one_of('each.name', variables.BY_VALUE)}))",
                    f"write the values of {' and '.join(variables.BY_VALUE)} without references such as "
                    "$(NAME): the operator passes them on for each version of etcd, so it needs the values",
                ),
                # A second entry with the same key is an error. A comparison of all pairs would cost too much.
                Rule(
                    "self.transformMapEntry(index, each, {each.name: index}).size() == self.size()",
                    "remove one of two variables with the same name",
                    reason="FieldValueDuplicate",
                ),
            ),
        ),
    ] = ()
    persistent_volume_claim_spec: Annotated[
        core.PersistentVolumeClaimSpec | None,
        field(
            "The volume of each member. If it is absent, each member gets 1 GiB of the default "
            "StorageClass. The requested storage can only grow, and only if the class allows it; the class "
            "cannot be changed.",
            title="Volume",
            descriptors=(_ADVANCED,),
            rules=(
                Rule(
                    "!has(self.dataSource) && !has(self.dataSourceRef) "
                    "&& (!has(self.volumeName) || self.volumeName == '')",
                    "remove dataSource, dataSourceRef and volumeName: each member needs an empty volume of "
                    "its own, which it fills from the other members",
                ),
                Rule(
                    "!has(self.volumeMode) || self.volumeMode == 'Filesystem'",
                    "use Filesystem, or remove it",
                    field_path=".volumeMode",
                ),
                Rule(
                    "!has(self.accessModes) || self.accessModes != ['ReadOnlyMany']",
                    "use ReadWriteOnce, because etcd writes to its volume",
                    field_path=".accessModes",
                ),
                Rule(
                    "!has(self.resources) || !has(self.resources.requests) "
                    "|| !('storage' in self.resources.requests) "
                    f"|| ({_at_least(_REQUESTED, LEAST_STORAGE)})",
                    f"request at least {LEAST_STORAGE} of storage, for example 8Gi",
                    field_path=".resources.requests",
                ),
            ),
            nullable=True,
        ),
    ] = None
    security_context: Annotated[
        core.PodSecurityContext | None,
        field(
            "The security context of the pods. If it is absent, the pods meet the restricted pod security "
            "standard.",
            title="Security context",
            descriptors=(_ADVANCED,),
            nullable=True,
        ),
    ] = None
    priority_class_name: Annotated[
        str,
        field(
            "The priority class of the pods.",
            title="Priority class",
            descriptors=(*_TEXT, _ADVANCED),
        ),
    ] = ""
    service_account_name: Annotated[
        str,
        field(
            "The service account of the pods. etcd does not use the Kubernetes API, so no token is mounted.",
            title="Service account",
            descriptors=("io.kubernetes:ServiceAccount", _ADVANCED),
        ),
    ] = ""
    busybox_image: Annotated[
        str,
        field(
            "Ignored. The coreos operator used this image in an init container.",
            title="Busybox image",
            descriptors=(*_TEXT, _ADVANCED),
        ),
    ] = ""
    dns_timeout_in_second: Annotated[
        int,
        field(
            "Ignored. The coreos operator waited this long for DNS in an init container, in seconds.",
            title="DNS timeout",
            descriptors=("com.tectonic.ui:number", _ADVANCED),
            format="int64",
        ),
    ] = msgspec.field(default=0, name="DNSTimeoutInSecond")
    cluster_domain: Annotated[
        str,
        field(
            "The suffix of the members' names in DNS, with a leading dot, for example `.cluster.local`. If "
            "it is empty, the names end with `.svc`. Set it if the certificates are for the longer names. "
            "It cannot be changed.",
            title="Cluster domain",
            descriptors=(*_TEXT, _ADVANCED),
            rules=(
                Rule(
                    "self == '' || self.matches('^([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)+$')",
                    "use a DNS name that begins with a dot, for example .cluster.local",
                ),
            ),
        ),
    ] = msgspec.field(default="", name="ClusterDomain")


class MemberSecrets(msgspec.Struct, frozen=True, gc=False, rename="camel", omit_defaults=True):
    """The Secrets with the certificates of the members."""

    peer_secret: Annotated[
        str,
        field(
            "The Secret for the connections between members, with the keys `peer.crt`, `peer.key` and "
            "`peer-ca.crt`. If it is empty, these connections are not encrypted.",
            title="Peer Secret",
            descriptors=_SECRET,
        ),
    ] = ""
    server_secret: Annotated[
        str,
        field(
            "The Secret for the connections of clients, with the keys `server.crt`, `server.key` and "
            "`server-ca.crt`. It requires `operatorSecret`. If it is empty, these connections are not "
            "encrypted.",
            title="Server Secret",
            descriptors=_SECRET,
        ),
    ] = ""


class StaticTLS(msgspec.Struct, frozen=True, gc=False, rename="camel", omit_defaults=True):
    """Secrets that you create and renew."""

    member: Annotated[
        MemberSecrets | None,
        field(
            "The Secrets of the members.",
            title="Secrets of the members",
            descriptors=(_ADVANCED,),
            nullable=True,
        ),
    ] = None
    operator_secret: Annotated[
        str,
        field(
            "The Secret with which the operator connects to the members, with the keys `etcd-client.crt`, "
            "`etcd-client.key` and `etcd-client-ca.crt`. It requires `member.serverSecret`.",
            title="Operator Secret",
            descriptors=_SECRET,
        ),
    ] = ""


class TLSPolicy(msgspec.Struct, frozen=True, gc=False, rename="camel", omit_defaults=True):
    """The encryption of connections."""

    static: Annotated[
        StaticTLS | None,
        field(
            "The Secrets with certificates. Renewed certificates need no restart.",
            title="Secrets",
            descriptors=(_ADVANCED,),
            nullable=True,
            rules=(
                Rule(
                    "(has(self.operatorSecret) && self.operatorSecret != '') == (has(self.member) "
                    "&& has(self.member.serverSecret) && self.member.serverSecret != '')",
                    "set both operatorSecret and member.serverSecret, or neither",
                ),
            ),
        ),
    ] = None


class Storage(msgspec.Struct, frozen=True, gc=False, rename="camel", omit_defaults=True):
    """What happens to the volumes."""

    when_deleted: Annotated[
        Retention,
        field(
            "What happens to the volumes of the members when the EtcdCluster is deleted: `Retain` (default; "
            "a new EtcdCluster of the same name resumes them) or `Delete`.",
            title="When deleted",
            descriptors=("com.tectonic.ui:select:Retain", "com.tectonic.ui:select:Delete"),
        ),
    ] = Retention.RETAIN
    when_scaled: Annotated[
        Retention,
        field(
            "What happens to the volume of a member that is removed: `Retain` (default) or `Delete`. It is "
            "deleted only after etcd has confirmed that the member is removed.",
            title="When scaled",
            descriptors=("com.tectonic.ui:select:Retain", "com.tectonic.ui:select:Delete"),
        ),
    ] = Retention.RETAIN
    ephemeral: Annotated[
        bool,
        field(
            "If true, each member stores its data in its pod (emptyDir) and loses it with the pod. The whole "
            "cluster is lost with a majority of its pods. It cannot be changed.",
            title="Ephemeral",
            descriptors=_SWITCH,
        ),
    ] = False


class AutoCompaction(msgspec.Struct, frozen=True, gc=False, rename="camel", omit_defaults=True):
    """When etcd removes old revisions of keys."""

    mode: Annotated[
        CompactionMode,
        field(
            "`periodic` (default): the retention is a time. `revision`: it is a number of revisions.",
            title="Mode",
            descriptors=("com.tectonic.ui:select:periodic", "com.tectonic.ui:select:revision"),
        ),
    ] = CompactionMode.PERIODIC
    retention: Annotated[
        str,
        field(
            "How many old revisions are kept: a time such as `30m` or `8h`, or a number such as `1000`. "
            "Empty or `0`: all.",
            title="Retention",
            descriptors=_TEXT,
            maxLength=20,
            rules=(
                Rule(
                    "self == '' || self.matches('^([0-9]+|([0-9]+(h|m|s))+)$')",
                    "use a time such as 30m or 8h, or a number of revisions such as 1000",
                ),
            ),
        ),
    ] = ""


class ClientService(msgspec.Struct, frozen=True, gc=False, rename="camel", omit_defaults=True):
    """The Service through which clients connect."""

    type: Annotated[
        ServiceType,
        field(
            "The type of the Service: `ClusterIP` (default), `NodePort` or `LoadBalancer`.",
            title="Type",
            descriptors=tuple(f"com.tectonic.ui:select:{each}" for each in ServiceType),
        ),
    ] = ServiceType.CLUSTER_IP
    annotations: Annotated[
        dict[str, str],
        field("Annotations for the Service.", title="Annotations", descriptors=(_ADVANCED,)),
    ] = {}


class EtcdClusterSpec(msgspec.Struct, frozen=True, gc=False, rename="camel", omit_defaults=True):
    """The desired cluster. A field has its default if the object does not have it."""

    size: Annotated[
        int,
        field(
            "The number of members, 1 to 7. Use an odd number: an even one tolerates no more failures than "
            "the next lower odd one.",
            title="Size",
            descriptors=("com.tectonic.ui:podCount",),
            rules=(
                Rule(
                    f"self >= 1 && self <= {MAX_SIZE}",
                    "use 1 to 7 members, for example size: 3. To stop a cluster, delete it: its volumes are "
                    "kept",
                ),
            ),
        ),
    ] = 0
    version: Annotated[
        str,
        field(
            "The version of etcd, for example `3.6.14`. Default: the newest version that the operator knows "
            "at the creation of the cluster. To upgrade the cluster, change it.",
            title="Version",
            descriptors=_TEXT,
            rules=(
                Rule(
                    "self == '' || self.matches('^v*[0-9]+[.][0-9]+[.][0-9]+(-[0-9A-Za-z._-]{1,64})?$')",
                    "use a version of three numbers, for example 3.6.14",
                ),
            ),
        ),
    ] = ""
    repository: Annotated[
        str,
        field(
            f"The image of etcd without a tag. Default: `{DEFAULT_REPOSITORY}`. The tag is `v` and the "
            "version.",
            title="Image",
            descriptors=_TEXT,
            rules=(
                Rule(
                    "!self.contains('@') && !self.contains(' ') && !self.matches(':[^/]*$')",
                    "use the name of the image without a tag or digest: the tag is v and the version",
                ),
            ),
        ),
    ] = ""
    paused: Annotated[
        bool,
        field(
            "If true, the operator does not touch the cluster. etcd continues to run.",
            title="Paused",
            descriptors=_SWITCH,
        ),
    ] = False
    pod: Annotated[
        PodPolicy | None,
        field(
            "How the pods of the members are created.", title="Pods", descriptors=(_ADVANCED,), nullable=True
        ),
    ] = None
    tls: Annotated[
        TLSPolicy | None,
        field(
            "The encryption of connections. It cannot be turned on or off later.",
            title="TLS",
            descriptors=(_ADVANCED,),
            nullable=True,
        ),
    ] = msgspec.field(default=None, name="TLS")
    storage: Annotated[
        Storage, field("What happens to the volumes.", title="Storage", descriptors=(_ADVANCED,))
    ] = Storage()
    upgrade_policy: Annotated[
        UpgradePolicy,
        field(
            "How far one change of `version` may go. `OneMinor` (default): a version that skips a minor "
            "release is refused, and the message names the next one. `Automatic`: the operator upgrades "
            "through all minor releases between.",
            title="Upgrade policy",
            descriptors=("com.tectonic.ui:select:OneMinor", "com.tectonic.ui:select:Automatic"),
        ),
    ] = UpgradePolicy.ONE_MINOR
    quota_backend_bytes: Annotated[
        QuantityText,
        field(
            "The largest size of the database, for example `8Gi`. When it is reached, etcd refuses writes. "
            "Default: `0`, etcd's own default of 2 GiB. A change restarts the members one after the other.",
            title="Quota",
            descriptors=_TEXT,
            rules=(
                Rule(
                    f"string(self) == '0' || ({_at_least('self', LEAST_QUOTA)})",
                    f"use at least {LEAST_QUOTA}, for example 8Gi, or 0 for etcd's default",
                ),
            ),
        ),
    ] = 0
    auto_compaction: Annotated[
        AutoCompaction,
        field(
            "When etcd removes old revisions of keys. Default: never, as in etcd. A change restarts the "
            "members one after the other.",
            title="Auto compaction",
            rules=(
                Rule(
                    "!has(self.mode) || self.mode != 'revision' || !has(self.retention) "
                    "|| self.retention.matches('^[0-9]*$')",
                    "use a number of revisions, for example 1000, or the mode periodic",
                    field_path=".retention",
                ),
            ),
            descriptors=(_ADVANCED,),
        ),
    ] = AutoCompaction()
    pod_disruption_budget: Annotated[
        bool,
        field(
            "Whether a PodDisruptionBudget keeps a quorum of members during node drains, from three members "
            "up. Default: true.",
            title="Pod disruption budget",
            descriptors=_SWITCH,
        ),
    ] = True
    client_service: Annotated[
        ClientService,
        field("The Service through which clients connect.", title="Client Service", descriptors=(_ADVANCED,)),
    ] = ClientService()

    @property
    def storage_bytes(self) -> int:
        """The requested storage of each volume, in bytes.

        Raises:
            ValueError: It is not a quantity.
        """
        claim = (self.pod.persistent_volume_claim_spec if self.pod else None) or {}
        requests = (claim.get("resources") or {}).get("requests") or {}
        asked = requests.get("storage")
        return int(Quantity.parse(DEFAULT_STORAGE if asked is None else asked))

    @property
    def peer_tls(self) -> str:
        """The Secret of the connections between members. Empty: they are not encrypted."""
        static = self.tls.static if self.tls else None
        return static.member.peer_secret if static and static.member else ""

    @property
    def client_tls(self) -> str:
        """The operator's Secret for the connections of clients. Empty: they are not encrypted."""
        static = self.tls.static if self.tls else None
        return static.operator_secret if static else ""


class MembersStatus(msgspec.Struct, frozen=True, gc=False, rename="camel", omit_defaults=True):
    """The names of the members, which are those of their pods."""

    ready: Annotated[
        tuple[str, ...],
        field(
            "The members that are ready.", title="Ready members", descriptors=("com.tectonic.ui:podStatuses",)
        ),
    ] = ()
    unready: Annotated[
        tuple[str, ...],
        field(
            "The members that are not ready.",
            title="Unready members",
            descriptors=("com.tectonic.ui:podStatuses",),
        ),
    ] = ()


class RecordedVoter(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A voter of the cluster, as the operator last saw it."""

    name: Annotated[str, field("The name of the member, its pod and its PersistentVolumeClaim.")]
    member_id: Annotated[str, field("The member's ID in hexadecimal. Empty during the founding.")] = (
        msgspec.field(default="", name="memberID")
    )
    volume_uid: Annotated[str, field("The UID of its PersistentVolumeClaim.")] = msgspec.field(
        default="", name="volumeUID"
    )


class RecordedFounding(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A founding that is not complete."""

    phase: Annotated[
        str,
        field(
            "`Preparing`: the volumes are created. `Starting`: the members start. `Abandoning`: the "
            "founding is given up, and its pods are deleted.",
            title="Phase of the founding",
            descriptors=_SHOWN,
        ),
    ] = ""
    version: Annotated[
        str, field("The version of etcd that is founded.", title="Founded version", descriptors=_SHOWN)
    ] = ""
    shape: Annotated[str, field("The shape of the pods.", title="Founded shape", descriptors=_SHOWN)] = ""
    storage: Annotated[str, field("The kind of volumes.", title="Founded storage", descriptors=_SHOWN)] = ""
    scheme: Annotated[
        str,
        field(
            "The schemes of the connections between members and of clients.",
            title="Founded scheme",
            descriptors=_SHOWN,
        ),
    ] = ""
    since: Annotated[
        datetime | None, field("When the founding began.", title="Founding since", descriptors=_SHOWN)
    ] = None
    ran: Annotated[
        bool,
        field(
            "Whether etcd may have run in one of its pods, so that a client may have written.",
            title="Founding ran",
            descriptors=_SHOWN,
        ),
    ] = False


class RecordedStep(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A change that is in progress. The operator records it before it makes it."""

    action: Annotated[
        str,
        field(
            "`Add`, `Remove` or `Restart` a member.",
            title="Step",
            descriptors=_SHOWN,
        ),
    ] = ""
    name: Annotated[str, field("The name of the member.", title="Member of the step", descriptors=_SHOWN)] = (
        ""
    )
    member_id: Annotated[
        str,
        field("The ID of the member in hexadecimal.", title="Member ID of the step", descriptors=_SHOWN),
    ] = msgspec.field(default="", name="memberID")
    version: Annotated[
        str,
        field("The version that the member restarts with.", title="Version of the step", descriptors=_SHOWN),
    ] = ""
    prepared: Annotated[
        str,
        field(
            "The name of another member whose addition continues after the step.",
            title="Prepared member",
            descriptors=_SHOWN,
        ),
    ] = ""
    interrupts: Annotated[
        bool,
        field(
            "Whether clients can notice the change, because the cluster has one or two voters.",
            title="Interruption",
            descriptors=_SHOWN,
        ),
    ] = False
    since: Annotated[
        datetime | None, field("When the step was recorded.", title="Step since", descriptors=_SHOWN)
    ] = None


class RecordStatus(msgspec.Struct, frozen=True, gc=False, rename="camel", omit_defaults=True):
    """What the operator must know after a restart. Do not edit it: the data of the cluster depends on it."""

    incarnation: Annotated[
        int,
        field(
            "The number of the founding, which is part of the cluster's token. 0: nothing was founded.",
            title="Incarnation",
            descriptors=_SHOWN,
        ),
    ] = 0
    next_member: Annotated[
        int,
        field(
            "The counter of member names, which are never used twice.",
            title="Next member",
            descriptors=_SHOWN,
        ),
    ] = 0
    version: Annotated[
        str,
        field(
            "The version that was chosen because the spec has none. Empty: none was.",
            title="Chosen version",
            descriptors=_SHOWN,
        ),
    ] = ""
    cluster_id: Annotated[
        str,
        field(
            "The ID of the cluster in hexadecimal. Empty until the founding is complete.",
            title="Cluster ID",
            descriptors=_SHOWN,
        ),
    ] = msgspec.field(default="", name="clusterID")
    founded: Annotated[
        bool, field("Whether the founding is complete.", title="Founded", descriptors=_SHOWN)
    ] = False
    founding: Annotated[
        RecordedFounding | None,
        field("The founding that is not complete.", title="Founding", descriptors=_SHOWN),
    ] = None
    voters: Annotated[
        tuple[RecordedVoter, ...],
        field(
            "The members of the founding, or afterwards the last known voters.",
            title="Voters",
            descriptors=_SHOWN,
            list_type="atomic",
        ),
    ] = ()
    step: Annotated[
        RecordedStep | None,
        field("The change that is in progress.", title="Step in progress", descriptors=_SHOWN),
    ] = None


class EtcdClusterStatus(Status, frozen=True):
    """The state of the cluster, as the operator last saw it."""

    phase: Annotated[
        str,
        field(
            "`Creating`, `Running` or `Failed`. The conditions show more.",
            title="Phase",
            descriptors=("io.kubernetes.phase",),
        ),
    ] = ""
    reason: Annotated[
        str,
        field("Why the phase is `Failed`.", title="Reason", descriptors=("io.kubernetes.phase:reason",)),
    ] = ""
    control_paused: Annotated[
        bool,
        field(
            "Whether the operator does not touch the cluster, because `spec.paused` is true.",
            title="Paused",
            descriptors=_SHOWN,
        ),
    ] = False
    size: Annotated[
        int, field("The number of members that vote.", title="Current size", descriptors=_SHOWN)
    ] = 0
    selector: Annotated[
        str,
        field("The label selector of the pods, for autoscalers.", title="Selector", descriptors=_SHOWN),
    ] = ""
    service_name: Annotated[
        str, field("The Service through which clients connect.", title="Client Service", descriptors=_SHOWN)
    ] = ""
    client_port: Annotated[
        int, field("The port of that Service.", title="Client port", descriptors=_SHOWN)
    ] = 0
    members: Annotated[
        MembersStatus, field("The members by readiness.", title="Members", descriptors=_SHOWN)
    ] = MembersStatus()
    leader: Annotated[str, field("The name of the leader.", title="Leader", descriptors=_SHOWN)] = ""
    current_version: Annotated[
        str,
        field(
            "The version that all members run, or ran before the upgrade in progress.",
            title="Current version",
            descriptors=_SHOWN,
        ),
    ] = ""
    target_version: Annotated[
        str,
        field(
            "The version of the upgrade in progress. Empty: there is none.",
            title="Target version",
            descriptors=_SHOWN,
        ),
    ] = ""
    db_size: Annotated[
        str,
        field(
            "The size of the largest database of a member, rounded, for example `24Mi`.",
            title="Database size",
            descriptors=_SHOWN,
        ),
    ] = ""
    retained_volumes: Annotated[
        tuple[str, ...],
        field(
            "The PersistentVolumeClaims of removed members, and of foundings that were given up. The "
            "operator never uses them again. Delete them when you no longer need their data.",
            title="Retained volumes",
            descriptors=_SHOWN,
            list_type="atomic",
        ),
    ] = ()
    alarms: Annotated[
        tuple[str, ...],
        field(
            "The reasons of the problems that need you. An Event shows when one begins, and when it ends. "
            "While no quorum answers, a problem that only the members can show does not end.",
            title="Alarms",
            descriptors=_SHOWN,
            list_type="atomic",
        ),
    ] = ()
    last_valid_spec: Annotated[
        dict[str, Any],
        field(
            "The last valid spec. While the spec is invalid, it stays in force.",
            title="Last valid spec",
            descriptors=_SHOWN,
        ),
    ] = msgspec.field(default_factory=dict)
    record: Annotated[
        RecordStatus,
        field(
            "What the operator must know after a restart. Do not edit it: the data of the cluster depends "
            "on it.",
            title="Record",
            descriptors=_SHOWN,
        ),
    ] = RecordStatus()
    conditions: Annotated[
        tuple[LenientCondition, ...],
        field(
            "`Ready`: the cluster matches its spec. `Available`: a quorum of members serves clients. "
            "`Progressing`: what the operator is doing. `Degraded`: what is wrong. `Scaling`, `Upgrading` "
            "and `Recovering` are those of the coreos operator. `Warning`: what is accepted but not "
            "advisable. `Interruption`: which member is about to be interrupted.",
            title="Conditions",
            descriptors=("io.kubernetes.conditions",),
            map_keys=("type",),
        ),
    ] = ()


class EtcdCluster(msgspec.Struct, frozen=True, gc=False):
    """The view of an EtcdCluster that the operator reads."""

    metadata: ObjectMeta = msgspec.field(default_factory=ObjectMeta)
    spec: Annotated[
        EtcdClusterSpec,
        field(
            "The desired cluster.",
            rules=(
                Rule(
                    "has(self.size)",
                    "set the number of members, 1 to 7, for example size: 3",
                    field_path=".size",
                    reason="FieldValueRequired",
                ),
                Rule(
                    "!has(self.storage) || !has(self.storage.ephemeral) || !self.storage.ephemeral "
                    "|| !has(self.pod) || !has(self.pod.persistentVolumeClaimSpec)",
                    "set storage.ephemeral or pod.persistentVolumeClaimSpec, not both: an ephemeral member "
                    "has no volume",
                    field_path=".storage.ephemeral",
                ),
                Rule(
                    "!has(self.quotaBackendBytes) || string(self.quotaBackendBytes) == '0' || !has(self.pod) "
                    "|| !has(self.pod.etcdEnv) "
                    f"|| !self.pod.etcdEnv.exists(each, {_sets('spec.quotaBackendBytes')})",
                    "set quotaBackendBytes, or its variable in pod.etcdEnv, not both",
                    field_path=".quotaBackendBytes",
                ),
                Rule(
                    "!has(self.autoCompaction) || !has(self.autoCompaction.retention) "
                    "|| self.autoCompaction.retention == '' || !has(self.pod) || !has(self.pod.etcdEnv) "
                    f"|| !self.pod.etcdEnv.exists(each, {_sets('spec.autoCompaction')})",
                    "set autoCompaction, or its variables in pod.etcdEnv, not both",
                    field_path=".autoCompaction",
                ),
            ),
        ),
    ] = msgspec.field(default_factory=EtcdClusterSpec)
    status: Annotated[EtcdClusterStatus, field("The state of the cluster, written by the operator.")] = (
        msgspec.field(default_factory=EtcdClusterStatus)
    )


ETCD_CLUSTER: Kind[EtcdCluster] = Kind(
    EtcdCluster,
    group=GROUP,
    version="v1beta2",
    title="etcd cluster",
    description="An EtcdCluster is a cluster of etcd. The operator creates its members, replaces failed "
    "ones, and changes their number and version without losing a write.",
    short_names=("etcd", "etcdclus"),
    columns=(
        Column("Size", ".spec.size", type="integer", description="The desired number of members"),
        Column(
            "Ready",
            '.status.conditions[?(@.type=="Ready")].status',
            description="Whether the cluster matches its spec",
        ),
        Column("Version", ".status.currentVersion", description="The version of etcd"),
        Column("Phase", ".status.phase", description="The state of the cluster"),
        Column("Leader", ".status.leader", description="The name of the leader"),
        Column("DB size", ".status.dbSize", description="The size of the database", priority=1),
        Column(
            "Message",
            '.status.conditions[?(@.type=="Ready")].message',
            description="Why the cluster is or is not ready",
            priority=1,
        ),
        Column("Age", ".metadata.creationTimestamp", type="date", description="The age of the cluster"),
    ),
    rules=(
        # The API server checks a rule on the root at every write. Clusters that were stored without a spec or
        # with another name must stay writable.
        Rule(
            "has(self.spec) || (oldSelf.hasValue() && !has(oldSelf.value().spec))",
            "set the desired cluster, for example spec: {size: 3}",
            field_path=".spec",
            reason="FieldValueRequired",
            optional_old_self=True,
        ),
        Rule(
            f"oldSelf.hasValue() || self.metadata.name.matches('{NAME_PATTERN}')",
            f"use a name of at most {MAX_NAME} lower-case letters, digits and hyphens that begins with a "
            "letter: it becomes the name of a Service, and a part of the names of the pods",
            optional_old_self=True,
        ),
    ),
    scale=Scale(".spec.size", ".status.size", ".status.selector"),
    manages=(
        ManagedResource("Pod", "v1"),
        ManagedResource("PersistentVolumeClaim", "v1"),
        ManagedResource("Service", "v1"),
        ManagedResource("PodDisruptionBudget", "v1"),
        # Kubernetes creates them for the Services. If they are not listed, operator-sdk mistakes the
        # permission to read them for one on an API version that Kubernetes removed in v1.25.
        ManagedResource("EndpointSlice", "v1"),
        ManagedResource("Event", "v1"),
    ),
    reasons=REASONS,
)
