"""Building for a cluster that is not the local one, with a script in place of each engine."""

from pathlib import Path
from shutil import which

import pytest

from devcluster import images, target
from devcluster.kubectl import Kubectl
from devcluster.shell import ClusterError
from devcluster.target import Target

DIGEST = "sha256:" + "ab" * 32
#: Records its arguments. Prints the digest as docker does, and writes it to the file of --digestfile.
ENGINE = f"""#!/bin/sh
echo "$(basename $0) $*" >> "$CALLS"
case "$*" in
  push*) echo "latest: digest: {DIGEST} size: 1234";;
esac
while [ $# -gt 0 ]; do [ "$1" = --digestfile ] && echo {DIGEST} > "$2"; shift; done
exit 0
"""


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file with the engines' calls. No engine is installed yet."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    monkeypatch.setattr("shutil.which", lambda name: which(name, path=str(tmp_path / "bin")))
    cluster(monkeypatch, "registry.example.com/team")
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    return tmp_path / "calls"


def cluster(monkeypatch: pytest.MonkeyPatch, registry: str) -> None:
    monkeypatch.setattr(Kubectl, "__call__", lambda self, *words: "arm64")  # its nodes' architecture
    other = Target(Path("/somewhere"), Kubectl(Path("kubectl"), Path("/somewhere")), None, registry)
    monkeypatch.setattr(target, "current", lambda: other)


def install(calls: Path, name: str, script: str = ENGINE) -> None:
    program = calls.parent / "bin" / name
    program.write_text(script)
    program.chmod(0o755)


def build(calls: Path) -> str:
    return images.build(calls.parent / "Dockerfile", calls.parent, "app", build_args={"PACKAGE": "x"})


@pytest.mark.parametrize("engine", ["docker", "podman", "buildah"])
def test_each_engine_builds_pushes_and_names_the_digest(calls: Path, engine: str) -> None:
    install(calls, engine)
    assert build(calls) == f"registry.example.com/team/app@{DIGEST}"
    text = calls.read_text()
    assert f"{engine} build --build-arg=PACKAGE=x" in text
    assert "--platform=linux/arm64" in text
    assert f"{engine} push" in text
    assert "--tls-verify" not in text


def test_docker_without_a_running_daemon_is_skipped(calls: Path) -> None:
    install(calls, "docker", "#!/bin/sh\nexit 1\n")
    install(calls, "buildah")
    build(calls)
    assert "buildah push" in calls.read_text()


def test_only_a_registry_on_this_machine_is_used_without_tls(
    calls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(calls, "podman")
    cluster(monkeypatch, "localhost:5001/pilothouse")
    assert build(calls) == f"localhost:5001/pilothouse/app@{DIGEST}"
    assert "push --tls-verify=false" in calls.read_text()


def test_a_missing_engine_is_reported(calls: Path) -> None:
    with pytest.raises(ClusterError, match="Start docker, or install podman or buildah"):
        build(calls)


def test_a_host_that_only_starts_with_localhost_needs_tls(
    calls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(calls, "podman")
    cluster(monkeypatch, "localhost.example.com/pilothouse")
    build(calls)
    assert "--tls-verify" not in calls.read_text()


@pytest.mark.parametrize("engine", ["docker", "buildah"])
def test_a_refused_push_names_the_registry_and_the_reason(calls: Path, engine: str) -> None:
    install(calls, engine, '#!/bin/sh\n[ "$1" != push ] || { echo "denied: no access" >&2; exit 1; }\n')
    words = rf"Could not push \S*team/app.*{engine} login registry\.example\.com.*denied"
    with pytest.raises(ClusterError, match=words):
        build(calls)
