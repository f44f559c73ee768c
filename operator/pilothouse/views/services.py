"""Service."""

from collections.abc import Mapping

import msgspec

from pilothouse.kube import EMPTY, ObjectMeta, Resource


class ServicePort(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """A port of a Service.

    Attributes:
        port: The port number.
        name: The port's name. It may be empty if it is the only port.
        protocol: TCP, UDP or SCTP.
        node_port: The port on every node. 0: there is none.
    """

    port: int
    name: str = ""
    protocol: str = "TCP"
    node_port: int = 0


class ServiceSpec(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """The specification of a Service.

    Attributes:
        type: ClusterIP, NodePort, LoadBalancer or ExternalName.
        cluster_ip: The address in the cluster. The text "None" for a headless Service.
        ports: The ports.
        selector: The labels of the pods that the Service selects.
    """

    type: str = "ClusterIP"
    cluster_ip: str = msgspec.field(default="", name="clusterIP")
    ports: tuple[ServicePort, ...] = ()
    selector: Mapping[str, str] = EMPTY


class LoadBalancerIngress(msgspec.Struct, frozen=True, gc=False):
    """The address or host name of a load balancer."""

    ip: str = ""
    hostname: str = ""


class LoadBalancerStatus(msgspec.Struct, frozen=True, gc=False):
    """The addresses that the load balancer's controller reports."""

    ingress: tuple[LoadBalancerIngress, ...] = ()


class ServiceStatus(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """The state of a Service."""

    load_balancer: LoadBalancerStatus = LoadBalancerStatus()


class Service(msgspec.Struct, frozen=True, gc=False):
    """v1 Service."""

    metadata: ObjectMeta = ObjectMeta()
    spec: ServiceSpec = ServiceSpec()
    status: ServiceStatus = ServiceStatus()


SERVICE: Resource[Service] = Resource("", "v1", "Service", "services", Service)
"""Services."""
