"""Runs the commands of the tutorial, and checks that its code is part of its program."""

import asyncio
import os
import re
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

from devcluster import toolchain
from pilothouse.kube import Client, NotFound, ObjectKey, ObjectMeta, Resource
from pilothouse.testing import ApiServer, eventually

CHECKOUT = Path(__file__).parents[2]
FOLDER = CHECKOUT / "docs" / "tutorial"
PAGE = (FOLDER / "README.md").read_text()


class Hello(msgspec.Struct, frozen=True):
    metadata: ObjectMeta


class ConfigMap(msgspec.Struct, frozen=True):
    metadata: ObjectMeta
    data: dict[str, str] = {}


HELLOS = Resource("tutorial.pilothouse.dev", "v1", "Hello", "hellos", Hello)
CONFIG_MAPS = Resource("", "v1", "ConfigMap", "configmaps", ConfigMap)
KEY = ObjectKey("default", "first")
OTHER = ObjectKey("default", "second")


class Command(NamedTuple):
    """A command of the page, and the output that the page shows (empty if it shows none)."""

    text: str
    shown: str

    @property
    def code(self) -> int:
        """The exit code that the page states."""
        return 2 if "--check" in self.text else 0


def commands(block: str) -> list[Command]:
    """Returns the commands of a console block. A command includes its here-document."""
    found = re.findall(r"^\$ ([^\n]*<<END\n.*?^END|.*?)\n(.*?)(?=^\$ |\Z)", block, re.MULTILINE | re.DOTALL)
    return [Command(text, shown.strip()) for text, shown in found]


BLOCKS = [commands(block) for block in re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)]
SETUP, INSTALL, RUN, ASK, MEDDLE, TAKE, GIVE, STOPPED, DELETE = BLOCKS


class Reader(NamedTuple):
    """A reader who runs each command of the tutorial in a new shell, with the page's setup."""

    environment: dict[str, str]

    async def starts(self, command: Command) -> Process:
        """Starts a command in its own process group."""
        script = "\n".join(["shopt -s expand_aliases", *self._setup(), command.text])
        return await asyncio.create_subprocess_exec(
            "bash", "-c", script,
            env=self.environment, cwd=CHECKOUT, stdout=PIPE, start_new_session=True,
        )  # fmt: skip

    def _setup(self) -> list[str]:
        """Returns the page's setup, with the kubeconfig and the Python of this test."""
        ours = {
            "export KUBECONFIG=...": f"export KUBECONFIG={self.environment['KUBECONFIG']}",
            "alias python=../../.venv/bin/python": f"alias python={sys.executable}",
        }
        texts = [command.text for command in SETUP]
        assert ours.keys() <= set(texts)
        return [ours.get(text, text) for text in texts]

    async def types(self, block: list[Command]) -> list[str]:
        """Runs the commands of a block and returns their output.

        A command whose output the page shows only reads. It is repeated until it prints that output.
        """
        return [await self._runs(command) for command in block]

    async def _runs(self, command: Command) -> str:
        if command.shown:
            assert command.text.startswith("kubectl get "), (
                f"{command.text!r} is not a kubectl get: do not show its output in the page"
            )
            return await eventually(lambda: self._prints_what_is_shown(command), within=30, every=0.2)
        code, printed = await self._ends(command)
        assert code == command.code, (command.text, printed)
        return printed

    async def _prints_what_is_shown(self, command: Command) -> str:
        code, printed = await self._ends(command)
        assert (code, _words(printed)) == (command.code, _words(command.shown))
        return printed

    async def _ends(self, command: Command) -> tuple[int | None, str]:
        process = await self.starts(command)
        printed, _ = await process.communicate()
        return process.returncode, printed.decode()


def _words(table: str) -> list[list[str]]:
    """Returns the words of a table, without column widths and ages, which may differ."""
    return [re.sub(r"\b\d+s$", "AGE", line.rstrip()).split() for line in table.strip().splitlines()]


@pytest.fixture
async def reader(api_server: ApiServer, client: Client, tmp_path: Path) -> AsyncIterator[Reader]:
    """A reader who has installed the CRD."""
    (tmp_path / "kubectl").symlink_to(toolchain.binary("kubectl"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    reader = Reader(
        {
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "HOME": str(tmp_path),
            "KUBECONFIG": str(api_server.kubeconfig()),
            "HEALTH_ADDRESS": f"127.0.0.1:{port}",
        }
    )
    await reader.types(INSTALL)
    await eventually(lambda: client.request("GET", HELLOS.path()), within=30)
    yield reader
    # The API server of the tests has no garbage collector.
    for key in (KEY, OTHER):
        await client.delete(CONFIG_MAPS, key)


@asynccontextmanager
async def operating(reader: Reader) -> AsyncIterator[Process]:
    """Runs the tutorial's program, and kills it with SIGKILL at the end."""
    [command] = RUN
    process = await reader.starts(command)
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def test_the_commands_of_the_tutorial(reader: Reader, client: Client) -> None:
    async def greeting() -> str:
        return (await client.get(CONFIG_MAPS, KEY)).data["greeting"]

    async def greets_pune() -> bool:
        return await greeting() == "Hello, Pune!"

    async with operating(reader) as operator:
        await reader.types(ASK)
        await reader.types(MEDDLE)
        await reader.types(TAKE)
        await reader.types(GIVE)
        assert operator.returncode is None
    explained, _, checked = await reader.types(STOPPED)
    assert "the ConfigMap greets" in explained
    assert "Hello, Pune!" in checked
    assert await greeting() == "Hello, Mumbai!"
    async with operating(reader):
        await eventually(greets_pune, within=30)
    # In a cluster, the garbage collector deletes the ConfigMap because of its owner.
    (owner,) = (await client.get(CONFIG_MAPS, KEY)).metadata.owner_references
    assert owner.uid == (await client.get(HELLOS, KEY)).metadata.uid
    await reader.types(DELETE)
    for key in (KEY, OTHER):
        with pytest.raises(NotFound):
            await client.get(HELLOS, key)


def test_the_code_of_the_tutorial_is_in_its_program() -> None:
    program = (FOLDER / "hello.py").read_text()
    pieces = re.findall(r"```python\n(.*?)\n```", PAGE, re.DOTALL)
    assert pieces
    assert [piece for piece in pieces if piece not in program] == []
    assert len([line for line in program.splitlines() if line]) <= 40
