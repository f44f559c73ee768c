"""The cluster that commands work on: the one that KUBECONFIG names, else the local one of this checkout."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from devcluster import cluster as local
from devcluster import folders, olm
from devcluster.cluster import Cluster
from devcluster.kubectl import Kubectl
from devcluster.progress import Step, run_steps
from devcluster.shell import ClusterError, CommandError

#: Where this project's images belong; in the local cluster every registry's name leads to the local registry.
LOCAL_IMAGES = "quay.io/pilothouse"
#: host[:port]/path as engines and container runtimes read it; a first part without dot, port or "localhost"
#: would be a folder of docker.io (github.com/distribution/reference, normalize.go).
_REGISTRY = re.compile(r"(localhost|[\w-]*(\.[\w-]+)+|[\w-]+(?=:))(:\d+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)*")
#: Seconds for the first answer of a cluster far away, whose login may be another program's work.
_FIRST_ANSWER = 30.0


@dataclass(frozen=True)
class Target:
    """A cluster to work on."""

    kubeconfig: Path
    kubectl: Kubectl
    #: The local cluster, or none when KUBECONFIG names another.
    cluster: Cluster | None
    #: Where images are named for pods: NAME is pulled as `images`/NAME.
    images: str

    @property
    def local(self) -> bool:
        """Whether it is the local cluster of this checkout."""
        return self.cluster is not None

    def require_registry(self) -> str:
        """The registry path that images are pushed to and pulled from, when it is not the local cluster.

        Raises:
            ClusterError: REGISTRY does not name it, or not as registries are named.
        """
        if not self.images:
            raise ClusterError(
                "KUBECONFIG names a cluster that this checkout did not make, so images need a registry that "
                "it pulls from: set REGISTRY=host[:port]/path (REGISTRY=localhost:5001/pilothouse on kind)"
            )
        if not _REGISTRY.fullmatch(self.images):
            raise ClusterError(
                f"REGISTRY={self.images} names no registry: it is host[:port]/path without https:// and with "
                "the path in lower case, such as localhost:5001/pilothouse or docker.io/me"
            )
        return self.images


def current() -> Target:
    """The cluster to work on, which must be there.

    Raises:
        ClusterError: the local cluster is not up, or the one of KUBECONFIG cannot be used.
    """
    kubeconfig = elsewhere()
    return _existing(kubeconfig) if kubeconfig else _of(local.existing())


def ensure() -> Target:
    """Like `current`, but brings the local cluster up, or installs OLM in the other, when missing."""
    kubeconfig = elsewhere()
    if not kubeconfig:
        return _of(local.up())
    target = _existing(kubeconfig)
    target.require_registry()
    if not target.kubectl.may("create", "namespaces"):
        raise ClusterError(
            f"the user of KUBECONFIG={kubeconfig} may not create namespaces in that cluster: use the "
            "kubeconfig of an administrator"
        )
    if not olm.present(target.kubectl):
        run_steps([Step("installing OLM, which the cluster lacks", lambda: olm.install(target.kubectl))])
    return target


def _of(cluster: Cluster) -> Target:
    return Target(cluster.kubeconfig, cluster.kubectl, cluster, LOCAL_IMAGES)


def elsewhere() -> str:
    """What KUBECONFIG says, unless that is nothing or the local cluster's own file."""
    text = os.environ.get("KUBECONFIG", "")
    own = folders.clusters() / folders.cluster_id()
    return "" if own in Path(text).parents else text


def _existing(kubeconfig: str) -> Target:
    program = shutil.which("kubectl") or shutil.which("oc")
    if not program:
        raise ClusterError(
            "KUBECONFIG is set, and kubectl (or oc) is not on PATH: install the one of your cluster"
        )
    # Several files with colons between are one configuration, and kubectl leaves out those that are missing.
    if not any(Path(file).is_file() for file in kubeconfig.split(os.pathsep)):
        raise ClusterError(f"there is no file {kubeconfig}, which KUBECONFIG names: correct it, or unset it")
    kubectl = Kubectl(Path(program), Path(kubeconfig))
    try:
        kubectl("get", "--raw=/readyz", f"--request-timeout={_FIRST_ANSWER:.0f}s", timeout=_FIRST_ANSWER + 5)
    except CommandError as error:
        reason = str(error).splitlines()[-1].strip()
        raise ClusterError(
            f"the cluster of KUBECONFIG={kubeconfig} cannot be used: start it or log in to it, or unset "
            f"KUBECONFIG ({reason})"
        ) from error
    return Target(Path(kubeconfig), kubectl, None, os.environ.get("REGISTRY", "").rstrip("/"))
