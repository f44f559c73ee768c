"""Types of Kubernetes' core API for fields of your own kinds.

A field of such a type holds the value as a dict, as the user wrote it. The operator puts it into the pod or
claim that it creates. The CRD contains the type's schema (`pilothouse.api.core_types`), so the API server
refuses an invalid value, names the field, and prunes unknown fields.

    tolerations: Annotated[tuple[core.Toleration, ...], field("Tolerations of the pods.")] = ()
"""

from typing import Annotated, Any, TypeAlias

import msgspec


def _core(name: str) -> msgspec.Meta:
    return msgspec.Meta(extra={"core": name})


Affinity: TypeAlias = Annotated[dict[str, Any], _core("Affinity")]
Container: TypeAlias = Annotated[dict[str, Any], _core("Container")]
EnvFromSource: TypeAlias = Annotated[dict[str, Any], _core("EnvFromSource")]
EnvVar: TypeAlias = Annotated[dict[str, Any], _core("EnvVar")]
LocalObjectReference: TypeAlias = Annotated[dict[str, Any], _core("LocalObjectReference")]
PersistentVolumeClaimSpec: TypeAlias = Annotated[dict[str, Any], _core("PersistentVolumeClaimSpec")]
PodSecurityContext: TypeAlias = Annotated[dict[str, Any], _core("PodSecurityContext")]
PodTemplateSpec: TypeAlias = Annotated[dict[str, Any], _core("PodTemplateSpec")]
ResourceRequirements: TypeAlias = Annotated[dict[str, Any], _core("ResourceRequirements")]
SecretKeySelector: TypeAlias = Annotated[dict[str, Any], _core("SecretKeySelector")]
SecurityContext: TypeAlias = Annotated[dict[str, Any], _core("SecurityContext")]
Toleration: TypeAlias = Annotated[dict[str, Any], _core("Toleration")]
TopologySpreadConstraint: TypeAlias = Annotated[dict[str, Any], _core("TopologySpreadConstraint")]
Volume: TypeAlias = Annotated[dict[str, Any], _core("Volume")]
VolumeMount: TypeAlias = Annotated[dict[str, Any], _core("VolumeMount")]
