"""Service."""

from collections.abc import Mapping

import msgspec

from pilothouse.kube import EMPTY, ObjectMeta, Resource


class ServicePort(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """A port of a Service.

    Attributes:
        port: Where the Service listens.
        name: Its name; may be empty if it is the only port.
        protocol: TCP, UDP or SCTP.
        node_port: Its port on every node; 0 when it has none.
    """

    port: int
    name: str = ""
    protocol: str = "TCP"
    node_port: int = 0


class ServiceSpec(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """What a Service is.

    Attributes:
        type: ClusterIP, NodePort, LoadBalancer or ExternalName.
        cluster_ip: Its address in the cluster; None for a headless Service.
        ports: Its ports.
        selector: The labels of its pods.
    """

    type: str = "ClusterIP"
    cluster_ip: str = msgspec.field(default="", name="clusterIP")
    ports: tuple[ServicePort, ...] = ()
    selector: Mapping[str, str] = EMPTY


class LoadBalancerIngress(msgspec.Struct, frozen=True, gc=False):
    """Where a load balancer listens: an address or a name."""

    ip: str = ""
    hostname: str = ""


class LoadBalancerStatus(msgspec.Struct, frozen=True, gc=False):
    """What the load balancer's controller reports."""

    ingress: tuple[LoadBalancerIngress, ...] = ()


class ServiceStatus(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """What there is of a Service."""

    load_balancer: LoadBalancerStatus = LoadBalancerStatus()


class Service(msgspec.Struct, frozen=True, gc=False):
    """v1 Service."""

    metadata: ObjectMeta = ObjectMeta()
    spec: ServiceSpec = ServiceSpec()
    status: ServiceStatus = ServiceStatus()


SERVICE: Resource[Service] = Resource("", "v1", "Service", "services", Service)
"""Services."""
