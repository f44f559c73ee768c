"""`inv project` on what authors do with their project: a version, a second kind, a package of their own."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from devcluster.shell import ClusterError
from pilothouse.packaging import lock as locks
from pilothouse.packaging import projects as framework
from pilothouse.packaging.mistakes import ProjectError
from release.play import explain
from release.projects import load, update
from tests.projects import change

SECOND = (
    "\nSECOND: Kind[WebSite] = Kind(\n"
    '    WebSite, "sites.example.com", "v1", "Second", description="A second kind.", '
    'manages=(ManagedResource("ConfigMap", "v1"),)\n)\n'
)
SAMPLE = "apiVersion: sites.example.com/v1\nkind: Second\nmetadata: {name: second}\nspec: {message: Hello}\n"


def csv(project: Path) -> dict[str, Any]:
    [file] = (project / "bundle" / "manifests").glob("*.clusterserviceversion.yaml")
    document: dict[str, Any] = yaml.safe_load(file.read_text())
    return document


def test_the_bundle_has_the_projects_own_version(project: Path) -> None:
    change(project / "pyproject.toml", 'version = "0.1.0"', 'version = "0.2.0"')
    update(project)
    assert csv(project)["metadata"]["name"] == "web.v0.2.0"
    assert csv(project)["spec"]["version"] == "0.2.0"


def test_a_second_kind_needs_rights_and_a_sample_and_is_in_the_bundle_then(project: Path) -> None:
    with (project / "web_operator" / "types.py").open("a") as file:
        file.write(SECOND)
    with pytest.raises(
        ClusterError, match=r"role.yaml grants no permissions on seconds.sites.example.com. Copy"
    ):
        update(project)
    role = project / "config" / "rbac" / "role.yaml"
    role.write_text(role.read_text().replace("[websites", "[seconds, websites"))
    with pytest.raises(ClusterError, match=r"has no sample of Second in sites.example.com/v1\. Write one"):
        update(project)
    samples = project / "config" / "samples"
    (samples / "second.yaml").write_text(SAMPLE)
    change(samples / "kustomization.yaml", "resources:\n", "resources:\n- second.yaml\n")
    update(project)
    owned = [each["kind"] for each in csv(project)["spec"]["customresourcedefinitions"]["owned"]]
    assert sorted(owned) == ["Second", "WebSite"]
    assert (project / "bundle" / "manifests" / "sites.example.com_seconds.yaml").is_file()
    assert update(project, check=True) == []


def test_a_kind_that_moves_to_another_group_takes_its_role_along(project: Path) -> None:
    update(project)
    old = project / "config" / "crd" / "sites.example.com_websites.yaml"
    change(project / "web_operator" / "types.py", 'group="sites.example.com"', 'group="pages.example.com"')
    with pytest.raises(
        ClusterError, match=r"not up to date with the sources: .*sites.example.com_websites.yaml"
    ):
        update(project, check=True)
    sample = project / "config" / "samples" / "website.yaml"
    sample.write_text(sample.read_text().replace("sites.example.com", "pages.example.com"))
    assert old in update(project)
    assert not old.exists()
    assert "sites.example.com" not in (project / "config" / "rbac" / "role.yaml").read_text()
    assert update(project, check=True) == []


def test_events_need_not_be_declared(project: Path) -> None:
    assert "Event" not in (project / "web_operator" / "types.py").read_text()
    update(project)  # operator-sdk takes the permission for Events for one on a removed API otherwise.
    [owned] = csv(project)["spec"]["customresourcedefinitions"]["owned"]
    assert {"kind": "Event", "name": "", "version": "v1"} in owned["resources"]


def test_a_package_that_an_author_adds_is_locked_installed_and_imported(
    project: Path, capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    change(project / "pyproject.toml", "dependencies = [", 'dependencies = ["pyyaml>=6,<7", ')
    playbook = project / "web_operator" / "playbook.py"
    playbook.write_text(playbook.read_text() + "\nimport yaml\n\nprint('yaml is at', yaml.__file__)\n")
    with pytest.raises(ProjectError, match=r"is out of date: pyproject.toml adds pyyaml>=6,<7"):
        load(project)
    assert locks.lock(framework.read(project))
    locked = (project / "requirements.txt").read_text()
    assert "\npyyaml==6." in locked
    assert "--hash=sha256:" in locked
    packages = load(project).packages
    assert packages
    assert (packages / "yaml").is_dir()
    assert packages.is_relative_to(tmp_path / "cache")
    # What the image runs, too: the locked file, with hashes, into a folder of its own.
    assert "-r /build/requirements.txt" in (project / "Dockerfile").read_text()
    # The interpreter has PyYAML by chance: one without it finds that of the project.
    program = "import yaml; print(yaml.__file__)"
    variables = {"PYTHONPATH": load(project).python_path}
    done = subprocess.run(
        [sys.executable, "-S", "-c", program], env=variables, capture_output=True, text=True, check=True
    )
    assert Path(done.stdout.strip()).is_relative_to(packages)
    assert explain("website", "text", str(project)) == 0
    assert "the ConfigMap holds the message" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("file", "text", "sentence"),
    [
        ("rbac/role.yaml", None, "cannot be read"),
        ("rbac/role.yaml", "a: [", "is not valid YAML"),
        ("samples/kustomization.yaml", "- a", "must contain only YAML mappings"),
        ("samples/kustomization.yaml", "resources: [missing.yaml]", "missing.yaml cannot be read"),
    ],
)
def test_a_broken_manifest_is_one_sentence(project: Path, file: str, text: str | None, sentence: str) -> None:
    path = project / "config" / file
    if text is None:
        path.unlink()
    else:
        path.write_text(text)
    with pytest.raises(ClusterError, match=sentence):
        update(project)
