"""Stand-ins for Kubernetes' own controllers, for tests on a model of the API server or without a node.

::

    class Life(Scenario):
        controllers = (Deployments(), Pods(trouble=wrong_image), Jobs())

In a test without a scenario, run them with `async with running(model.another_client(), Deployments())`. For a
real kube-apiserver without a controller manager, give `running` a client of it. Under virtual time they are
deterministic. There is no stand-in for the garbage collector: use `ModelApi.collect_garbage`.
"""

from pilothouse.testing.controllers.claims import VolumeClaims
from pilothouse.testing.controllers.cluster import Built, StandIn, running
from pilothouse.testing.controllers.jobs import Jobs
from pilothouse.testing.controllers.pods import Pods, Trouble
from pilothouse.testing.controllers.workloads import Deployments, StatefulSets

__all__ = [
    "Built",
    "Deployments",
    "Jobs",
    "Pods",
    "StandIn",
    "StatefulSets",
    "Trouble",
    "VolumeClaims",
    "running",
]
