"""The model of the API server keeps the real one's rules: the same operations come to the same."""

from typing import Any

import pytest

from pilothouse.kube import AlreadyExists, Cause, Client, Resource, WatchListUnsupported
from pilothouse.testing import ApiServer, ModelApi, eventually
from tests.api.contract import CRD, PARCELS, STORIES, Transcript
from tests.api.restarts import start_again
from tests.api.versions import ON_BOTH

pytestmark = ON_BOTH

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


@pytest.fixture
async def kind(client: Client) -> None:
    """The CRD is there and served."""
    try:
        await client.request("POST", CRDS, body=CRD)
    except AlreadyExists:
        return

    async def served() -> bool:
        return bool([page async for page in client.pages(PARCELS)])

    await eventually(served)


def not_too_heavy(resource: Resource[Any], new: dict[str, Any], old: dict[str, Any] | None) -> list[Cause]:
    """The CRD's bound, which the model does not read."""
    heavy = new.get("spec", {}).get("weight", 0) > 100
    return [Cause("spec.weight", "should be less than or equal to 100")] if heavy else []


@pytest.mark.parametrize("name", STORIES)
async def test_the_model_does_what_the_server_does(
    client: Client, api_server: ApiServer, kubernetes: str, namespace: str, kind: None, name: str
) -> None:
    model = ModelApi()
    model.server.validate = not_too_heavy

    async def forget() -> None:
        """Compact etcd under an API server that is down: what it has in memory would serve the past, too."""
        present = [page.resource_version async for page in client.pages(PARCELS)][-1]
        api_server.stop("kube-apiserver")
        api_server.compact(int(present))
        await start_again(api_server, client, PARCELS)

    async def forget_in_memory() -> None:
        model.forget()

    real = Transcript(client, namespace, forget)
    modelled = Transcript(model, namespace, forget_in_memory)
    try:
        await STORIES[name](real)
    except WatchListUnsupported:
        assert kubernetes == "oldest"
        pytest.skip("this Kubernetes lists in pages only")
    await STORIES[name](modelled)
    differences = [pair for pair in zip(modelled.lines, real.lines, strict=True) if pair[0] != pair[1]]
    assert not differences, "\n".join(f"model: {ours}\nreal:  {theirs}" for ours, theirs in differences)
