"""What the objects of one cluster have in common: names, labels, annotations and addresses."""

from collections.abc import Iterable, Iterator
from urllib.parse import urlsplit

import msgspec

from etcd_operator.etcd import CLIENT_PORT, Member
from etcd_operator.types import LABEL, PREFIX, EtcdClusterSpec, PodPolicy, StaticTLS

PEER_PORT = 2380
METRICS_PORT = 2381
"""The port for metrics and probes. It never uses TLS, because the kubelet has no certificate."""

APP = {"app": "etcd"}
NODE_LABEL = "etcd_node"
"""The label of the coreos operator that has the name of the pod."""

SERVING = f"{PREFIX}serving"
"""The label that the client Service selects. It is set on started voters."""

InitialCluster = tuple[tuple[str, str], ...]
"""Pairs of a member's name and one of its peer URLs."""


class Blueprint(msgspec.Struct, frozen=True):
    """The identity and the valid spec of one cluster, from which all of its manifests follow.

    Attributes:
        name: The name of the EtcdCluster.
        namespace: Its namespace.
        uid: Its UID.
        incarnation: The number of the founding, `Record.incarnation`.
        spec: The valid spec.
    """

    name: str
    namespace: str
    uid: str
    incarnation: int
    spec: EtcdClusterSpec

    @property
    def pod(self) -> PodPolicy:
        """How pods are created."""
        return self.spec.pod or PodPolicy()

    @property
    def tls(self) -> StaticTLS:
        """The Secrets with certificates. Empty names: no TLS."""
        return self.spec.tls.static if self.spec.tls and self.spec.tls.static else StaticTLS()

    @property
    def peer_secret(self) -> str:
        """The Secret for the connections between members. Empty: no TLS."""
        return self.tls.member.peer_secret if self.tls.member else ""

    @property
    def server_secret(self) -> str:
        """The Secret for the connections of clients. Empty: no TLS."""
        return self.tls.member.server_secret if self.tls.member else ""

    @property
    def token(self) -> str:
        """The token of the founding. Equal names and tokens would give equal cluster and member IDs."""
        return f"{self.uid}-{self.incarnation}"

    @property
    def selector(self) -> dict[str, str]:
        """The labels of all objects of the cluster."""
        return {**APP, LABEL: self.name}

    @property
    def serving_selector(self) -> dict[str, str]:
        """The labels of the pods that clients reach through the client Service."""
        return {**self.selector, SERVING: "true"}

    @property
    def client_service(self) -> str:
        """The name of the Service for clients."""
        return f"{self.name}-client"

    @property
    def peer_scheme(self) -> str:
        """The scheme of the connections between members."""
        return "https" if self.peer_secret else "http"

    @property
    def client_scheme(self) -> str:
        """The scheme of the connections of clients."""
        return "https" if self.server_secret else "http"

    @property
    def scheme(self) -> str:
        """Both schemes, as in `Desired.scheme`."""
        return f"{self.peer_scheme}/{self.client_scheme}"

    def host(self, member: str) -> str:
        """Returns the DNS name of a member's pod, under the headless Service."""
        return f"{member}.{self._parent}"

    def peer_url(self, member: str) -> str:
        """Returns the URL at which the other members reach a member."""
        return f"{self.peer_scheme}://{self.host(member)}:{PEER_PORT}"

    def client_url(self, member: str) -> str:
        """Returns the URL that a member publishes for clients."""
        return f"{self.client_scheme}://{self.host(member)}:{CLIENT_PORT}"

    def seat(self, peer_url: str) -> str:
        """Returns the name of the member with a peer URL. Empty: it is not under the headless Service."""
        try:
            host = urlsplit(peer_url).hostname or ""
        except ValueError:
            return ""
        name, _, parent = host.partition(".")
        return name if parent == self._parent.lower() else ""

    def domain(self, peer_url: str) -> str | None:
        """Returns the `ClusterDomain` of a peer URL. None: it is not under the headless Service at all."""
        try:
            _, _, parent = (urlsplit(peer_url).hostname or "").partition(".")
        except ValueError:
            return None
        domain = parent.removeprefix(self.service)
        return domain if parent.startswith(self.service) and domain[:1] in ("", ".") else None

    def founding(self, members: Iterable[str]) -> InitialCluster:
        """Returns the initial cluster of a founding."""
        return tuple((each, self.peer_url(each)) for each in members)

    def joining(self, members: Iterable[Member], name: str) -> InitialCluster:
        """Returns the initial cluster of a member that joins.

        Etcd compares the peer URLs with those of the existing members, so all must be there.

        Args:
            members: The linearizable member list, with or without the member that joins.
            name: The name of the member that joins.
        """
        others = tuple(each for each in self._listed(members) if each[0] != name)
        return (*others, (name, self.peer_url(name)))

    def _listed(self, members: Iterable[Member]) -> Iterator[tuple[str, str]]:
        for member in members:
            for url in member.peer_urls:
                # A member that a user has added may not have started, or may have any name.
                yield self.seat(url) or f"member-{member.id:x}", url

    @property
    def service(self) -> str:
        """The DNS name of the headless Service, without the `ClusterDomain`."""
        return f"{self.name}.{self.namespace}.svc"

    @property
    def _parent(self) -> str:
        return f"{self.service}{self.pod.cluster_domain}"
