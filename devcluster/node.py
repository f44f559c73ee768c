"""One node of the cluster: writes the configuration of its components to files in its state folder.

Node 0 also runs the control plane and the registry. Another node is a `Node` with the next index: its
addresses, names and pod network are derived from the index, and it joins with a certificate of its own.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from devcluster import toolchain
from devcluster.addresses import (
    API_PORT,
    DNS_ADDRESS,
    POD_NETWORK,
    REGISTRY_PORT,
    SERVICE_NETWORK,
    Addresses,
)
from devcluster.pki import Authority, ensure_signing_key
from devcluster.shell import write_if_changed
from devcluster.supervisor import Component, Spec

#: The path of the node's state folder in its mount namespace: short, and the same for all clusters.
HOME = "/var/lib/pilothouse"
INTERFACE = "eth0"
#: Every node has routes to the pods of this number of nodes.
MAXIMUM = 8
_CONTAINERD_SOCKET = "/run/containerd/containerd.sock"
_SERVICE = "kubernetes.default.svc"
_ISSUER = f"https://{_SERVICE}.cluster.local"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_STORES, _API, _CLIENTS = 0, 1, 2  # Stages: stopped from the last to the first.


@dataclass(frozen=True)
class Node:
    """A node with its index in the cluster."""

    addresses: Addresses
    index: int
    #: The cluster's state folder.
    state: Path

    @property
    def name(self) -> str:
        """The host name, which is also the name of the Node object."""
        return f"node-{self.index}"

    @property
    def folder(self) -> Path:
        """The folder that is kept across restarts. The node sees it as HOME."""
        return self.state / self.name

    @property
    def address(self) -> IPv4Address:
        """The address for the host and the other nodes."""
        return self.addresses.node(self.index)

    @property
    def pods(self) -> IPv4Network:
        """The node's part of the pod network."""
        return list(POD_NETWORK.subnets(new_prefix=24))[self.index]

    @property
    def admin(self) -> Path:
        """The administrator's kubeconfig file."""
        return self.folder / "pki" / "admin.conf"

    def configure(self) -> Spec:
        """Writes the certificates and configuration files, and returns what the supervisor has to run."""
        for name in ("pki", "config", "config/cni", "config/certs.d/_default", "log/pods", "log/containers"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        for name in ("kubelet", "containerd", "volumes"):
            (self.folder / name).mkdir(exist_ok=True)
        self._certificates()
        self._configuration_files()
        components = [*self._control_plane(), *self._worker()] if self.index == 0 else self._worker()
        return Spec(
            setup=[*_mounts(), *self._network(), ["hostname", self.name]],
            interface=INTERFACE,
            settings={"net/ipv4/ip_forward": "1", "net/bridge/bridge-nf-call-iptables": "1"},
            components=components,
            environment={"PATH": _PATH, "PILOTHOUSE_CLUSTER": self.addresses.cluster},
            authority=f"{HOME}/pki/ca.crt",
            logs=f"{HOME}/log",
            status=f"{HOME}/status.json",
            files=_digest(self.folder / "config", self.folder / "pki"),
            pods=[
                f"/sys/fs/cgroup/{hierarchy}{self.addresses.cgroup}/kubepods" for hierarchy in ("pids/", "")
            ],
        )

    def _certificates(self) -> None:
        own, authorities = self.folder / "pki", self.state / "node-0" / "pki"
        cluster = Authority(authorities, "ca")
        cluster.ensure("/CN=kubernetes-ca")
        if self.index == 0:
            self._control_plane_certificates(cluster)
        else:
            write_if_changed(own / "ca.crt", cluster.certificate.read_text())
        names = [f"DNS:{self.name}", f"IP:{self.address}"]
        cluster.sign(own, "kubelet", f"/O=system:nodes/CN=system:node:{self.name}", names)
        cluster.sign(own, "kube-proxy", "/CN=system:kube-proxy")
        for name in ("kubelet", "kube-proxy"):
            cluster.kubeconfig(own, name, self.addresses.api)

    def _control_plane_certificates(self, cluster: Authority) -> None:
        folder = cluster.folder
        front = Authority(folder, "front-proxy-ca")
        front.ensure("/CN=front-proxy-ca")
        front.sign(folder, "front-proxy-client", "/CN=front-proxy-client")
        ensure_signing_key(folder)
        services = ["kubernetes", "kubernetes.default", _SERVICE, f"{_SERVICE}.cluster.local", "localhost"]
        names = [f"DNS:{name}" for name in services]
        names += [f"IP:{address}" for address in ("127.0.0.1", SERVICE_NETWORK[1], self.address)]
        cluster.sign(folder, "apiserver", "/CN=kube-apiserver", names)
        cluster.sign(folder, "apiserver-kubelet-client", "/O=system:masters/CN=apiserver-kubelet-client")
        cluster.sign(folder, "admin", "/O=system:masters/CN=admin")
        for name in ("kube-controller-manager", "kube-scheduler"):
            cluster.sign(folder, name, f"/CN=system:{name}")
        for name in ("admin", "kube-controller-manager", "kube-scheduler"):
            cluster.kubeconfig(folder, name, self.addresses.api)

    def _configuration_files(self) -> None:
        # Maps all registries to the local one; the path in the image reference stays the same.
        mirror = f'[host."http://{self.addresses.registry}"]\n  capabilities = ["pull", "resolve"]\n'
        files = {
            "resolv.conf": "",
            "registry.json": json.dumps(_registry()),
            "containerd.toml": _CONTAINERD,
            "certs.d/_default/hosts.toml": mirror,
            "cni/10-pods.conflist": json.dumps(self._pod_network()),
            "kubelet.json": json.dumps(self._kubelet()),
            "kube-proxy.json": json.dumps(self._kube_proxy()),
        }
        for name, text in files.items():
            write_if_changed(self.folder / "config" / name, text)

    def _network(self) -> list[list[str]]:
        # Traffic that leaves the cluster is rejected immediately, so that clients do not wait for a timeout.
        # In OUTPUT the interface is that of the Service's address, before it is rewritten to a pod's.
        refusal = ["-o", INTERFACE, "!", "-d", str(self.addresses.subnet), "-j", "REJECT"]
        rules = [["-d", str(POD_NETWORK), "-j", "ACCEPT"], refusal]
        others = [Node(self.addresses, index, self.state) for index in range(MAXIMUM) if index != self.index]
        return [
            ["ip", "link", "set", "lo", "up"],
            ["ip", "address", "add", f"{self.address}/24", "dev", INTERFACE],
            ["ip", "link", "set", INTERFACE, "up"],
            # Service addresses are rewritten only after the route lookup, which therefore needs a route.
            ["ip", "route", "add", "default", "via", str(self.addresses.host)],
            *(["ip", "route", "add", str(node.pods), "via", str(node.address)] for node in others),
            *(["iptables", "-w", "-A", chain, *rule] for chain in ("OUTPUT", "FORWARD") for rule in rules),
        ]

    def _control_plane(self) -> list[Component]:
        own = "http://127.0.0.1:2379"
        etcd = [
            "--name=node-0", f"--data-dir={HOME}/etcd", f"--listen-client-urls={own}",
            f"--advertise-client-urls={own}", "--listen-peer-urls=http://127.0.0.1:2380",
            "--listen-metrics-urls=http://127.0.0.1:2381",
            # A development cluster may lose its latest writes in a crash of the machine; fsync would be slow.
            "--unsafe-no-fsync",
        ]  # fmt: skip
        return [
            Component("registry", ["docker-registry", "serve", f"{HOME}/config/registry.json"], _STORES),
            Component("etcd", [_built("etcd"), *etcd], _STORES),
            Component("kube-apiserver", [_built("kube-apiserver"), *self._api_server()], _API),
            Component(
                "kube-controller-manager",
                [_built("kube-controller-manager"), *_controller_manager()],
                _CLIENTS,
                self._ready_url,
            ),
            Component(
                "kube-scheduler",
                [_built("kube-scheduler"), *_as_client("kube-scheduler"), "--leader-elect=false"],
                _CLIENTS,
                self._ready_url,
            ),
        ]

    def _worker(self) -> list[Component]:
        kubelet = [
            f"--config={HOME}/config/kubelet.json", f"--kubeconfig={HOME}/pki/kubelet.conf",
            "--root-dir=/var/lib/kubelet", f"--hostname-override={self.name}", f"--node-ip={self.address}",
        ]  # fmt: skip
        proxy = [f"--config={HOME}/config/kube-proxy.json"]
        return [
            Component("containerd", ["containerd", "-c", f"{HOME}/config/containerd.toml"], _STORES),
            Component("kubelet", [_built("kubelet"), *kubelet], _CLIENTS, self._ready_url),
            Component("kube-proxy", [_built("kube-proxy"), *proxy], _CLIENTS, self._ready_url),
        ]

    @property
    def _ready_url(self) -> str:
        return f"https://{self.addresses.api}/readyz"

    def _api_server(self) -> list[str]:
        pki = f"{HOME}/pki"
        return [
            "--etcd-servers=http://127.0.0.1:2379", f"--service-cluster-ip-range={SERVICE_NETWORK}",
            f"--advertise-address={self.address}", f"--secure-port={API_PORT}",
            f"--tls-cert-file={pki}/apiserver.crt", f"--tls-private-key-file={pki}/apiserver.key",
            f"--client-ca-file={pki}/ca.crt", f"--service-account-key-file={pki}/sa.pub",
            f"--service-account-signing-key-file={pki}/sa.key", f"--service-account-issuer={_ISSUER}",
            "--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged", f"--kubelet-client-certificate={pki}/apiserver-kubelet-client.crt",
            f"--kubelet-client-key={pki}/apiserver-kubelet-client.key",
            f"--kubelet-certificate-authority={pki}/ca.crt", "--kubelet-preferred-address-types=InternalIP",
            # API aggregation: OLM's package server is an extension API server.
            f"--requestheader-client-ca-file={pki}/front-proxy-ca.crt",
            "--requestheader-allowed-names=front-proxy-client",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            "--requestheader-group-headers=X-Remote-Group", "--requestheader-username-headers=X-Remote-User",
            f"--proxy-client-cert-file={pki}/front-proxy-client.crt",
            f"--proxy-client-key-file={pki}/front-proxy-client.key",
        ]  # fmt: skip

    def _pod_network(self) -> dict[str, object]:
        ranges = [[{"subnet": str(self.pods)}]]
        ipam = {"type": "host-local", "ranges": ranges, "routes": [{"dst": "0.0.0.0/0"}]}
        bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "ipMasq": True, "hairpinMode": True}
        ports = {"type": "portmap", "capabilities": {"portMappings": True}}
        return {"cniVersion": "1.0.0", "name": "pods", "plugins": [{**bridge, "ipam": ipam}, ports]}

    def _kubelet(self) -> dict[str, object]:
        pki = f"{HOME}/pki"
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "containerRuntimeEndpoint": f"unix://{_CONTAINERD_SOCKET}",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{self.addresses.cgroup}",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": f"{pki}/ca.crt"},
            },
            "authorization": {"mode": "Webhook"},
            "clusterDNS": [str(DNS_ADDRESS)],
            "clusterDomain": "cluster.local",
            "tlsCertFile": f"{pki}/kubelet.crt",
            "tlsPrivateKeyFile": f"{pki}/kubelet.key",
            "resolvConf": f"{HOME}/config/resolv.conf",
            "failSwapOn": False,
            "volumePluginDir": f"{HOME}/kubelet/plugins",
            "serializeImagePulls": False,
            "registryPullQPS": 0,  # No limit: the registry is local.
            # The node shares the disk with its user, so it evicts pods only when the disk is almost full.
            "evictionHard": {
                "memory.available": "100Mi",
                "nodefs.available": "1%",
                "imagefs.available": "1%",
            },
            "imageGCHighThresholdPercent": 100,
            "imageGCLowThresholdPercent": 99,
            "maxPods": 200,
        }

    def _kube_proxy(self) -> dict[str, object]:
        return {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "clientConnection": {"kubeconfig": f"{HOME}/pki/kube-proxy.conf"},
            "mode": "iptables",
            "clusterCIDR": str(POD_NETWORK),
            "conntrack": {"maxPerCore": 0},  # Leaves the host's table size as it is.
            "hostnameOverride": self.name,
        }


def _mounts() -> list[list[str]]:
    """Returns commands that mount the node's own /run and data folders where its software expects them."""
    commands = [
        ["mount", "--make-rprivate", "/"],
        ["mount", "-t", "tmpfs", "-o", "mode=755", "pilothouse", "/run"],
    ]
    binds = {
        "kubelet": "/var/lib/kubelet",
        "log/pods": "/var/log/pods",
        "log/containers": "/var/log/containers",
    }
    for source, target in binds.items():
        commands += [["mkdir", "-p", target], ["mount", "--bind", f"{HOME}/{source}", target]]
    # The address assignments of pods end with the pods, so they are not kept across restarts.
    commands += [["mkdir", "-p", "/var/lib/cni"], ["mount", "-t", "tmpfs", "pilothouse", "/var/lib/cni"]]
    return [*commands, ["mount", "--make-rshared", "/"]]


def _digest(*folders: Path) -> str:
    """Returns a hash of all files in the folders."""
    digest = hashlib.sha256()
    for folder in folders:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                digest.update(f"{file.relative_to(folder)}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def _built(name: str) -> str:
    return str(toolchain.binary(name))


def _as_client(name: str) -> list[str]:
    options = ("kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig")
    return [f"--{option}={HOME}/pki/{name}.conf" for option in options]


def _controller_manager() -> list[str]:
    pki = f"{HOME}/pki"
    return [
        *_as_client("kube-controller-manager"),
        f"--service-account-private-key-file={pki}/sa.key", f"--root-ca-file={pki}/ca.crt",
        f"--cluster-signing-cert-file={pki}/ca.crt", f"--cluster-signing-key-file={pki}/ca.key",
        "--use-service-account-credentials", f"--cluster-cidr={POD_NETWORK}",
        f"--service-cluster-ip-range={SERVICE_NETWORK}", "--leader-elect=false",
        f"--requestheader-client-ca-file={pki}/front-proxy-ca.crt",
    ]  # fmt: skip


def _registry() -> dict[str, object]:
    return {
        "version": 0.1,
        "log": {"level": "warn", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": f"{HOME}/registry"}, "delete": {"enabled": True}},
        "http": {"addr": f"0.0.0.0:{REGISTRY_PORT}"},
    }


_CONTAINERD = f"""\
version = 2
root = "{HOME}/containerd"
state = "/run/containerd"
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
]
[grpc]
  address = "{_CONTAINERD_SOCKET}"
[plugins."io.containerd.internal.v1.opt"]
  path = "{HOME}/containerd/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "registry.k8s.io/pause:3.10"
  # Without CAP_SYS_RESOURCE a negative score fails the container, with no reason in the logs.
  restrict_oom_score_adj = true
  # Profiles would be loaded into the host's kernel, and stay.
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{HOME}/config/cni"
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "{HOME}/config/certs.d"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
"""
