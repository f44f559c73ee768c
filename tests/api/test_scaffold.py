"""`inv new`: what it makes is typed, tested, packaged, and runs on a real API server with its own rights."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from devcluster import toolchain
from devcluster.folders import CHECKOUT
from devcluster.kubectl import Kubectl
from pilothouse.kube import Client, NotFound, ObjectKey, ObjectMeta, PatchType, Resource
from pilothouse.packaging.names import Names
from pilothouse.packaging.scaffold import TEMPLATE, create
from pilothouse.testing import ApiServer, eventually
from release.documents import tree
from release.projects import update
from tests.api.test_permissions import service_account
from tests.api.versions import ON_BOTH

NAMES = Names("web-sites", "sites.example.com", "WebSite")


class Anything(msgspec.Struct, frozen=True, omit_defaults=True):
    """Enough of an object to see what became of it."""

    metadata: ObjectMeta
    data: dict[str, str] = {}
    status: dict[str, Any] = {}


SITES = Resource(NAMES.group, "v1", NAMES.kind, "websites", Anything)
CONFIG_MAPS = Resource("", "v1", "ConfigMap", "configmaps", Anything)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new operator."""
    folder = tmp_path_factory.mktemp("new") / "sites"
    create(NAMES, folder, update)
    return folder


def run(project: Path, *command: str) -> None:
    """Runs a Python module in the project, as its author would."""
    paths = f"{CHECKOUT / 'operator'}:{project}"
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=project,
        env={**os.environ, "PYTHONPATH": paths, "MYPYPATH": str(CHECKOUT / "operator")},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_example_is_what_the_scaffold_makes(tmp_path: Path) -> None:
    create(Names("greeter", "demo.pilothouse.dev", "Greeting"), tmp_path / "greeter", update)
    made = tree(tmp_path / "greeter")
    kept = tree_of_sources(TEMPLATE)
    assert made.keys() == kept.keys()
    assert [path for path in made if made[path] != kept[path]] == []


def tree_of_sources(folder: Path) -> dict[Path, str]:
    """The files of a folder without what tools leave behind."""
    return {
        inner: text
        for inner, text in tree(folder).items()
        if not any(part.startswith((".", "__pycache__")) for part in inner.parts[:-1])
    }


def test_nothing_of_the_example_is_left(project: Path) -> None:
    for path, text in tree_of_sources(project).items():
        assert "greet" not in f"{path} {text}".lower(), path


def test_its_own_test_passes(project: Path) -> None:
    run(project, "pytest", "-q", "-p", "no:cacheprovider")


def test_it_is_typed(project: Path, tmp_path: Path) -> None:
    run(project, "mypy", "--cache-dir", str(tmp_path))


def test_what_is_generated_is_in_order(project: Path) -> None:
    # Holds the bundle to operator-sdk's checks, too.
    assert update(project, check=True) == []


@asynccontextmanager
async def running(project: Path, server: ApiServer, token: str) -> AsyncIterator[None]:
    """The operator's process, with the rights of its service account."""
    config = json.loads(server.kubeconfig().read_text())
    config["users"][0]["user"] = {"token": token}
    kubeconfig = project.parent / "kubeconfig"
    kubeconfig.write_text(json.dumps(config))
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": f"{CHECKOUT / 'operator'}:{project}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "KUBECONFIG": str(kubeconfig),
        "POD_NAMESPACE": NAMES.name,
        "POD_NAME": "pod-1",
        "LEADER_ELECT": "true",
        "HEALTH_ADDRESS": "127.0.0.1:0",
    }
    with (project.parent / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", NAMES.module, env=environment, stderr=log, cwd=project
        )
    try:
        yield
        assert process.returncode is None, (project.parent / "log").read_text()
    finally:
        if process.returncode is None:
            process.terminate()
        await asyncio.wait_for(process.wait(), 20)
    text = (project.parent / "log").read_text()
    assert process.returncode == 0, text
    assert "forbidden" not in text.lower(), text


@ON_BOTH
async def test_it_runs_with_the_rights_of_its_manifests(
    project: Path, api_server: ApiServer, client: Client, namespace: str
) -> None:
    kubectl = Kubectl(toolchain.binary("kubectl"), api_server.kubeconfig())
    kubectl("apply", "--server-side", "--validate=strict", "-k", str(project / "config"))
    await eventually(lambda: client.request("GET", SITES.path()), within=30)
    kubectl("apply", "-n", namespace, "-k", str(project / "config" / "samples"))
    key = ObjectKey(namespace, "sample")
    token = await service_account(client, NAMES.name, NAMES.name)

    async def ready() -> bool:
        status = (await client.get(SITES, key)).status
        return any((c["type"], c["status"]) == ("Ready", "True") for c in status.get("conditions", ()))

    async def says(message: str) -> bool:
        return (await client.get(CONFIG_MAPS, key)).data == {"message": message}

    def log() -> str:
        return (project.parent / "log").read_text()

    async with running(project, api_server, token):
        await eventually(ready, within=30, describe=log)
        assert await says("Hello")
        await client.patch(SITES, key, {"spec": {"message": "Good evening"}}, type=PatchType.MERGE)
        await eventually(lambda: says("Good evening"), describe=log)
        await client.delete(CONFIG_MAPS, key)

        async def made_anew() -> bool:
            try:
                return await says("Good evening")
            except NotFound:
                return False

        await eventually(made_anew, describe=log)
