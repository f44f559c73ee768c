"""The wheel: its content, and a project outside of the checkout that depends only on the wheel."""

import os
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest

from devcluster.folders import CHECKOUT
from release.packages import version

UV = Path(sysconfig.get_path("scripts")) / "uv"
PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())


def run(*command: str | Path, cwd: Path) -> str:
    """Runs a command without any reference to the checkout."""
    variables = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "MYPY"))}
    done = subprocess.run(
        command, cwd=cwd, env=variables, capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=CHECKOUT)
    return next(folder.glob("pilothouse-*.whl"))


@pytest.fixture(scope="module")
def scripts(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scripts of a new virtual environment with the wheel and the locked dependencies."""
    folder = tmp_path_factory.mktemp("environment")
    run(UV, "venv", "--quiet", "--python", sys.executable, "venv", cwd=folder)
    words = ("--quiet", "--python", "venv/bin/python", "--constraints", CHECKOUT / "requirements" / "dev.txt")
    run(UV, "pip", "install", *words, f"pilothouse[host,testing] @ {wheel.as_uri()}", "mypy", cwd=folder)
    return folder / "venv" / "bin"


def test_the_wheel_contains_only_the_framework(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"pilothouse", f"pilothouse-{version()}.dist-info"}
    assert {"pilothouse/py.typed", "pilothouse/testing/plugin.py", "pilothouse/packaging/runtime.txt"} <= {
        *names
    }
    assert not any("flights" in name or "__pycache__" in name for name in names)


def test_the_same_sources_make_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path, cwd=CHECKOUT)
    assert (tmp_path / wheel.name).read_bytes() == wheel.read_bytes()


def test_the_build_backend_is_the_locked_one() -> None:
    assert PROJECT["build-system"]["requires"] == PROJECT["dependency-groups"]["build"]
    [backend] = PROJECT["build-system"]["requires"]
    assert f"{backend} " in (CHECKOUT / "requirements" / "build.txt").read_text()


@pytest.mark.timeout(240)
def test_a_new_project_passes_its_tests_and_strict_mypy_outside_of_the_checkout(
    scripts: Path, tmp_path: Path
) -> None:
    run(scripts / "pilothouse", "new", "web-sites", "--group=example.com", "--kind=WebSite", cwd=tmp_path)
    project = tmp_path / "web-sites"
    assert "2 passed" in run(scripts / "python", "-m", "pytest", "-q", cwd=project)
    assert run(scripts / "python", "-m", "mypy", cwd=project).startswith("Success")
    assert "name: websites.example.com\n" in run(scripts / "pilothouse", "crd", cwd=project)
    assert "1. the ConfigMap holds the message" in run(
        scripts / "pilothouse", "explain", "website", cwd=project
    )


def test_the_modules_that_run_in_the_image_need_no_extra(wheel: Path, tmp_path: Path) -> None:
    """Installs the wheel like the Dockerfile, without the parts for authors."""
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if not name.startswith(("pilothouse/testing", "pilothouse/packaging")):
                archive.extract(name, tmp_path)
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nfor each in ('kubernetes', 'yaml', 'pytest'):\n    sys.modules[each] = None\n"
    )
    code = "import pilothouse.cli, pilothouse; print(pilothouse.__file__)"
    variables = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=False
    )
    assert done.stdout.startswith(str(tmp_path)), done.stderr
