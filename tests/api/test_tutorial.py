"""The tutorial does what it says: its program is run as a reader would, and every piece shown is from it."""

import asyncio
import json
import os
import re
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

from pilothouse.kube import Client, NotFound, ObjectKey, ObjectMeta, PatchType, Resource
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


class Reader(NamedTuple):
    """Somebody who types what the tutorial shows."""

    environment: dict[str, str]

    async def starts(self, *arguments: str) -> Process:
        """Start Python in the tutorial's folder."""
        return await asyncio.create_subprocess_exec(
            sys.executable, *arguments, env=self.environment, cwd=FOLDER, stdout=PIPE
        )

    async def runs(self, *arguments: str) -> tuple[int | None, str]:
        """Run Python to its end, and return the exit code and what it printed."""
        process = await self.starts(*arguments)
        printed, _ = await process.communicate()
        return process.returncode, printed.decode()


@pytest.fixture
async def reader(api_server: ApiServer, client: Client, namespace: str) -> Reader:
    """A reader who has installed the CRD as the tutorial says."""
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
    reader = Reader(environment)
    _, printed = await reader.runs("-m", "pilothouse.api", "hello:HELLO")
    await install(client, json.loads(printed))
    return reader


@asynccontextmanager
async def operating(reader: Reader) -> AsyncIterator[Process]:
    """Run the tutorial's program, and end it by `kill -9`."""
    process = await reader.starts("hello.py")
    try:
        yield process
    finally:
        process.kill()
        await process.wait()


async def test_what_the_tutorial_does(reader: Reader, client: Client, namespace: str) -> None:
    key = ObjectKey(namespace, "first")
    hello = {
        "apiVersion": HELLOS.api_version,
        "kind": "Hello",
        "metadata": {"name": "first"},
        "spec": {"who": "Mumbai"},
    }

    async def greeting() -> str:
        return (await client.get(CONFIG_MAPS, key)).data["greeting"]

    async def greets_mumbai() -> bool:
        return await greeting() == "Hello, Mumbai!"

    async def greets_pune() -> bool:
        return await greeting() == "Hello, Pune!"

    async def says_what_is_missing() -> bool:
        return (await client.get(HELLOS, key)).message == "spec.who is empty: name somebody: world"

    async with operating(reader) as operator:
        await client.create(HELLOS, hello, namespace=namespace)
        await eventually(greets_mumbai)
        await client.patch(CONFIG_MAPS, key, {"data": {"greeting": "bye"}}, type=PatchType.MERGE)
        await eventually(greets_mumbai)
        await client.patch(HELLOS, key, {"spec": {"who": " "}}, type=PatchType.MERGE)
        await eventually(says_what_is_missing)
        assert operator.returncode is None
    code, told = await reader.runs("hello.py", "explain", "hello")
    assert code == 0
    assert "the ConfigMap greets" in told
    made = await client.patch(HELLOS, key, {"spec": {"who": "Pune"}}, type=PatchType.MERGE)
    code, told = await reader.runs("hello.py", "play", f"hello/{namespace}/first", "--check", "--diff")
    assert code == 2
    assert "Hello, Pune!" in told
    assert await greets_mumbai()
    async with operating(reader):
        await eventually(greets_pune)
    # No garbage collector runs here: the ConfigMap's owner is what has it collected.
    (owner,) = (await client.get(CONFIG_MAPS, key)).metadata.owner_references
    assert owner.uid == made.metadata.uid
    await client.delete(HELLOS, key)
    with pytest.raises(NotFound):
        await client.get(HELLOS, key)


def test_what_the_tutorial_shows_is_in_its_program() -> None:
    program = (FOLDER / "hello.py").read_text()
    pieces = re.findall(r"```python\n(.*?)\n```", (FOLDER / "README.md").read_text(), re.DOTALL)
    assert pieces
    assert [piece for piece in pieces if piece not in program] == []
    assert len(program.splitlines()) <= 60
