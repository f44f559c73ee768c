"""The operators of this repository. Each is an OLM package; all have the same version."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from devcluster import etcd_images
from devcluster.folders import CHECKOUT
from devcluster.kubectl import Kubectl
from devcluster.shell import ClusterError
from devcluster.target import Target
from etcd_operator.settings import EtcdSettings
from etcd_operator.types import ETCD_CLUSTER
from flights_operator.settings import FlightsSettings
from flights_operator.types import FLIGHT_TICKET
from pilothouse.api import Kind
from pilothouse.process import Settings

#: The image of all operators, without tag or digest.
IMAGE = "quay.io/pilothouse/pilothouse"
#: The namespace of the Subscriptions, the catalog and the operators in config/olm.
NAMESPACE = "pilothouse"
#: The default channel, named by OLM's convention. A second major version would get another channel.
CHANNEL = "stable"


class Companion(Protocol):
    """A process that runs beside an operator on this host."""

    @property
    def environment(self) -> Mapping[str, str]:
        """The operator's environment variables for this process."""

    def keep(self) -> None:
        """Restarts the process if it has ended."""


Companions: TypeAlias = Callable[[Kubectl], AbstractContextManager[Companion | None]]


def _nothing(kubectl: Kubectl) -> AbstractContextManager[Companion | None]:
    return nullcontext()


#: Makes the images that an operator runs available to a cluster: the operator's variable -> reference.
RelatedImages: TypeAlias = Callable[[Target], Mapping[str, str]]


def _no_images(target: Target) -> Mapping[str, str]:
    return {}


def _etcd_images(target: Target) -> Mapping[str, str]:
    return _etcd_variables(etcd_images.ensure(target))


def _etcd_variables(references: Mapping[str, str]) -> Mapping[str, str]:
    return {
        f"RELATED_IMAGE_ETCD_{version.replace('.', '_')}": reference
        for version, reference in references.items()
    }


def _airline(kubectl: Kubectl) -> AbstractContextManager[Companion | None]:
    from release.host_airline import host_airline  # which imports this module

    return host_airline(kubectl)


@dataclass(frozen=True)
class Package:
    """One operator as an OLM package.

    Attributes:
        name: The name of the package. The names of its versions begin with it.
        folder: The folder in config/. The name of the Python package begins with it.
        kinds: The kinds that the operator owns.
        settings: The settings classes of the operator.
        beside: Starts what the operator needs beside it on this host.
        related: Makes the images that the operator runs available to a cluster.
        official: The official images that the operator runs, by tag: the operator's variable -> reference.
    """

    name: str
    folder: str
    kinds: Sequence[Kind[Any]]
    settings: Sequence[type] = ()
    beside: Companions = _nothing
    related: RelatedImages = _no_images
    official: Mapping[str, str] = field(default_factory=dict)

    @property
    def version(self) -> str:
        """The version, which is that of this repository."""
        return version()

    @property
    def module(self) -> str:
        """The Python module that runs the operator."""
        return f"{self.folder}_operator"

    @property
    def source(self) -> Path:
        """The folder that contains the operator's Python package."""
        return CHECKOUT / "operator"

    @property
    def python_path(self) -> str:
        """PYTHONPATH for the operator on this host: the framework and the operator's own source."""
        return os.pathsep.join(dict.fromkeys((str(CHECKOUT / "operator"), str(self.source))))

    @property
    def argument(self) -> str:
        """The argument of `inv run` for this operator."""
        return self.folder

    @property
    def installation(self) -> str:
        """The command that installs the operator in a cluster."""
        return "./inv demo"

    @property
    def config(self) -> Path:
        """The folder with the operator's kustomizations."""
        return CHECKOUT / "config" / self.folder

    @property
    def bundle(self) -> Path:
        """The folder of the committed bundle."""
        return CHECKOUT / "bundle" / self.name

    @property
    def catalog(self) -> Path:
        """The package's folder in the committed catalog."""
        return CHECKOUT / "catalog" / self.name

    @property
    def bundle_image(self) -> str:
        """The bundle's image, without tag or digest."""
        return f"{IMAGE.rpartition('/')[0]}/{self.name}-bundle"

    @property
    def selector(self) -> str:
        """The label selector of the operator's Deployment and pods."""
        return f"app.kubernetes.io/name={self.name}"

    @property
    def csv_name(self) -> str:
        """The name of the ClusterServiceVersion of the current version."""
        return self.csv_of(self.version)

    def csv_of(self, number: str) -> str:
        """Returns the name of the ClusterServiceVersion of a version."""
        return f"{self.name}.v{number}"

    @property
    def csv_base(self) -> Path:
        """The hand-written part of the ClusterServiceVersion."""
        return self.config / "manifests" / "bases" / f"{self.name}.clusterserviceversion.yaml"


PACKAGES: Mapping[str, Package] = {
    package.name: package
    for package in (
        Package(
            "pilothouse-etcd",
            "etcd",
            (ETCD_CLUSTER,),
            (EtcdSettings, Settings),
            related=_etcd_images,
            official=_etcd_variables(etcd_images.official()),
        ),
        Package("pilothouse-flights", "flights", (FLIGHT_TICKET,), (FlightsSettings, Settings), _airline),
    )
}


def find(name: str) -> Package:
    """Returns the package with a name.

    Raises:
        ClusterError: There is no such package.
    """
    if name not in PACKAGES:
        raise ClusterError(f"there is no package '{name}'. The packages are: {', '.join(PACKAGES)}")
    return PACKAGES[name]


def version() -> str:
    """Returns the version of the project, from pyproject.toml."""
    text = (CHECKOUT / "pyproject.toml").read_text()
    return str(tomllib.loads(text)["project"]["version"])
