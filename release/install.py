"""Installs a package through OLM, as a user does: CatalogSource, Subscription, and then patience."""

from __future__ import annotations

from typing import Any

import yaml

from devcluster.folders import CHECKOUT
from devcluster.kubectl import Kubectl, wait_until
from devcluster.shell import ClusterError
from release.packages import NAMESPACE, Package

_CATALOG = "pilothouse"
#: Seconds until OLM is given up: its own deadline for a Deployment is 5 minutes.
_PATIENCE = 330.0


def subscribe(kubectl: Kubectl, package: Package, catalog_image: str, operator_image: str) -> None:
    """Subscribes to a package from a catalog image.

    An installed version of the same name with another operator image is taken away first (its CRD and its
    objects stay): OLM would never replace a version by itself.

    Args:
        kubectl: The cluster.
        package: What to install.
        catalog_image: The catalog, with its digest, as the cluster pulls it.
        operator_image: The image that the version in that catalog names.
    """
    installed = _csv(kubectl, package)
    # With its CSV deleted by hand, OLM takes a Subscription for served and installs nothing any more.
    orphaned = not installed and _installed_once(kubectl, package)
    if orphaned or (installed and _image(installed) != operator_image):
        unsubscribe(kubectl, package)
    _drop_other_catalog(kubectl, catalog_image)
    *catalog, subscription = _manifests(package, catalog_image)
    kubectl.apply(yaml.safe_dump_all(catalog))
    # OLM resolves a Subscription at once, if need be from what an earlier catalog of the same name said
    # (its resolver keeps that for minutes); a connection that gets READY makes it ask anew.
    state = "jsonpath={.status.connectionState.lastObservedState}=READY"
    kubectl(
        "wait", "catalogsource", _CATALOG, "-n", NAMESPACE, f"--for={state}", "--timeout=120s", timeout=130
    )
    kubectl.apply(yaml.safe_dump(subscription))


def _manifests(package: Package, catalog_image: str) -> list[dict[str, Any]]:
    """The package's page of config/olm with another catalog image; the Subscription comes last."""
    text = (CHECKOUT / "config" / "olm" / f"{package.folder}.yaml").read_text()
    objects: list[dict[str, Any]] = list(yaml.safe_load_all(text))
    for found in objects:
        if found["kind"] == "CatalogSource":
            found["spec"]["image"] = catalog_image
    return sorted(objects, key=lambda found: str(found["kind"]) == "Subscription")


def wait_succeeded(kubectl: Kubectl, package: Package, seconds: float = _PATIENCE) -> dict[str, Any]:
    """Waits until OLM reports the package's present version as Succeeded, and returns that version's CSV.

    Raises:
        ClusterError: it did not; the error holds what OLM and the pods say.
    """

    def succeeded() -> dict[str, Any]:
        csv = _csv(kubectl, package) or {}
        return csv if csv.get("status", {}).get("phase") == "Succeeded" else {}

    return wait_until(
        succeeded, seconds, lambda: f"{package.csv_name} was not installed\n{explain(kubectl, package)}\n"
    )


def unsubscribe(kubectl: Kubectl, package: Package) -> None:
    """Uninstalls as OLM's documentation says: Subscription and CSV go; the CRD and its objects stay."""
    for thing in (f"subscription.operators.coreos.com/{package.name}", f"csv/{package.csv_name}"):
        kubectl("delete", thing, "-n", NAMESPACE, "--ignore-not-found", "--wait", timeout=120)
    # A Deployment that the garbage collector has not got to yet would pass for the next installation's.
    owned = ("deployment,pods", "-n", NAMESPACE, "-l", package.selector)
    kubectl("wait", "--for=delete", *owned, "--timeout=120s", timeout=130)


def explain(kubectl: Kubectl, package: Package) -> str:
    """What OLM, the pods, the events of the operators' namespace and a package's log show."""
    views = (
        ("get", "catalogsource,subscription,installplan,csv,pods,jobs", "-o", "wide"),
        (
            "get",
            "subscription",
            "-o",
            "jsonpath={range .items[*].status.conditions[*]}{.type}: {.message}{'\\n'}{end}",
        ),
        ("get", "csv", "-o", "jsonpath={range .items[*]}{.status.reason}: {.status.message}{'\\n'}{end}"),
        ("get", "events", "--sort-by=.lastTimestamp"),
        ("logs", f"deployment/{package.name}", "--tail=30"),
    )
    parts = []
    for words in views:
        try:
            parts.append(kubectl(*words, "-n", NAMESPACE).rstrip())
        except ClusterError as error:
            parts.append(str(error))
    return "\n".join(parts)


def _drop_other_catalog(kubectl: Kubectl, image: str) -> None:
    """Takes away a catalog with another image: OLM would resolve from its pod until the new one serves."""
    words = ("catalogsource", _CATALOG, "-n", NAMESPACE, "--ignore-not-found", "-o", "jsonpath={.spec.image}")
    if kubectl("get", *words) in ("", image):
        return
    kubectl("delete", "catalogsource", _CATALOG, "-n", NAMESPACE, "--wait", timeout=60)
    pods = ("pods", "-n", NAMESPACE, "-l", f"olm.catalogSource={_CATALOG}", "--timeout=90s")
    kubectl("wait", "--for=delete", *pods, timeout=100)


def _csv(kubectl: Kubectl, package: Package) -> dict[str, Any] | None:
    found = kubectl.read("csv", "-n", NAMESPACE, "--field-selector", f"metadata.name={package.csv_name}")
    items: list[dict[str, Any]] = found["items"]
    return items[0] if items else None


def _installed_once(kubectl: Kubectl, package: Package) -> bool:
    """Whether the Subscription, if there is one, says that it installed something."""
    words = ("subscription.operators.coreos.com", package.name, "-n", NAMESPACE, "--ignore-not-found")
    return bool(kubectl("get", *words, "-o", "jsonpath={.status.installedCSV}"))


def _image(csv: dict[str, Any]) -> str:
    deployment = csv["spec"]["install"]["spec"]["deployments"][0]
    return str(deployment["spec"]["template"]["spec"]["containers"][0]["image"])
