"""What is released: the operators, each an OLM package of its own, and the version of all."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from devcluster.folders import CHECKOUT
from devcluster.kubectl import Kubectl
from devcluster.shell import ClusterError
from flights_operator.settings import FlightsSettings
from flights_operator.types import FLIGHT_TICKET
from pilothouse.api import Kind
from pilothouse.process import Settings

#: The operators' image, without tag or digest. One for all operators.
IMAGE = "quay.io/pilothouse/pilothouse"
#: Where config/olm puts the Subscription, the catalog and so the operators.
NAMESPACE = "pilothouse"
#: The channel that everybody takes, by OLM's naming convention; a second major version would get another.
CHANNEL = "stable"


class Companion(Protocol):
    """What runs beside an operator on this host."""

    @property
    def environment(self) -> Mapping[str, str]:
        """What the operator's environment says of it."""

    def keep(self) -> None:
        """Starts it again if it has ended."""


Companions: TypeAlias = Callable[[Kubectl], AbstractContextManager[Companion | None]]


def _nothing(kubectl: Kubectl) -> AbstractContextManager[Companion | None]:
    return nullcontext()


def _airline(kubectl: Kubectl) -> AbstractContextManager[Companion | None]:
    from release.host_airline import host_airline  # which imports this module

    return host_airline(kubectl)


@dataclass(frozen=True)
class Package:
    """One operator as OLM sees it.

    Attributes:
        name: The package's name, and the start of its versions' names.
        folder: Its folder in config/, and the start of its Python package's name.
        kinds: The kinds that it owns.
        settings: What its environment may say, by class.
        beside: Starts what it needs beside it when it runs on this host.
    """

    name: str
    folder: str
    kinds: Sequence[Kind[Any]]
    settings: Sequence[type] = ()
    beside: Companions = _nothing

    @property
    def version(self) -> str:
        """Its version: that of this repository."""
        return version()

    @property
    def module(self) -> str:
        """The Python module that runs as its process."""
        return f"{self.folder}_operator"

    @property
    def source(self) -> Path:
        """The folder that its Python package lies in."""
        return CHECKOUT / "operator"

    @property
    def python_path(self) -> str:
        """PYTHONPATH for its process on this host: the runtime and its own source."""
        return os.pathsep.join(dict.fromkeys((str(CHECKOUT / "operator"), str(self.source))))

    @property
    def argument(self) -> str:
        """What names it to `inv run`."""
        return self.folder

    @property
    def installation(self) -> str:
        """The command that installs it in a cluster."""
        return "./inv demo"

    @property
    def config(self) -> Path:
        """Its kustomize rooms."""
        return CHECKOUT / "config" / self.folder

    @property
    def bundle(self) -> Path:
        """Its committed bundle."""
        return CHECKOUT / "bundle" / self.name

    @property
    def catalog(self) -> Path:
        """Its part of the committed catalog."""
        return CHECKOUT / "catalog" / self.name

    @property
    def bundle_image(self) -> str:
        """The bundle's image, without tag or digest."""
        return f"{IMAGE.rpartition('/')[0]}/{self.name}-bundle"

    @property
    def selector(self) -> str:
        """The label that its Deployment and its pods carry."""
        return f"app.kubernetes.io/name={self.name}"

    @property
    def csv_name(self) -> str:
        """The name of the present version's ClusterServiceVersion."""
        return f"{self.name}.v{self.version}"

    @property
    def csv_base(self) -> Path:
        """The hand-written words of the ClusterServiceVersion."""
        return self.config / "manifests" / "bases" / f"{self.name}.clusterserviceversion.yaml"


PACKAGES: Mapping[str, Package] = {
    package.name: package
    for package in (
        Package("pilothouse-flights", "flights", (FLIGHT_TICKET,), (FlightsSettings, Settings), _airline),
    )
}


def find(name: str) -> Package:
    """The package of a name.

    Raises:
        ClusterError: there is none of it.
    """
    if name not in PACKAGES:
        raise ClusterError(f"there is no package '{name}'; there are: {', '.join(PACKAGES)}")
    return PACKAGES[name]


def version() -> str:
    """The version of the project, from pyproject.toml."""
    text = (CHECKOUT / "pyproject.toml").read_text()
    return str(tomllib.loads(text)["project"]["version"])
