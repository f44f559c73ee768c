"""A CustomResourceDefinition over 262,144 bytes installs by the documented command."""

import re
from typing import Annotated, Any

import msgspec
import pytest

from devcluster import toolchain
from devcluster.folders import CHECKOUT
from devcluster.kubectl import Kubectl
from devcluster.shell import CommandError
from pilothouse.api import Kind, field
from pilothouse.api.crd import ANNOTATION_BYTES, crd, size_note
from pilothouse.kube import Client, ObjectKey, ObjectMeta, PartialObjectMetadata, Resource
from pilothouse.packaging.documents import dump
from pilothouse.testing import ApiServer, eventually
from tests.api.versions import ON_BOTH

pytestmark = ON_BOTH

# `$ python -m pilothouse crd hello:HELLO | kubectl apply --server-side -f -`
DOCUMENTED = re.compile(r"pilothouse crd \S+ \| kubectl (.*)$", re.MULTILINE)


def large() -> Kind[Any]:
    """A kind of 700 described fields."""
    text = "What it is for, at length. " * 20
    spec = msgspec.defstruct(
        "LargeSpec", [(f"field{n}", Annotated[str, field(text)], "") for n in range(700)], frozen=True
    )
    view: Any = msgspec.defstruct(
        "Large",
        [
            ("metadata", ObjectMeta),
            ("spec", Annotated[spec, field("The spec.")]),
            ("status", Annotated[dict[str, str], field("The status.")]),
        ],
        frozen=True,
    )
    return Kind(view, group="large.tests.dev", version="v1", description="A large kind.")


async def test_it_installs_with_server_side_apply_only(
    api_server: ApiServer, client: Client, namespace: str
) -> None:
    manifest = crd(large())
    assert len(msgspec.json.encode(manifest)) > ANNOTATION_BYTES
    assert "kubectl apply --server-side" in size_note(manifest)
    kubectl = Kubectl(toolchain.binary("kubectl"), api_server.kubeconfig())
    found = DOCUMENTED.search((CHECKOUT / "docs" / "tutorial" / "README.md").read_text())
    assert found
    try:
        with pytest.raises(CommandError, match="may not be more than 262144 bytes"):
            kubectl("apply", "-f", "-", stdin=dump(manifest))
        kubectl(*found[1].split(), stdin=dump(manifest))
        resource = Resource("large.tests.dev", "v1", "Large", "larges", PartialObjectMetadata)
        await eventually(lambda: client.request("GET", resource.path(namespace)), within=60)
    finally:
        crds = Resource(
            "apiextensions.k8s.io",
            "v1",
            "CustomResourceDefinition",
            "customresourcedefinitions",
            PartialObjectMetadata,
            namespaced=False,
        )
        await client.delete(crds, ObjectKey("", "larges.large.tests.dev"))
