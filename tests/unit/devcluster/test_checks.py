from pathlib import Path

import pytest

from devcluster import checks, packages
from devcluster.shell import ClusterError

GIB = 1 << 30


@pytest.mark.parametrize(
    ("machine", "sentence"),
    [
        (("Darwin", "arm64", 0, False), "needs Linux, but this is Darwin. .*KUBECONFIG"),
        (("Linux", "aarch64", 0, True), "x86_64 machine, but this one is aarch64. .*KUBECONFIG"),
        (("Linux", "x86_64", 1000, True), "needs root.*sudo.*KUBECONFIG"),
        (("Linux", "x86_64", 0, False), "no network namespaces, .*KUBECONFIG"),
    ],
)
def test_an_unsuitable_machine_is_refused_with_an_alternative(
    machine: tuple[str, str, int, bool], sentence: str
) -> None:
    with pytest.raises(ClusterError, match=sentence):
        checks.complain(*machine)


def test_a_suitable_machine_passes() -> None:
    checks.complain("Linux", "x86_64", 0, namespaces=True)
    checks.complain_disk(Path("/cache"), 20 * GIB, 20 * GIB)
    checks.complain_memory(4 * GIB, 4 * GIB)


def test_too_little_disk_names_the_folder_the_sizes_and_a_fix() -> None:
    with pytest.raises(
        ClusterError, match=r"/cache has 1\.5 GiB free, but 20 GiB are needed\. .*XDG_CACHE_HOME"
    ):
        checks.complain_disk(Path("/cache"), 3 * GIB // 2, 20 * GIB)


def test_too_little_memory_names_the_sizes() -> None:
    with pytest.raises(ClusterError, match=r"0\.5 GiB of memory are available, but 2 GiB are needed"):
        checks.complain_memory(GIB // 2, 2 * GIB)


def test_missing_packages_are_found_by_program_and_by_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        packages,
        "PACKAGES",
        {"coreutils": "ls", "gone": "no-such-program", "file": "/no/such/file", "root": "/"},
    )
    assert packages.missing() == ["gone", "file"]


def test_without_apt_the_programs_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "PACKAGES", {"gone": "no-such-program"})
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ClusterError, match="no apt-get to install them: no-such-program"):
        packages.install()
