"""The demo and the cluster tests on a cluster that this checkout did not make, named by KUBECONFIG.

A copy of the checkout makes that cluster, without OLM. Its registry serves what the images stand on and takes
what is pushed; its nodes pull every name from there.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from devcluster import folders, toolchain
from devcluster.addresses import load_or_choose
from devcluster.kubectl import Kubectl
from release.packages import find
from tests.cluster.test_devcluster import Copy, left_behind

pytestmark = [
    pytest.mark.timeout(1800),
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces, mounts and cgroups need root"),
]
UP_WITHOUT_OLM = """
from devcluster import base_images, cluster, olm
del cluster.DEPLOYMENTS["olm"]
olm.apply = lambda kubectl: None
base_images.ensure(base_images.ETCD_IMAGES, cluster.up().registry)
"""
REGISTRIES = """
[[registry]]
location = "{address}"
insecure = true
[[registry]]
prefix = "docker.io"
location = "{address}"
insecure = true
[[registry]]
prefix = "quay.io"
location = "{address}"
insecure = true
"""
STORAGE = """
[storage]
driver = "overlay"
graphroot = "{folder}/images"
runroot = "{folder}/run"
"""
#: Installs nothing; stands for the resource by which an OpenShift is known.
OPENSHIFT = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "securitycontextconstraints.security.openshift.io"},
    "spec": {
        "group": "security.openshift.io",
        "scope": "Cluster",
        "names": {"kind": "SecurityContextConstraints", "plural": "securitycontextconstraints"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object"}},
            }
        ],
    },
}


@dataclass
class Elsewhere:
    """A foreign cluster, and the environment of a user whose KUBECONFIG names it."""

    kubectl: Kubectl
    registry: str
    environment: dict[str, str]
    #: Caches and state of that user: tools that were built and clusters that were made would lie here.
    home: Path

    def inv(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Runs ./inv in this checkout; standard error is part of the output."""
        command = [str(folders.CHECKOUT / "inv"), *words]
        return subprocess.run(
            command,
            env={**self.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=900,
            check=False,
        )

    def demo(self) -> str:
        """Runs the demo, which must succeed, and returns what it said."""
        done = self.inv("demo")
        assert done.returncode == 0, done.stdout
        return done.stdout

    def ticket(self) -> dict[str, Any]:
        """The demo's ticket."""
        return self.kubectl.read("flightticket", "my-flight-ticket", "-n", "default")


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Elsewhere]:
    """A running cluster without OLM; nothing remains of it."""
    root = tmp_path_factory.mktemp("checkout")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(folders.CHECKOUT / "devcluster", root / "devcluster", ignore=ignored)
    copy, home = Copy(root), tmp_path_factory.mktemp("user")
    try:
        copy.python(UP_WITHOUT_OLM)
        yield _user_of(copy, home)
    finally:
        shutil.rmtree(home)
        copy.command("down")
        remaining = left_behind(copy.id)
        shutil.rmtree(copy.state)
        (folders.clusters() / f"{copy.id}.lock").unlink()
    assert remaining == []


def _user_of(copy: Copy, folder: Path) -> Elsewhere:
    address = load_or_choose(copy.id, copy.state).registry
    registries, storage = folder / "registries.conf", folder / "storage.conf"
    registries.write_text(REGISTRIES.format(address=address))
    storage.write_text(STORAGE.format(folder=folder))
    environment = {
        **os.environ,
        "KUBECONFIG": str(copy.kubectl.kubeconfig),
        "REGISTRY": f"{address}/pilothouse",
        "PATH": f"{toolchain.binary('kubectl').parent}:{os.environ['PATH']}",
        "XDG_CACHE_HOME": str(folder / "cache"),
        "XDG_STATE_HOME": str(folder / "state"),
        # For buildah; docker and podman need none of it.
        "BUILDAH_ISOLATION": "chroot",
        "CONTAINERS_REGISTRIES_CONF": str(registries),
        "CONTAINERS_STORAGE_CONF": str(storage),
    }
    return Elsewhere(copy.kubectl, f"{address}/pilothouse", environment, folder)


def olm_s_identity(kubectl: Kubectl) -> str:
    """What differs when OLM was installed anew or changed."""
    fields = "jsonpath={.items[*].metadata.uid} {.items[*].metadata.generation}"
    return kubectl("get", "deployments", "-n", "olm", "catalog-operator", "olm-operator", "-o", fields)


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({"REGISTRY": ""}, "REGISTRY=host"),
        ({"REGISTRY": "https://localhost:5001/x"}, "is not a registry path"),
        ({"KUBECONFIG": "/no/such/file"}, "KUBECONFIG=/no/such/file does not exist"),
    ],
)
def test_what_is_missing_is_one_sentence(
    elsewhere: Elsewhere, environment: dict[str, str], sentence: str
) -> None:
    done = elsewhere.inv("demo", **environment)
    assert done.returncode == 1
    assert sentence in done.stdout
    assert len(done.stdout.strip().splitlines()) == 1


def test_a_user_who_may_not_is_told_so(elsewhere: Elsewhere, tmp_path: Path) -> None:
    kubectl = elsewhere.kubectl
    kubectl("create", "serviceaccount", "poor", "-n", "default")
    token = kubectl("create", "token", "poor", "-n", "default").strip()
    poor = tmp_path / "poor.conf"
    poor.write_text(kubectl("config", "view", "--raw", "--flatten", "-o", "json"))
    poor.chmod(0o600)
    document = json.loads(poor.read_text())
    for user in document["users"]:
        user["user"] = {"token": token}
    poor.write_text(json.dumps(document))
    done = elsewhere.inv("demo", KUBECONFIG=str(poor))
    assert done.returncode == 1
    assert "may not create namespaces" in done.stdout
    assert len(done.stdout.strip().splitlines()) == 1


def test_the_demo_installs_olm_and_books_the_ticket(elsewhere: Elsewhere) -> None:
    told = elsewhere.demo()
    kubectl = elsewhere.kubectl
    assert "installing OLM" in told
    assert f"export KUBECONFIG={kubectl.kubeconfig}" in told
    assert elsewhere.ticket()["status"]["phase"] == "Booked"
    assert "every member has the key" in told
    images = "jsonpath={.items[*].spec.containers[*].image}"
    members = kubectl("get", "pods", "-n", "default", "-l", "app=etcd", "-o", images)
    assert members.split() == ["quay.io/coreos/etcd:v3.5.0"] * 3
    paths = "jsonpath={.items[*].status.bundleLookups[*].path}"
    pulled = [
        kubectl("get", "deployment", "pilothouse-flights", "-n", "pilothouse", "-o", "jsonpath={..image}"),
        kubectl("get", "deployment", "booking-api", "-n", "airline", "-o", "jsonpath={..image}"),
        kubectl("get", "catalogsource", "pilothouse", "-n", "pilothouse", "-o", "jsonpath={..image}"),
        *sorted(kubectl("get", "installplan", "-n", "pilothouse", "-o", paths).split()),
    ]
    names = ("pilothouse", "booking-api", "catalog", "pilothouse-etcd-bundle", "pilothouse-flights-bundle")
    for name, reference in zip(names, pulled, strict=True):
        assert reference.startswith(f"{elsewhere.registry}/{name}@sha256:"), pulled


def test_the_demo_again_changes_nothing(elsewhere: Elsewhere) -> None:
    def state() -> list[str]:
        names = "jsonpath={.items[*].metadata.uid} {.items[*].metadata.generation}"
        ticket = elsewhere.ticket()
        name = find("pilothouse-flights").csv_name
        csv = elsewhere.kubectl("get", "csv", name, "-n", "pilothouse", "-o", "name")
        pods = elsewhere.kubectl("get", "pods", "-n", "pilothouse", "-o", names)
        booking = f"{ticket['metadata']['uid']} {ticket['status']['bookingID']}"
        return [olm_s_identity(elsewhere.kubectl), csv, pods, booking]

    before = state()
    assert "installing OLM" not in elsewhere.demo()
    assert state() == before


def test_cluster_tests_run_there_again_and_again(elsewhere: Elsewhere) -> None:
    before = olm_s_identity(elsewhere.kubectl)
    words = ("test.cluster", "--select", "create_change_delete or up_changes_nothing")
    assert "default/my-flight-ticket was not created by a test" in elsewhere.inv(*words).stdout
    elsewhere.kubectl("delete", "flightticket", "my-flight-ticket", "-n", "default", "--wait")
    for _ in range(2):
        done = elsewhere.inv(*words)
        assert done.returncode == 0, done.stdout
        assert "1 passed, 1 skipped" in done.stdout
    assert olm_s_identity(elsewhere.kubectl) == before


def test_on_openshift_no_pod_names_the_numbers_that_the_namespace_gives(elsewhere: Elsewhere) -> None:
    # Its restricted-v2 refuses a user or group from outside of the namespace's own range.
    elsewhere.kubectl("create", "-f", "-", stdin=json.dumps(OPENSHIFT))
    elsewhere.demo()
    for namespace in ("airline", "pilothouse"):
        for deployment in elsewhere.kubectl.read("deployments", "-n", namespace)["items"]:
            text = json.dumps(deployment["spec"])
            assert [word for word in ("runAsUser", "runAsGroup", "fsGroup") if f'"{word}"' in text] == []


def test_nothing_was_built_and_no_cluster_made(elsewhere: Elsewhere) -> None:
    assert not (elsewhere.home / "cache").exists()
    assert not (elsewhere.home / "state").exists()
