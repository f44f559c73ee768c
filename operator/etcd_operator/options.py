"""The options of etcd that depend on its version, as variables with values from annotations of the pod.

Only the image and the metadata of a running pod can be changed. So each such variable is declared in every
pod, with its value from an annotation. The patch of the image also patches the annotations, and the kubelet
reads them again when it restarts the container. Etcd ignores an empty variable, and one that it does not
know.
"""

from collections.abc import Mapping
from typing import Any

from etcd_operator.types import PREFIX, EtcdClusterSpec
from etcd_operator.versions import Minor, Version

# A member compares its data with its peers before it serves, and the leader compares the hashes of
# compactions. kubeadm sets the first one, too.
_UP_TO_3_5 = {"experimental-initial-corrupt-check": "true", "experimental-compact-hash-check-enabled": "true"}
_FROM_3_6 = {"feature-gates": "InitialCorruptCheck=true,CompactHashCheck=true"}

SNAPSHOT_COUNT = 100
"""After how many entries of the log a member of 3.6 takes a snapshot; see `old_logs`.

`etcdctl check perf` measures no difference to the default, 10,000, but a slowdown with 1.
"""

_GATES_FLAG = "feature-gates"
_SNAPSHOT_FLAG = "snapshot-count"
_FLAGS = (*_UP_TO_3_5, *_FROM_3_6, _SNAPSHOT_FLAG)


def variable(flag: str) -> str:
    """Returns the environment variable of a flag of etcd."""
    return f"ETCD_{flag.upper().replace('-', '_')}"


def option_annotations(spec: EtcdClusterSpec, version: str) -> dict[str, str]:
    """Returns the annotations with the options of a version. The options of other versions are empty.

    A value in `etcdEnv` overrides that of the operator, except where the upgrade depends on it. Feature gates
    are merged one by one, so that a user who sets one does not disable the checks of the operator.

    Args:
        spec: The valid spec.
        version: The version to run.

    Raises:
        ValueError: The text is not a version.
    """
    defaults, users = _options(version), _from_user(spec)
    options = {**dict.fromkeys(_FLAGS, ""), **defaults, **users}
    options[_GATES_FLAG] = _merged(defaults.get(_GATES_FLAG, ""), users.get(_GATES_FLAG, ""))
    if overrides_snapshot_count(Version.parse(version)):
        options[_SNAPSHOT_FLAG] = str(SNAPSHOT_COUNT)
    return {f"{PREFIX}{flag}": value for flag, value in options.items()}


def overrides_snapshot_count(version: Version) -> bool:
    """Whether members of a version take a snapshot every `SNAPSHOT_COUNT` entries, whatever the spec says."""
    return version.minor == Minor(3, 6)


def option_variables() -> dict[str, dict[str, Any]]:
    """Returns the variables that take their values from the annotations, by their names."""
    return {variable(flag): from_annotation(variable(flag), f"{PREFIX}{flag}") for flag in _FLAGS}


def from_annotation(name: str, annotation: str) -> dict[str, Any]:
    """Returns a variable with the value of an annotation. It is empty if the annotation is missing."""
    path = f"metadata.annotations['{annotation}']"
    return {"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}}


def _options(version: str) -> Mapping[str, str]:
    return _FROM_3_6 if Version.parse(version).minor >= Minor(3, 6) else _UP_TO_3_5


def _merged(defaults: str, users: str) -> str:
    """Returns feature gates, each once: etcd refuses a gate that is set twice. Those of the user win."""
    gates = (each.strip() for each in f"{defaults},{users}".split(","))
    return ",".join({each.partition("=")[0].strip(): each for each in gates if each}.values())


def _from_user(spec: EtcdClusterSpec) -> dict[str, str]:
    flags = {variable(flag): flag for flag in _FLAGS}
    users = spec.pod.etcd_env if spec.pod else ()
    return {flags[each["name"]]: each.get("value", "") for each in users if each["name"] in flags}
