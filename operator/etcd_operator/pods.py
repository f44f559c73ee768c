"""The manifest of a member's pod."""

from collections.abc import Iterable, Iterator
from typing import Any

from etcd_operator.blueprint import (
    METRICS_PORT,
    NODE_LABEL,
    PEER_PORT,
    SERVING,
    Blueprint,
    InitialCluster,
)
from etcd_operator.etcd import CLIENT_PORT
from etcd_operator.model import Configuration, PodPlan
from etcd_operator.options import from_annotation, option_variables, variable
from etcd_operator.pod_metadata import (
    CONTAINER,
    INITIAL_CLUSTER,
    INITIAL_STATE,
    POISON,
    SHAPE,
    configured,
    user_annotations,
    user_labels,
    version_annotations,
)
from etcd_operator.shape import quota, shape
from etcd_operator.types import EtcdClusterSpec, PodPolicy
from etcd_operator.versions import Version
from etcd_operator.volumes import volume_annotations

# The names do not begin with ETCD_. etcd would ignore an empty ETCD_INITIAL_CLUSTER_STATE, which means `new`.
_VARIABLES = {"PILOTHOUSE_INITIAL_CLUSTER": INITIAL_CLUSTER, "PILOTHOUSE_INITIAL_STATE": INITIAL_STATE}

_MOUNT = "/var/etcd"
_PEER_TLS = "/etc/etcdtls/member/peer-tls"
_SERVER_TLS = "/etc/etcdtls/member/server-tls"
_OPERATOR_TLS = "/etc/etcdtls/operator/etcd-tls"

# Any user without rights. The images of etcd would run as root.
_USER = 65532

# A restarting leader hands over to a follower, for at most 7 s (etcd: ReqTimeout of server/config).
_GRACE = 30


def member_pod(
    blueprint: Blueprint,
    plan: PodPlan,
    *,
    image: str,
    initial_cluster: InitialCluster = (),
) -> dict[str, Any]:
    """Returns the manifest of a member's pod, which the EtcdCluster owns.

    Args:
        blueprint: The cluster.
        plan: The pod to create.
        image: The image of the plan's version.
        initial_cluster: For JOINING, `Blueprint.joining`. For FOUNDING it follows from the plan.
    """
    founding = plan.configuration is Configuration.FOUNDING
    members = blueprint.founding(plan.peers) if founding else initial_cluster
    pod, spec = blueprint.pod, blueprint.spec
    annotations = {
        **user_annotations(pod),
        **version_annotations(spec, plan.version, image),
        **configured(plan.configuration, members),
        SHAPE: shape(spec),
    }
    if spec.storage.ephemeral:
        annotations |= volume_annotations(blueprint)
    labels = {**user_labels(pod), **blueprint.selector, NODE_LABEL: plan.name}
    if plan.serving:
        labels[SERVING] = "true"
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": plan.name,
            "namespace": blueprint.namespace,
            "labels": labels,
            "annotations": annotations,
        },
        "spec": _pod_spec(blueprint, plan, image),
    }


def _pod_spec(blueprint: Blueprint, plan: PodPlan, image: str) -> dict[str, Any]:
    pod = blueprint.pod
    optional = {
        "nodeSelector": pod.node_selector,
        "tolerations": list(pod.tolerations),
        "priorityClassName": pod.priority_class_name,
        "serviceAccountName": pod.service_account_name,
    }
    return {
        "hostname": plan.name,
        "subdomain": blueprint.name,
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": _GRACE,
        "enableServiceLinks": False,
        "automountServiceAccountToken": False,
        "securityContext": _security(pod),
        "affinity": _affinity(blueprint),
        "topologySpreadConstraints": _spread(blueprint),
        **{key: value for key, value in optional.items() if value},
        "containers": [_container(blueprint, plan, image)],
        "volumes": _volumes(blueprint, plan.name),
    }


def _security(pod: PodPolicy) -> dict[str, Any]:
    if pod.security_context is not None:
        return pod.security_context
    return {
        "runAsNonRoot": True,
        "runAsUser": _USER,
        "runAsGroup": _USER,
        "fsGroup": _USER,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def _affinity(blueprint: Blueprint) -> dict[str, Any]:
    if blueprint.pod.affinity is not None:
        return blueprint.pod.affinity
    term = {
        "labelSelector": {"matchLabels": blueprint.selector},
        "topologyKey": "kubernetes.io/hostname",
    }
    if blueprint.pod.anti_affinity:
        return {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    preferred = {"weight": 100, "podAffinityTerm": term}
    return {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [preferred]}}


def _spread(blueprint: Blueprint) -> list[dict[str, Any]]:
    zones = {
        "maxSkew": 1,
        "topologyKey": "topology.kubernetes.io/zone",
        "whenUnsatisfiable": "ScheduleAnyway",
    }
    members = {"labelSelector": {"matchLabels": blueprint.selector}}
    constraints = blueprint.pod.topology_spread_constraints or (zones,)
    return [{**members, **each} for each in constraints]


def _container(blueprint: Blueprint, plan: PodPlan, image: str) -> dict[str, Any]:
    resources = blueprint.pod.resources
    return {
        "name": CONTAINER,
        "image": image,
        "command": ["/usr/local/bin/etcd"],
        "args": arguments(blueprint, plan),
        "env": _environment(blueprint.spec, arguments(blueprint, plan)),
        "ports": [
            {"name": "server", "containerPort": PEER_PORT, "protocol": "TCP"},
            {"name": "client", "containerPort": CLIENT_PORT, "protocol": "TCP"},
            {"name": "metrics", "containerPort": METRICS_PORT, "protocol": "TCP"},
        ],
        "volumeMounts": _mounts(blueprint),
        **({"resources": resources} if resources else {}),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        # The operator recognizes the message of an empty volume.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        **_probes(plan.version),
    }


# Probes cannot be changed in a running pod, so they suit all versions that it may go through. 3.5.0 has no
# /livez, and its /health is always linearizable. So liveness and startup only connect to the port for
# metrics, which etcd opens once it has replayed its log: they never depend on a quorum or an alarm.
_METRICS_OPEN = {"tcpSocket": {"port": METRICS_PORT}}
_HEALTHY = {"httpGet": {"path": "/health?exclude=NOSPACE", "port": METRICS_PORT, "scheme": "HTTP"}}

# Before this version, /health excludes the NOSPACE alarm of only one member (etcd-io/etcd#13476). That of
# 3.5.0 also fails if auth is enabled. No member would be ready, so their readiness cannot depend on it.
_RELIABLE_HEALTH = Version.parse("3.5.3").release


def _probes(version: str) -> dict[str, dict[str, Any]]:
    healthy = _HEALTHY if Version.parse(version).release >= _RELIABLE_HEALTH else _METRICS_OPEN
    return {
        # An hour to replay a long log.
        "startupProbe": {**_METRICS_OPEN, "periodSeconds": 1, "timeoutSeconds": 1, "failureThreshold": 3600},
        "livenessProbe": {**_METRICS_OPEN, "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 6},
        # Every second, because a member without a leader at its first probe becomes ready with a later one.
        # Ten failures, because an election lasts some seconds.
        "readinessProbe": {**healthy, "periodSeconds": 1, "timeoutSeconds": 5, "failureThreshold": 10},
    }


def arguments(blueprint: Blueprint, plan: PodPlan) -> list[str]:
    """Returns the arguments of etcd.

    A POISONED pod has the poison in its arguments. The others take the state and the initial cluster from
    their annotations. If an annotation is missing, etcd refuses to start, because its argument is empty.
    """
    if plan.configuration is Configuration.POISONED:
        cluster, state = POISON, "existing"
    else:
        cluster, state = (f"$({name})" for name in _VARIABLES)
    peer, client = blueprint.peer_scheme, blueprint.client_scheme
    flags = {
        "name": plan.name,
        "data-dir": f"{_MOUNT}/data",
        "listen-peer-urls": f"{peer}://0.0.0.0:{PEER_PORT}",
        "listen-client-urls": f"{client}://0.0.0.0:{CLIENT_PORT}",
        "listen-metrics-urls": f"http://0.0.0.0:{METRICS_PORT}",
        "initial-advertise-peer-urls": blueprint.peer_url(plan.name),
        "advertise-client-urls": blueprint.client_url(plan.name),
        "initial-cluster-token": blueprint.token,
        "initial-cluster": cluster,
        "initial-cluster-state": state,
        **(_tls_flags("peer-", _PEER_TLS, "peer") if blueprint.peer_secret else {}),
        **(_tls_flags("", _SERVER_TLS, "server") if blueprint.server_secret else {}),
    }
    return [f"--{flag}={value}" for flag, value in flags.items()]


def _tls_flags(prefix: str, folder: str, file: str) -> dict[str, str]:
    return {
        f"{prefix}client-cert-auth": "true",
        f"{prefix}trusted-ca-file": f"{folder}/{file}-ca.crt",
        f"{prefix}cert-file": f"{folder}/{file}.crt",
        f"{prefix}key-file": f"{folder}/{file}.key",
    }


def _environment(spec: EtcdClusterSpec, flags: Iterable[str]) -> list[dict[str, Any]]:
    """Returns the variables of the container.

    A variable of `etcdEnv` overrides one of the operator with the same name, except for those that the
    arguments contain. `validation` refuses a variable that repeats a flag, which is fatal to etcd.
    """
    options = option_variables()
    forbidden = {*_VARIABLES, *options, *(variable(flag[2:].partition("=")[0]) for flag in flags)}
    env = spec.pod.etcd_env if spec.pod else ()
    users = {each["name"]: each for each in env if each["name"] not in forbidden}
    return [
        *(from_annotation(name, annotation) for name, annotation in _VARIABLES.items()),
        *options.values(),
        *(each for each in _settings(spec) if each["name"] not in users),
        *users.values(),
    ]


def _settings(spec: EtcdClusterSpec) -> Iterator[dict[str, str]]:
    """Yields the variables of options with the same name in all versions."""
    if size := quota(spec):
        yield {"name": "ETCD_QUOTA_BACKEND_BYTES", "value": str(size)}
    if spec.auto_compaction.retention not in ("", "0"):
        yield {"name": "ETCD_AUTO_COMPACTION_MODE", "value": str(spec.auto_compaction.mode)}
        yield {"name": "ETCD_AUTO_COMPACTION_RETENTION", "value": spec.auto_compaction.retention}


def _secrets(blueprint: Blueprint) -> Iterator[tuple[str, str, str]]:
    """Yields the name of the volume, the Secret and the path of each mounted Secret."""
    secrets = (
        ("member-peer-tls", blueprint.peer_secret, _PEER_TLS),
        ("member-server-tls", blueprint.server_secret, _SERVER_TLS),
        ("etcd-client-tls", blueprint.tls.operator_secret, _OPERATOR_TLS),
    )
    return (each for each in secrets if each[1])


def _mounts(blueprint: Blueprint) -> list[dict[str, Any]]:
    secrets = ({"name": name, "mountPath": path, "readOnly": True} for name, _, path in _secrets(blueprint))
    return [{"name": "etcd-data", "mountPath": _MOUNT}, *secrets]


def _volumes(blueprint: Blueprint, name: str) -> list[dict[str, Any]]:
    data: dict[str, Any] = {"persistentVolumeClaim": {"claimName": name}}
    if blueprint.spec.storage.ephemeral:
        data = {"emptyDir": {}}
    secrets = (
        {"name": volume, "secret": {"secretName": secret}} for volume, secret, _ in _secrets(blueprint)
    )
    return [{"name": "etcd-data", **data}, *secrets]
