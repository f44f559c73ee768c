"""The environment variables of the members that users may not set in `spec.pod.etcdEnv`.

A variable of etcd that one of the operator's flags shadows is fatal to etcd ("conflicting environment
variable is shadowed by corresponding command-line flag"), and ETCD_CONFIG_FILE disables all flags.
"""

from collections.abc import Sequence

Group = tuple[Sequence[str], str]
"""The first parts of variables' names, and why they may not be set."""

# The API server limits the cost of a rule, so each group has at most five names.
GROUPS: Sequence[Group] = (
    (
        ("ETCD_INITIAL_", "ETCD_FORCE_NEW_CLUSTER", "ETCD_CONFIG_FILE", "ETCD_DISCOVERY"),
        "they could found a second cluster or lose data",
    ),
    (
        ("ETCD_UNSAFE_NO_FSYNC", "ETCD_STRICT_RECONFIG_CHECK", "ETCD_NEXT_CLUSTER_VERSION_COMPATIBLE"),
        "they could lose data",
    ),
    (
        ("ETCD_NAME", "ETCD_DATA_DIR", "ETCD_WAL_DIR", "ETCD_LISTEN_", "ETCD_ADVERTISE_"),
        "the operator sets them",
    ),
    (
        (
            "ETCD_CERT_FILE",
            "ETCD_KEY_FILE",
            "ETCD_TRUSTED_CA_FILE",
            "ETCD_CLIENT_CERT_",
            "ETCD_CLIENT_KEY_FILE",
        ),
        "use spec.TLS",
    ),
    (
        ("ETCD_PEER_CERT_", "ETCD_PEER_KEY_FILE", "ETCD_PEER_TRUSTED_CA_FILE", "ETCD_PEER_CLIENT_CERT_"),
        "use spec.TLS",
    ),
    (
        ("ETCD_AUTO_TLS", "ETCD_PEER_AUTO_TLS", "ETCD_SELF_SIGNED_CERT_VALIDITY"),
        "use spec.TLS",
    ),
    (
        ("ETCD_LOG_OUTPUTS", "ETCD_VERSION", "ETCD_PROXY", "PILOTHOUSE_"),
        "the operator needs the log of etcd in the container, and etcd as a server",
    ),
    (
        (
            "ETCD_EXPERIMENTAL_INITIAL_CORRUPT_CHECK",
            "ETCD_EXPERIMENTAL_COMPACT_HASH_CHECK_ENABLED",
            "ETCD_EXPERIMENTAL_ENABLE_V2V3",
        ),
        "etcd 3.6 has other names for them, and refuses to start with both",
    ),
)

BY_VALUE = ("ETCD_FEATURE_GATES", "ETCD_SNAPSHOT_COUNT")
"""The variables that the operator passes on in annotations, where Kubernetes expands nothing. So it needs
their values."""


def why_reserved(name: str) -> str:
    """Returns why users may not set a variable. Empty: they may."""
    return next((why for prefixes, why in GROUPS if name.startswith(tuple(prefixes))), "")
