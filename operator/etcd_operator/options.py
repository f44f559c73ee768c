"""The options of etcd whose names differ between minor releases, as variables from annotations of the pod.

Only the image and the metadata of a running pod can be changed. So each such variable is declared in every
pod, with its value from an annotation. The patch of the image also patches the annotations, and the kubelet
reads them again when it restarts the container. etcd ignores an empty variable, and one that it does not
know.
"""

from typing import Any

from etcd_operator.types import PREFIX
from etcd_operator.versions import Minor, Version

# A member compares its data with its peers before it serves, and the leader compares the hashes of
# compactions. kubeadm sets the first one, too.
_UP_TO_3_5 = {"experimental-initial-corrupt-check": "true", "experimental-compact-hash-check-enabled": "true"}
_FROM_3_6 = {"feature-gates": "InitialCorruptCheck=true,CompactHashCheck=true"}
_FLAGS = (*_UP_TO_3_5, *_FROM_3_6)


def variable(flag: str) -> str:
    """Returns the environment variable of a flag of etcd."""
    return f"ETCD_{flag.upper().replace('-', '_')}"


def option_annotations(version: str) -> dict[str, str]:
    """Returns the annotations with the options of a version. The options of other minors are empty.

    Raises:
        ValueError: The text is not a version.
    """
    options = _FROM_3_6 if Version.parse(version).minor >= Minor(3, 6) else _UP_TO_3_5
    return {f"{PREFIX}{flag}": options.get(flag, "") for flag in _FLAGS}


def option_variables() -> list[dict[str, Any]]:
    """Returns the variables that take their values from the annotations."""
    return [from_annotation(variable(flag), f"{PREFIX}{flag}") for flag in _FLAGS]


def from_annotation(name: str, annotation: str) -> dict[str, Any]:
    """Returns a variable with the value of an annotation. It is empty if the annotation is missing."""
    path = f"metadata.annotations['{annotation}']"
    return {"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}}
