"""Tests against a real kube-apiserver and etcd, one pair for the whole run. No node, no controllers.

Modules with `pytestmark = ON_BOTH` (see `versions`) run on the newest and on the oldest Kubernetes claimed.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from devcluster import toolchain
from pilothouse.testing.api_server import ASSETS, ApiServer
from tests.projects import project

__all__ = ["project"]


@pytest.fixture(scope="session", autouse=True)
def assets(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The pinned etcd and kube-apiserver, where KUBEBUILDER_ASSETS does not name others."""
    if ASSETS in os.environ:
        return
    os.environ[ASSETS] = str(_assets(tmp_path_factory, "kube-apiserver"))


@pytest.fixture(scope="session")
def oldest_api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """The oldest Kubernetes that the operators claim to run on (minKubeVersion)."""
    with ApiServer(_assets(tmp_path_factory, "kube-apiserver-oldest")) as server:
        yield server


@pytest.fixture
def kubernetes(request: pytest.FixtureRequest) -> str:
    """Which Kubernetes a test runs on: `newest` or, for those that ask, `oldest`."""
    chosen: str = getattr(request, "param", "newest")
    return chosen


@pytest.fixture
def api_server(request: pytest.FixtureRequest, kubernetes: str, api_server: ApiServer) -> ApiServer:
    """The API server of the chosen Kubernetes."""
    if kubernetes == "newest":
        return api_server
    oldest: ApiServer = request.getfixturevalue("oldest_api_server")
    return oldest


def _assets(tmp_path_factory: pytest.TempPathFactory, server: str) -> Path:
    folder = tmp_path_factory.mktemp("assets")
    (folder / "etcd").symlink_to(toolchain.binary("etcd"))
    (folder / "kube-apiserver").symlink_to(toolchain.binary(server))
    return folder
