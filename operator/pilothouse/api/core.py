"""Types of Kubernetes' core API for fields of one's own kinds: pass them on unread, have them validated.

A field of such a type holds the value as it was written, a dict, for the operator to put into the pod or the
claim that it makes. The CRD gets the type's schema (`pilothouse.api.core_types`), so that the API server
refuses what is wrong, with the field's path; what that schema does not know is pruned.

    tolerations: Annotated[tuple[core.Toleration, ...], field("Taints that its pods bear.")] = ()
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
