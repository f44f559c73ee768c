"""Tests against a real kube-apiserver and etcd, one pair for the whole run. No node, no controllers."""

import re
import secrets
from collections.abc import AsyncIterator, Iterator

import pytest

from pilothouse.kube import Client
from tests.api_server import ApiServer


@pytest.fixture(scope="session")
def api_server() -> Iterator[ApiServer]:
    """The server; a test that stops it must start it again."""
    with ApiServer() as server:
        yield server


@pytest.fixture
async def client(api_server: ApiServer) -> AsyncIterator[Client]:
    """A client with all permissions."""
    async with Client(api_server.config(), user_agent="pilothouse-tests/1") as client:
        yield client


@pytest.fixture
async def namespace(client: Client, request: pytest.FixtureRequest) -> str:
    """A new namespace, named after the test. It stays until the server goes."""
    words = re.sub("[^a-z0-9]+", "-", request.node.name.removeprefix("test_").lower()).strip("-")
    name = f"{words[:50].strip('-')}-{secrets.token_hex(3)}"
    await client.request("POST", "/api/v1/namespaces", body={"metadata": {"name": name}})
    return name
