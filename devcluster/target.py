"""The cluster that commands use: the one that KUBECONFIG names, or the local one of this checkout."""

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

#: The path of this project's images. In the local cluster, all registry names map to the local registry.
LOCAL_IMAGES = "quay.io/pilothouse"
#: host[:port]/path as engines and container runtimes read it. A first part without a dot or port that is not
#: "localhost" is a path below docker.io (github.com/distribution/reference, normalize.go).
_REGISTRY = re.compile(r"(localhost|[\w-]*(\.[\w-]+)+|[\w-]+(?=:))(:\d+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)*")
#: Seconds for the first response of a remote cluster; a credential plugin may have to log in first.
_FIRST_ANSWER = 30.0


@dataclass(frozen=True)
class Target:
    """A cluster that commands use."""

    kubeconfig: Path
    kubectl: Kubectl
    #: The local cluster, or None if KUBECONFIG names another one.
    cluster: Cluster | None
    #: The registry path in pods' image references: NAME is pulled as `images`/NAME.
    images: str

    @property
    def local(self) -> bool:
        """Whether this is the local cluster of this checkout."""
        return self.cluster is not None

    def require_registry(self) -> str:
        """Returns the registry path to push images to and pull them from, for a cluster that is not local.

        Raises:
            ClusterError: REGISTRY is not set or is not a registry path.
        """
        if not self.images:
            raise ClusterError(
                "KUBECONFIG names a cluster that this checkout did not create. Name a registry that it can "
                "pull images from: REGISTRY=host[:port]/path (on kind: REGISTRY=localhost:5001/pilothouse)."
            )
        if not _REGISTRY.fullmatch(self.images):
            raise ClusterError(
                f"REGISTRY={self.images} is not a registry path. Use host[:port]/path without https:// and "
                "with a lower-case path, such as localhost:5001/pilothouse or docker.io/me."
            )
        return self.images


def current() -> Target:
    """Returns the cluster to use, which must be running.

    Raises:
        ClusterError: The local cluster is not up, or the cluster of KUBECONFIG cannot be used.
    """
    kubeconfig = elsewhere()
    return _existing(kubeconfig) if kubeconfig else _of(local.existing())


def ensure() -> Target:
    """Like `current`, but starts the local cluster if it is down, or installs OLM in the other if missing."""
    kubeconfig = elsewhere()
    if not kubeconfig:
        return _of(local.up())
    target = _existing(kubeconfig)
    target.require_registry()
    if not target.kubectl.may("create", "namespaces"):
        raise ClusterError(
            f"The user of KUBECONFIG={kubeconfig} may not create namespaces in that cluster. Use the "
            "kubeconfig of an administrator."
        )
    if not olm.present(target.kubectl):
        run_steps([Step("installing OLM", lambda: olm.install(target.kubectl))])
    return target


def _of(cluster: Cluster) -> Target:
    return Target(cluster.kubeconfig, cluster.kubectl, cluster, LOCAL_IMAGES)


def elsewhere() -> str:
    """Returns the value of KUBECONFIG, or "" if it is unset or names the local cluster's own file."""
    text = os.environ.get("KUBECONFIG", "")
    own = folders.clusters() / folders.cluster_id()
    return "" if own in Path(text).parents else text


def _existing(kubeconfig: str) -> Target:
    program = shutil.which("kubectl") or shutil.which("oc")
    if not program:
        raise ClusterError(
            "KUBECONFIG is set, but kubectl (or oc) is not on PATH. Install the one that fits your cluster."
        )
    # Several colon-separated files are one configuration. kubectl skips missing files.
    if not any(Path(file).is_file() for file in kubeconfig.split(os.pathsep)):
        raise ClusterError(f"KUBECONFIG={kubeconfig} does not exist. Correct the path, or unset KUBECONFIG.")
    kubectl = Kubectl(Path(program), Path(kubeconfig))
    try:
        kubectl("get", "--raw=/readyz", f"--request-timeout={_FIRST_ANSWER:.0f}s", timeout=_FIRST_ANSWER + 5)
    except CommandError as error:
        reason = str(error).splitlines()[-1].strip()
        raise ClusterError(
            f"Could not use the cluster of KUBECONFIG={kubeconfig}. Start it, log in to it, or unset "
            f"KUBECONFIG. The error was: {reason}"
        ) from error
    return Target(Path(kubeconfig), kubectl, None, os.environ.get("REGISTRY", "").rstrip("/"))
