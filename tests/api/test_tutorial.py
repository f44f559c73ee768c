"""The tutorial does what it says: its program is run as a reader would, and every piece shown is from it."""

import asyncio
import json
import os
import re
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from pilothouse.kube import Client, ObjectKey, ObjectMeta, PatchType, Resource
from pilothouse.testing import ApiServer, eventually
from tests.api.widgets import install

FOLDER = Path(__file__).parents[2] / "docs" / "tutorial"


class Hello(msgspec.Struct, frozen=True):
    metadata: ObjectMeta
    status: dict[str, list[dict[str, object]] | int] = {}

    @property
    def message(self) -> object:
        conditions = self.status.get("conditions")
        return conditions[0]["message"] if isinstance(conditions, list) else ""


class ConfigMap(msgspec.Struct, frozen=True):
    metadata: ObjectMeta
    data: dict[str, str] = {}


HELLOS = Resource("tutorial.pilothouse.dev", "v1", "Hello", "hellos", Hello)
CONFIG_MAPS = Resource("", "v1", "ConfigMap", "configmaps", ConfigMap)


@pytest.fixture
async def operator(api_server: ApiServer, client: Client, namespace: str) -> AsyncIterator[Process]:
    """The tutorial's program, its CRD installed as the tutorial says."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(FOLDER.parents[1] / "operator"),
        "KUBECONFIG": str(api_server.kubeconfig()),
        "WATCH_NAMESPACE": namespace,
        "HEALTH_ADDRESS": f"127.0.0.1:{port}",
    }
    print_crd = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "pilothouse.api", "hello:HELLO", env=environment, cwd=FOLDER, stdout=PIPE
    )
    printed, _ = await print_crd.communicate()
    await install(client, json.loads(printed))
    process = await asyncio.create_subprocess_exec(sys.executable, "hello.py", env=environment, cwd=FOLDER)
    yield process
    process.kill()
    await process.wait()


async def test_the_operator_greets_puts_right_and_says_no(
    operator: Process, client: Client, namespace: str
) -> None:
    key = ObjectKey(namespace, "first")
    hello = {
        "apiVersion": HELLOS.api_version,
        "kind": "Hello",
        "metadata": {"name": "first"},
        "spec": {"who": "Mumbai"},
    }

    async def greets_mumbai() -> bool:
        return (await client.get(CONFIG_MAPS, key)).data["greeting"] == "Hello, Mumbai!"

    async def says_what_is_missing() -> bool:
        return (await client.get(HELLOS, key)).message == "spec.who is empty: name somebody: world"

    await client.create(HELLOS, hello, namespace=namespace)
    await eventually(greets_mumbai)
    await client.patch(CONFIG_MAPS, key, {"data": {"greeting": "bye"}}, type=PatchType.MERGE)
    await eventually(greets_mumbai)
    await client.patch(HELLOS, key, {"spec": {"who": " "}}, type=PatchType.MERGE)
    await eventually(says_what_is_missing)
    assert operator.returncode is None


def test_what_the_tutorial_shows_is_in_its_program() -> None:
    program = (FOLDER / "hello.py").read_text()
    pieces = re.findall(r"```python\n(.*?)\n```", (FOLDER / "README.md").read_text(), re.DOTALL)
    assert pieces
    assert [piece for piece in pieces if piece not in program] == []
    assert len(program.splitlines()) <= 61
