"""Which cluster is used, with a script in place of kubectl."""

from pathlib import Path

import pytest

from devcluster import cluster, target
from devcluster.kubectl import Kubectl
from devcluster.shell import ClusterError

KUBECTL = """#!/bin/sh
[ -n "$DOWN" ] && { echo "connection refused" >&2; exit 1; }
case "$*" in
  "get --raw=/readyz"*) printf ok;;
  "auth can-i"*) echo "${MAY:-yes}"; [ "${MAY:-yes}" = yes ];;
esac
"""


@pytest.fixture
def other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """KUBECONFIG names a cluster that responds. The local cluster must not be started."""
    program = tmp_path / "bin" / "kubectl"
    program.parent.mkdir()
    program.write_text(KUBECTL)
    program.chmod(0o755)
    kubeconfig = tmp_path / "config"
    kubeconfig.write_text("")
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    monkeypatch.setenv("REGISTRY", "localhost:5001/pilothouse")
    monkeypatch.setattr(cluster, "up", lambda: pytest.fail("a local cluster was started"))
    return kubeconfig


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The clusters in which OLM was installed. No cluster has OLM at first."""
    done: list[Path] = []

    def install(kubectl: Kubectl) -> None:
        done.append(kubectl.kubeconfig)

    monkeypatch.setattr("devcluster.olm.present", lambda kubectl: False)
    monkeypatch.setattr("devcluster.olm.install", install)
    return done


def test_kubeconfig_overrides_the_local_cluster(other: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGISTRY", "registry.example.com/team/")
    found = target.current()
    assert found.kubeconfig == other
    assert not found.local
    assert found.require_registry() == "registry.example.com/team"


def test_olm_is_installed_where_it_is_missing(other: Path, installed: list[Path]) -> None:
    target.ensure()
    assert installed == [other]


def test_an_existing_olm_is_not_changed(
    other: Path, installed: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("devcluster.olm.present", lambda kubectl: True)
    target.ensure()
    assert installed == []


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        ("REGISTRY", "", "REGISTRY=host"),
        ("REGISTRY", "https://registry.example.com/x", "is not a registry path"),
        ("REGISTRY", "registry.example.com/Upper", "is not a registry path"),
        ("MAY", "no", "administrator"),
        ("DOWN", "yes", "Could not use the cluster .*connection refused"),
        ("KUBECONFIG", "/no/such/file", "KUBECONFIG=/no/such/file does not exist"),
    ],
)
def test_mistakes_are_reported_before_anything_is_installed(
    other: Path,
    installed: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    value: str,
    sentence: str,
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ClusterError, match=sentence):
        target.ensure()
    assert installed == []


@pytest.mark.parametrize(
    "registry",
    [
        "localhost:5001/pilothouse",
        "docker.io/me",
        "registry.example.com",
        "10.0.0.1:5000/a/b-c",
        "kind-registry:5000/x",
    ],
)
def test_common_forms_of_registry_paths_are_accepted(
    other: Path, monkeypatch: pytest.MonkeyPatch, registry: str
) -> None:
    monkeypatch.setenv("REGISTRY", registry)
    assert target.current().require_registry() == registry


def test_a_missing_kubectl_is_reported(other: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ClusterError, match=r"kubectl .*not on PATH"):
        target.current()


def test_the_local_cluster_s_own_kubeconfig_is_the_local_cluster(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr("devcluster.addresses._networks_in_use", list)
    monkeypatch.setattr("devcluster.toolchain.binary", Path)
    own = cluster.Cluster.of_checkout()
    monkeypatch.setenv("KUBECONFIG", str(own.kubeconfig))
    monkeypatch.setattr(cluster.Cluster, "running", lambda self: True)
    assert target.current().local
