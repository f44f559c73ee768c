"""When OLM is installed in a cluster and when it is not changed, with a script in place of kubectl."""

from pathlib import Path

import pytest

from devcluster import olm
from devcluster.kubectl import Kubectl
from devcluster.shell import ClusterError

KUBECTL = """#!/bin/sh
echo "$*" >> "$CALLS"
case "$*" in
  "get deployments -A"*) printf '%s' "$OLM_NAMESPACE";;
  "get apiservice"*) printf '%s' "$SERVED";;
  apply*) cat >> "$CALLS";;
  "auth can-i"*) echo "${MAY:-yes}"; [ "${MAY:-yes}" = yes ];;
esac
"""


@pytest.fixture
def kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kubectl:
    """The `Kubectl` of a cluster without OLM."""
    program = tmp_path / "kubectl"
    program.write_text(KUBECTL)
    program.chmod(0o755)
    for name in ("OLM_NAMESPACE", "SERVED", "MAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    return Kubectl(program, tmp_path / "config")


@pytest.fixture
def waited_for(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The namespaces in which Deployments were waited for."""
    namespaces: list[str] = []
    monkeypatch.setattr(
        Kubectl, "wait_deployments", lambda self, namespace, names: namespaces.append(namespace)
    )
    return namespaces


def calls(kubectl: Kubectl) -> str:
    return (kubectl.kubeconfig.parent / "calls").read_text()


def test_a_cluster_without_olm_is_recognized(kubectl: Kubectl, waited_for: list[str]) -> None:
    assert not olm.present(kubectl)
    assert waited_for == []


def test_olm_is_found_in_any_namespace(
    kubectl: Kubectl, waited_for: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OLM_NAMESPACE", "openshift-operator-lifecycle-manager")
    assert olm.present(kubectl)
    assert waited_for == ["openshift-operator-lifecycle-manager"]


def test_olm_outside_of_the_cluster_is_found_by_the_api_it_serves(
    kubectl: Kubectl, waited_for: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERVED", "True")
    assert olm.present(kubectl)
    assert waited_for == []


def test_olm_is_installed_and_waited_for(kubectl: Kubectl, waited_for: list[str]) -> None:
    olm.install(kubectl)
    text = calls(kubectl)
    crds, rest = ((olm.MANIFESTS / name).read_text() for name in ("crds.yaml", "olm.yaml"))
    assert text.index(crds) < text.index("wait --for=condition=Established") < text.index(rest)
    assert waited_for == ["olm"]


def test_a_user_without_permission_is_refused_before_anything_is_applied(
    kubectl: Kubectl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAY", "no")
    with pytest.raises(ClusterError, match="cluster administrator"):
        olm.install(kubectl)
    assert "apply" not in calls(kubectl)
