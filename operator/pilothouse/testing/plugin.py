"""Fixtures for pytest: `pytest_plugins = ["pilothouse.testing.plugin"]` in the topmost conftest.py.

- `virtual_time`: the test runs on a loop whose clock jumps to the next timer when every task waits;
- `model`: an API server in memory;
- `api_server`: a real kube-apiserver and etcd, one pair for the whole run, found by KUBEBUILDER_ASSETS;
- `client`: a client of it with all permissions;
- `namespace`: a new namespace on it for each test.

It needs pytest-asyncio 1.4 or newer.
"""

import asyncio
import random
import re
import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Mapping

import pytest
import pytest_asyncio

from pilothouse.kube import Client
from pilothouse.telemetry import forget_defects
from pilothouse.testing.api_server import ApiServer
from pilothouse.testing.model import ModelApi
from pilothouse.testing.virtual_time import VirtualTimeLoop


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Function
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """A test that asks for `virtual_time` runs on such a loop, all others on the usual one."""
    if "virtual_time" in item.fixturenames:
        return {"virtual": VirtualTimeLoop}
    return {"real": asyncio.new_event_loop}


@pytest.fixture(autouse=True)
def defects_forgotten() -> None:
    """Each test logs the traceback of a defect again, as a new process does."""
    forget_defects()


@pytest_asyncio.fixture
async def virtual_time() -> AsyncIterator[VirtualTimeLoop]:
    """The test's loop; its clock jumps to the next timer when every task waits.

    `random` begins at the same seed in each test, so that what is jittered happens in the same order, too.

    For a whole module: `pytestmark = pytest.mark.usefixtures("virtual_time")`.
    """
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)  # noqa: S101 - the hook above has seen to it
    state = random.getstate()
    random.seed(0)
    yield loop
    random.setstate(state)


@pytest_asyncio.fixture
async def model() -> ModelApi:
    """An API server in memory, empty."""
    return ModelApi()


@pytest.fixture(scope="session")
def api_server() -> Iterator[ApiServer]:
    """The real API server; a test that stops it must start it again."""
    with ApiServer() as server:
        yield server


@pytest_asyncio.fixture
async def client(api_server: ApiServer) -> AsyncIterator[Client]:
    """A client of the API server with all permissions."""
    async with Client(api_server.config(), user_agent="pilothouse-tests/1") as client:
        yield client


@pytest_asyncio.fixture
async def namespace(client: Client, request: pytest.FixtureRequest) -> str:
    """A new namespace, named after the test. It stays until the server goes."""
    words = re.sub("[^a-z0-9]+", "-", request.node.name.removeprefix("test_").lower()).strip("-")
    name = f"{words[:50].strip('-')}-{secrets.token_hex(3)}"
    await client.request("POST", "/api/v1/namespaces", body={"metadata": {"name": name}})
    return name
