"""ConfigMap and Secret."""

from collections.abc import Mapping

import msgspec

from pilothouse.kube import EMPTY, ObjectMeta, Resource


class ConfigMap(msgspec.Struct, frozen=True, gc=False):
    """v1 ConfigMap.

    Attributes:
        metadata: Its metadata.
        data: Its texts by their keys.
    """

    metadata: ObjectMeta = ObjectMeta()
    data: Mapping[str, str] = EMPTY


class Secret(msgspec.Struct, frozen=True, gc=False):
    """v1 Secret. Its repr names the keys and hides the values.

    Attributes:
        metadata: Its metadata.
        type: Such as Opaque or kubernetes.io/tls.
        data: Its values by their keys, decoded from base64.
    """

    metadata: ObjectMeta = ObjectMeta()
    type: str = ""
    data: Mapping[str, bytes] = msgspec.field(default_factory=dict)

    def __repr__(self) -> str:
        # The metadata is left out: an annotation of `kubectl apply` holds the values, too.
        return f"Secret({str(self.metadata.key)!r}, keys={sorted(self.data)})"


CONFIG_MAP: Resource[ConfigMap] = Resource("", "v1", "ConfigMap", "configmaps", ConfigMap)
"""ConfigMaps. An operator that watches them cluster-wide keeps the data of all of them: to apply ConfigMaps
without reading them, declare `CONFIG_MAP.partial()`."""

SECRET: Resource[Secret] = Resource("", "v1", "Secret", "secrets", Secret)
"""Secrets. An operator that watches them cluster-wide keeps the data of all of them: to apply Secrets without
reading them, declare `SECRET.partial()`."""
