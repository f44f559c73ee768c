"""The model of the API server keeps the real one's rules: the same operations come to the same."""

from typing import Any

import pytest

from pilothouse.kube import AlreadyExists, Cause, Client, Resource
from pilothouse.testing import ModelApi, eventually
from tests.api.contract import CRD, PARCELS, STORIES, Transcript
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
    client: Client, namespace: str, kind: None, name: str
) -> None:
    model = ModelApi()
    model.server.validate = not_too_heavy
    real, modelled = Transcript(client, namespace), Transcript(model, namespace)
    await STORIES[name](real)
    await STORIES[name](modelled)
    differences = [pair for pair in zip(modelled.lines, real.lines, strict=True) if pair[0] != pair[1]]
    assert not differences, "\n".join(f"model: {ours}\nreal:  {theirs}" for ours, theirs in differences)
