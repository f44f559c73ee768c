"""The Lease has connections of its own, so that requests that hang do not delay its renewal."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from pilothouse.testing import eventually

ROOT = Path(__file__).parents[3]
# More objects and workers than a client has connections.
TICKETS = 40
CONNECTIONS = 32


class HangingServer:
    """An API server that answers requests for Leases, lists tickets, and never answers writes of tickets."""

    def __init__(self) -> None:
        self.hanging = 0
        self.renewals = 0
        self._closing = asyncio.Event()
        application = web.Application()
        leases = "/apis/coordination.k8s.io/v1/namespaces/operators/leases"
        application.router.add_get(leases + "/tickets", self._no_lease)
        application.router.add_post(leases, self._take)
        application.router.add_patch(leases + "/tickets", self._take)
        application.router.add_get("/apis/tests.dev/v1/tickets", self._list)
        application.router.add_route("*", "/{tail:.*}", self._hang)
        self.server = TestServer(application)

    async def _no_lease(self, request: web.Request) -> web.Response:
        return web.json_response({"kind": "Status", "code": 404, "reason": "NotFound"}, status=404)

    async def _take(self, request: web.Request) -> web.Response:
        self.renewals += 1
        body = await request.json()
        metadata = {"name": "tickets", "namespace": "operators", "resourceVersion": str(self.renewals)}
        return web.json_response({"metadata": metadata, "spec": body["spec"]})

    async def _list(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for n in range(TICKETS):
            metadata = {"name": f"t{n}", "namespace": "default", "uid": f"u{n}", "resourceVersion": "1"}
            event = {"type": "ADDED", "object": {"metadata": metadata, "spec": {"seats": 1}}}
            await response.write(json.dumps(event).encode() + b"\n")
        listed = {"resourceVersion": "1", "annotations": {"k8s.io/initial-events-end": "true"}}
        end = {"type": "BOOKMARK", "object": {"metadata": listed}}
        await response.write(json.dumps(end).encode() + b"\n")
        await self._closing.wait()
        return response

    async def _hang(self, request: web.Request) -> web.Response:
        self.hanging += 1
        await self._closing.wait()
        return web.Response()

    def close(self) -> None:
        self._closing.set()


@pytest.fixture
async def api() -> AsyncIterator[HangingServer]:
    hanging = HangingServer()
    async with hanging.server:
        yield hanging
        hanging.close()


async def test_requests_that_hang_on_all_connections_do_not_cost_the_lease(
    api: HangingServer, tmp_path: Path
) -> None:
    kubeconfig = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": {"server": str(api.server.make_url("/")).rstrip("/")}}],
        "users": [{"name": "test", "user": {}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        "current-context": "test",
    }
    (tmp_path / "kubeconfig").write_text(json.dumps(kubeconfig))
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": f"{ROOT / 'operator'}:{ROOT}",
        "KUBECONFIG": str(tmp_path / "kubeconfig"),
        "POD_NAMESPACE": "operators",
        "LEADER_ELECT": "true",
        "LEASE_DURATION": "3",
        "RENEW_DEADLINE": "2",
        "RETRY_PERIOD": "0.2",
        "MAX_CONCURRENT_RECONCILES": str(TICKETS),
        "HEALTH_ADDRESS": "127.0.0.1:0",
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.api.ticket_operator", env=environment, cwd=ROOT
    )
    try:
        await eventually(lambda: api.hanging >= CONNECTIONS)
        before = api.renewals
        await eventually(lambda: api.renewals > before + 3)
        assert process.returncode is None
    finally:
        process.kill()
        await process.wait()
