"""Renders OLM's manifests from the pinned release, which are committed, and installs OLM in a cluster."""

from __future__ import annotations

import tempfile
from pathlib import Path

from devcluster import folders, toolchain
from devcluster.kubectl import Kubectl
from devcluster.shell import ClusterError, run

MANIFESTS = folders.CHECKOUT / "devcluster" / "manifests" / "olm"
#: The Deployments without which OLM does not work. The package server only serves lists to users.
DEPLOYMENTS = ("catalog-operator", "olm-operator")
_NAMESPACE = "olm"
#: The API group that OLM's package server serves.
_SERVED = "v1.packages.operators.coreos.com"
#: The community's catalog: large, in another registry, and not needed.
_LEFT_OUT = "upstream-operators.catalogsource.yaml"
_HEADER = "# Rendered from {module} {version}'s chart by 'inv tools.render-olm'; do not edit.\n"


def present(kubectl: Kubectl) -> bool:
    """Returns whether the cluster has OLM. Waits for its Deployments, and changes nothing."""
    selector = f"--field-selector=metadata.name={DEPLOYMENTS[0]}"
    namespaces = kubectl(
        "get", "deployments", "-A", selector, "-o", "jsonpath={.items[*].metadata.namespace}"
    )
    if namespaces:
        kubectl.wait_deployments(namespaces.split()[0], DEPLOYMENTS)
        return True
    # OpenShift with a hosted control plane runs OLM outside of the cluster, where only its API is visible.
    available = 'jsonpath={.status.conditions[?(@.type=="Available")].status}'
    return kubectl("get", "apiservice", _SERVED, "--ignore-not-found", "-o", available) == "True"


def install(kubectl: Kubectl) -> None:
    """Installs OLM in a cluster that does not have it, and waits until it runs.

    Raises:
        ClusterError: The user may not install OLM, or its pods did not become ready.
    """
    if not kubectl.may("*", "*"):
        raise ClusterError(
            "The cluster has no OLM, and the user of KUBECONFIG may not install it. Use the kubeconfig of a "
            "cluster administrator (ClusterRole cluster-admin)."
        )
    apply(kubectl)
    kubectl.wait_deployments(_NAMESPACE, DEPLOYMENTS)


def apply(kubectl: Kubectl) -> None:
    """Applies the manifests. Does not wait for the pods."""
    kubectl.apply((MANIFESTS / "crds.yaml").read_text())
    kubectl(
        "wait", "--for=condition=Established", "--timeout=60s", "-f", str(MANIFESTS / "crds.yaml"), timeout=90
    )
    kubectl.apply((MANIFESTS / "olm.yaml").read_text())


def render(target: Path = MANIFESTS) -> None:
    """Writes crds.yaml and olm.yaml from the chart of the pinned release. The output is reproducible."""
    tool = toolchain.TOOLS["olm"]
    deploy = toolchain.module_folder(tool) / "deploy"
    header = _HEADER.format(module=tool.module, version=tool.version)
    target.mkdir(parents=True, exist_ok=True)
    crds = [
        file.read_text().strip().removeprefix("---\n")
        for file in sorted((deploy / "chart/crds").glob("*.yaml"))
    ]
    (target / "crds.yaml").write_text(header + "".join(f"---\n{crd}\n" for crd in crds))
    image = f"quay.io/operator-framework/olm:{tool.version}"
    opm = f"--opmImage=quay.io/operator-framework/opm:{toolchain.TOOLS['opm'].version}"
    values = {
        **{f"{part}.image.ref": image for part in ("olm", "catalog", "package")},
        "package.image.pullPolicy": "IfNotPresent",
        "package.replicaCount": "1",
        "catalog.opmImageArgs": opm,
        "writePackageServerStatusName": "",
    }
    settings = ",".join(f"{key}={value}" for key, value in values.items())
    with tempfile.TemporaryDirectory() as home:  # helm creates folders of its own under HOME.
        chart = [str(deploy / "chart"), "-f", str(deploy / "upstream/values.yaml"), "--set", settings]
        text = run(
            [toolchain.binary("helm"), "template", "olm", *chart],
            timeout=60,
            env={"HOME": home, "PATH": "/usr/bin:/bin"},
        )
    documents = [document.strip() for document in text.split("---\n") if document.strip()]
    kept = [document for document in documents if _LEFT_OUT not in document.splitlines()[0]]
    (target / "olm.yaml").write_text(header + "".join(f"---\n{document}\n" for document in kept))


def check_rendered() -> None:
    """Renders the manifests again and compares them with the committed ones.

    Raises:
        ClusterError: They differ.
    """
    with tempfile.TemporaryDirectory() as folder:
        render(Path(folder))
        for name in ("crds.yaml", "olm.yaml"):
            if (Path(folder) / name).read_bytes() != (MANIFESTS / name).read_bytes():
                raise ClusterError(
                    f"{MANIFESTS / name} differs from the manifests of the pinned OLM release. "
                    f"Run './inv tools.render-olm'."
                )
