"""Views of built-in kinds, with the fields that most operators need.

::

    deployment = await play.apply(DEPLOYMENT, manifest)
    await play.wait_for_rollout(deployment)

Each constant is a `Resource`, for `owns` and `watches` of a Watch and for the modules of a Play. Other fields
are neither decoded nor kept in memory. If an operator needs them, declare a view of your own: a frozen
msgspec Struct and a `Resource`.
"""

from pilothouse.views.conditions import StatusCondition
from pilothouse.views.config import CONFIG_MAP, SECRET, ConfigMap, Secret
from pilothouse.views.jobs import JOB, Job, JobStatus
from pilothouse.views.pods import (
    POD,
    Container,
    ContainerRunning,
    ContainerState,
    ContainerStatus,
    ContainerTerminated,
    ContainerWaiting,
    Pod,
    PodSpec,
    PodStatus,
    Problem,
)
from pilothouse.views.rollouts import Rollout
from pilothouse.views.services import (
    SERVICE,
    LoadBalancerIngress,
    Service,
    ServicePort,
    ServiceSpec,
    ServiceStatus,
)
from pilothouse.views.storage import PERSISTENT_VOLUME_CLAIM, ClaimSpec, ClaimStatus, PersistentVolumeClaim
from pilothouse.views.workloads import (
    DEPLOYMENT,
    STATEFUL_SET,
    Deployment,
    DeploymentSpec,
    DeploymentStatus,
    LabelSelector,
    StatefulSet,
    StatefulSetSpec,
    StatefulSetStatus,
)

__all__ = [
    "CONFIG_MAP",
    "DEPLOYMENT",
    "JOB",
    "PERSISTENT_VOLUME_CLAIM",
    "POD",
    "SECRET",
    "SERVICE",
    "STATEFUL_SET",
    "ClaimSpec",
    "ClaimStatus",
    "ConfigMap",
    "Container",
    "ContainerRunning",
    "ContainerState",
    "ContainerStatus",
    "ContainerTerminated",
    "ContainerWaiting",
    "Deployment",
    "DeploymentSpec",
    "DeploymentStatus",
    "Job",
    "JobStatus",
    "LabelSelector",
    "LoadBalancerIngress",
    "PersistentVolumeClaim",
    "Pod",
    "PodSpec",
    "PodStatus",
    "Problem",
    "Rollout",
    "Secret",
    "Service",
    "ServicePort",
    "ServiceSpec",
    "ServiceStatus",
    "StatefulSet",
    "StatefulSetSpec",
    "StatefulSetStatus",
    "StatusCondition",
]
