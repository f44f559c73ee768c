"""Runs the commands of the memcached example, with its ClusterRole, on a real API server."""

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from devcluster import toolchain
from devcluster.kubectl import Kubectl
from pilothouse.kube import Client
from pilothouse.testing import ApiServer, eventually
from tests.api.test_permissions import service_account

FOLDER = Path(__file__).parents[2] / "examples" / "memcached"
SETUP, USE = re.findall(r"```\n(.*?)```", (FOLDER / "README.md").read_text(), re.DOTALL)
NAME = "memcached"


@pytest.fixture
def kubectl(api_server: ApiServer) -> Kubectl:
    return Kubectl(toolchain.binary("kubectl"), api_server.kubeconfig())


async def shell(script: str, kubectl: Kubectl, folder: Path) -> str:
    """Runs a script as a reader of the README would, and returns its output and its errors."""
    if not (folder / "kubectl").exists():
        (folder / "kubectl").symlink_to(toolchain.binary("kubectl"))
    process = await asyncio.create_subprocess_exec(
        *["bash", "-c", script],
        env={
            "PATH": f"{folder}:{os.environ['PATH']}",
            "HOME": str(folder),  # for the cache of kubectl
            "KUBECONFIG": str(kubectl.kubeconfig),
        },
        cwd=FOLDER,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return output.decode()


@asynccontextmanager
async def operating(kubectl: Kubectl, token: str, folder: Path) -> AsyncIterator[None]:
    """Runs the example with a service account's token, and checks that it lacks no permission."""
    config = json.loads(kubectl.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": token}
    (folder / "kubeconfig").write_text(json.dumps(config))
    with (folder / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *[sys.executable, "memcached.py"],
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": "../../operator",
                "KUBECONFIG": str(folder / "kubeconfig"),
                "HEALTH_ADDRESS": "127.0.0.1:0",
            },
            cwd=FOLDER,
            stderr=log,
        )
    try:
        yield
        assert process.returncode is None, (folder / "log").read_text()
    finally:
        if process.returncode is None:
            process.terminate()
        await asyncio.wait_for(process.wait(), 20)
    assert "forbidden" not in (folder / "log").read_text().lower(), (folder / "log").read_text()


async def test_the_commands_of_the_readme(kubectl: Kubectl, client: Client, tmp_path: Path) -> None:
    [install] = [line for line in SETUP.splitlines() if "kubectl apply" in line]
    assert "python memcached.py\n" in SETUP
    python = f"{sys.executable} -m pilothouse"
    await shell(
        f"export PYTHONPATH=../../operator; {install.replace('python -m pilothouse', python)}",
        kubectl,
        tmp_path,
    )
    kubectl("apply", "--server-side", "-f", str(FOLDER / "rbac.yaml"))
    kubectl("create", "clusterrolebinding", NAME, f"--clusterrole={NAME}", f"--serviceaccount=default:{NAME}")
    token = await service_account(client, "default", NAME)

    def deployment() -> dict[str, Any]:
        return dict(kubectl.read("deployment", "sample", "-n", "default"))

    async def reason() -> str:
        status = kubectl.read("memcached", "sample", "-n", "default").get("status", {})
        return str(status["conditions"][0]["reason"]) if status.get("conditions") else ""

    async def waits_for_the_last_version() -> bool:
        image = deployment()["spec"]["template"]["spec"]["containers"][0]["image"]
        return "9.9.9" in image and await reason() == "RollingOut"

    async with operating(kubectl, token, tmp_path):
        output = await shell(USE, kubectl, tmp_path)
        assert "spec.version" in output, "the schema rejects the wrong version"
        await eventually(waits_for_the_last_version, within=30, describe=(tmp_path / "log").read_text)
        assert deployment()["spec"]["replicas"] == 2
        progress = {"observedGeneration": deployment()["metadata"]["generation"], "replicas": 2}
        done = progress | {"updatedReplicas": 2, "readyReplicas": 2, "availableReplicas": 2}
        patch = json.dumps({"status": done})
        kubectl(
            "patch",
            "deployment",
            "sample",
            "-n",
            "default",
            "--subresource=status",
            "--type=merge",
            "-p",
            patch,
        )

        async def reconciled() -> bool:
            return await reason() == "Reconciled"

        await eventually(reconciled, within=30, describe=(tmp_path / "log").read_text)
    kubectl("delete", "memcached/sample", "deployment/sample", "-n", "default")
