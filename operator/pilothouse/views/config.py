"""ConfigMap and Secret."""

from collections.abc import Mapping

import msgspec

from pilothouse.kube import EMPTY, ObjectMeta, Resource


class ConfigMap(msgspec.Struct, frozen=True, gc=False):
    """v1 ConfigMap.

    Attributes:
        metadata: The object's metadata.
        data: The texts by key.
    """

    metadata: ObjectMeta = ObjectMeta()
    data: Mapping[str, str] = EMPTY


class Secret(msgspec.Struct, frozen=True, gc=False):
    """v1 Secret. Its repr contains the keys, but not the values.

    Attributes:
        metadata: The object's metadata.
        type: The type, such as Opaque or kubernetes.io/tls.
        data: The values by key, decoded from base64.
    """

    metadata: ObjectMeta = ObjectMeta()
    type: str = ""
    data: Mapping[str, bytes] = msgspec.field(default_factory=dict)

    def __repr__(self) -> str:
        # The metadata is left out, because the annotation of `kubectl apply` contains the values as well.
        return f"Secret({str(self.metadata.key)!r}, keys={sorted(self.data)})"


CONFIG_MAP: Resource[ConfigMap] = Resource("", "v1", "ConfigMap", "configmaps", ConfigMap)
"""ConfigMaps. An operator that watches them cluster-wide keeps the data of all ConfigMaps in memory. If it
only applies ConfigMaps and does not read them, declare `CONFIG_MAP.partial()` instead."""

SECRET: Resource[Secret] = Resource("", "v1", "Secret", "secrets", Secret)
"""Secrets. An operator that watches them cluster-wide keeps the data of all Secrets in memory. If it only
applies Secrets and does not read them, declare `SECRET.partial()` instead."""
