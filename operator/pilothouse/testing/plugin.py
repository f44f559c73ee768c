"""Fixtures for pytest: put `pytest_plugins = ["pilothouse.testing.plugin"]` in the topmost conftest.py.

- `virtual_time`: runs the test on a loop whose clock jumps to the next timer when all tasks wait;
- `model`: a model of the API server in memory;
- `api_server`: a real kube-apiserver with etcd, started once per test session, found by KUBEBUILDER_ASSETS;
- `client`: a client of the real API server with all permissions;
- `namespace`: a new namespace on the real API server for each test.

Needs pytest-asyncio 1.4 or newer.
"""

import asyncio
import random
import re
import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Mapping

import pytest
import pytest_asyncio

from pilothouse.kube import Client
from pilothouse.telemetry import forget_defects, forget_secrets
from pilothouse.testing.api_server import ApiServer
from pilothouse.testing.model import ModelApi
from pilothouse.testing.virtual_time import VirtualTimeLoop


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Function
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Returns the loop of a test: the virtual one if it uses `virtual_time`, otherwise a normal one."""
    if "virtual_time" in item.fixturenames:
        return {"virtual": VirtualTimeLoop}
    return {"real": asyncio.new_event_loop}


@pytest.fixture(autouse=True)
def telemetry_forgotten() -> None:
    """Lets each test log tracebacks again and without the secrets of earlier tests, as a new process does."""
    forget_defects()
    forget_secrets()


@pytest_asyncio.fixture
async def virtual_time() -> AsyncIterator[VirtualTimeLoop]:
    """The loop of the test. Its clock jumps to the next timer when all tasks wait.

    `random` has the same seed in each test, so that jitter is the same as well.

    For a whole module: `pytestmark = pytest.mark.usefixtures("virtual_time")`.
    """
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)  # noqa: S101 - ensured by the hook above
    state = random.getstate()
    random.seed(0)
    yield loop
    random.setstate(state)


@pytest_asyncio.fixture
async def model() -> ModelApi:
    """An empty model of the API server."""
    return ModelApi()


@pytest.fixture(scope="session")
def api_server() -> Iterator[ApiServer]:
    """The real API server. A test that stops it must start it again."""
    with ApiServer() as server:
        yield server


@pytest_asyncio.fixture
async def client(api_server: ApiServer) -> AsyncIterator[Client]:
    """A client of the real API server with all permissions."""
    async with Client(api_server.config(), user_agent="pilothouse-tests/1") as client:
        yield client


@pytest_asyncio.fixture
async def namespace(client: Client, request: pytest.FixtureRequest) -> str:
    """A new namespace, named after the test. It is not deleted before the server is."""
    words = re.sub("[^a-z0-9]+", "-", request.node.name.removeprefix("test_").lower()).strip("-")
    name = f"{words[:50].strip('-')}-{secrets.token_hex(3)}"
    await client.request("POST", "/api/v1/namespaces", body={"metadata": {"name": name}})
    return name
