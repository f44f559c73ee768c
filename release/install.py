"""Installs a package through OLM, as a user does: with a CatalogSource and a Subscription."""

from __future__ import annotations

from typing import Any

import yaml

from devcluster.folders import CHECKOUT
from devcluster.kubectl import Kubectl, wait_until
from devcluster.shell import ClusterError
from release.documents import dump, dump_all
from release.earlier import releases_of
from release.packages import NAMESPACE, Package

_CATALOG = "pilothouse"
#: Seconds for OLM to install a package. OLM's own deadline for a Deployment is 5 minutes.
_PATIENCE = 330.0


def subscribe(kubectl: Kubectl, package: Package, catalog_image: str, operator_image: str) -> None:
    """Subscribes to a package from a catalog image. OLM upgrades an installed earlier release.

    Any other installed version is uninstalled first (its CRD and its objects stay), unless it has the same
    operator image: OLM never replaces a version with itself, nor one that the catalog does not have.

    Args:
        kubectl: Runs kubectl against the cluster.
        package: The package to install.
        catalog_image: The reference of the catalog that the cluster pulls, with its digest.
        operator_image: The operator's image in that catalog.
    """
    installed = _csvs(kubectl, package)
    earlier = {package.csv_of(release.version) for release in releases_of(package)}
    # If a user has deleted the CSV, OLM takes the Subscription for installed and does nothing.
    orphaned = not installed and _installed_once(kubectl, package)
    if orphaned or any(_name(csv) not in earlier and _image(csv) != operator_image for csv in installed):
        unsubscribe(kubectl, package)
    _drop_other_catalog(kubectl, catalog_image)
    *catalog, subscription = _manifests(package, catalog_image)
    kubectl.apply(dump_all(catalog))
    # OLM resolves a Subscription immediately, even from its cached content of an earlier catalog with the
    # same name, which it keeps for minutes. Once the connection is READY, OLM reads the new catalog.
    state = "jsonpath={.status.connectionState.lastObservedState}=READY"
    kubectl(
        "wait", "catalogsource", _CATALOG, "-n", NAMESPACE, f"--for={state}", "--timeout=120s", timeout=130
    )
    kubectl.apply(dump(subscription))


def _manifests(package: Package, catalog_image: str) -> list[dict[str, Any]]:
    """Returns the package's objects in config/olm with another catalog image, the Subscription last."""
    text = (CHECKOUT / "config" / "olm" / f"{package.folder}.yaml").read_text()
    objects: list[dict[str, Any]] = list(yaml.safe_load_all(text))
    for found in objects:
        if found["kind"] == "CatalogSource":
            found["spec"]["image"] = catalog_image
    return sorted(objects, key=lambda found: str(found["kind"]) == "Subscription")


def wait_succeeded(kubectl: Kubectl, package: Package, number: str = "") -> dict[str, Any]:
    """Waits until OLM reports a version of a package as Succeeded, and as the only one. Returns its CSV.

    Args:
        kubectl: Runs kubectl against the cluster.
        package: The package.
        number: The version. Default: the current one.

    Raises:
        ClusterError: The installation timed out. The text shows the state of OLM and the pods.
    """
    expected = package.csv_of(number or package.version)

    def succeeded() -> dict[str, Any]:
        csvs = _csvs(kubectl, package)
        alone = [_name(csv) for csv in csvs] == [expected]
        return csvs[0] if alone and csvs[0].get("status", {}).get("phase") == "Succeeded" else {}

    return wait_until(
        succeeded, _PATIENCE, lambda: f"{expected} was not installed:\n{explain(kubectl, package)}\n"
    )


def unsubscribe(kubectl: Kubectl, package: Package) -> None:
    """Deletes Subscription and CSVs, as OLM's documentation recommends. The CRD and its objects stay."""
    things = [f"subscription.operators.coreos.com/{package.name}"]
    for thing in (*things, *(f"csv/{_name(csv)}" for csv in _csvs(kubectl, package))):
        kubectl("delete", thing, "-n", NAMESPACE, "--ignore-not-found", "--wait", timeout=120)
    # Until the garbage collector deletes the Deployment, the next installation would take it for its own.
    owned = ("deployment,pods", "-n", NAMESPACE, "-l", package.selector)
    kubectl("wait", "--for=delete", *owned, "--timeout=120s", timeout=130)


def explain(kubectl: Kubectl, package: Package) -> str:
    """Returns the state of OLM and the pods, the Events of the namespace, and the log of the package."""
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
    """Deletes a catalog with another image. Until the new one serves, OLM would resolve from the old pod."""
    words = ("catalogsource", _CATALOG, "-n", NAMESPACE, "--ignore-not-found", "-o", "jsonpath={.spec.image}")
    if kubectl("get", *words) in ("", image):
        return
    kubectl("delete", "catalogsource", _CATALOG, "-n", NAMESPACE, "--wait", timeout=60)
    pods = ("pods", "-n", NAMESPACE, "-l", f"olm.catalogSource={_CATALOG}", "--timeout=90s")
    kubectl("wait", "--for=delete", *pods, timeout=100)


def _csvs(kubectl: Kubectl, package: Package) -> list[dict[str, Any]]:
    """Returns the CSVs of a package. During an upgrade there are two."""
    found = kubectl.read("csv", "-n", NAMESPACE)["items"]
    return [csv for csv in found if _name(csv).startswith(package.csv_of(""))]


def _name(csv: dict[str, Any]) -> str:
    return str(csv["metadata"]["name"])


def _installed_once(kubectl: Kubectl, package: Package) -> bool:
    """Returns whether there is a Subscription that has installed something."""
    words = ("subscription.operators.coreos.com", package.name, "-n", NAMESPACE, "--ignore-not-found")
    return bool(kubectl("get", *words, "-o", "jsonpath={.status.installedCSV}"))


def _image(csv: dict[str, Any]) -> str:
    deployment = csv["spec"]["install"]["spec"]["deployments"][0]
    return str(deployment["spec"]["template"]["spec"]["containers"][0]["image"])
