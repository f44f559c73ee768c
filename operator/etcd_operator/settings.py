"""The settings of the etcd operator, read from environment variables."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from etcd_operator.shape import image_of
from etcd_operator.types import DEFAULT_REPOSITORY, GROUP, EtcdCluster, EtcdClusterSpec
from pilothouse import Environment

_IMAGE = "RELATED_IMAGE_ETCD_"
SCOPE = f"{GROUP}/scope"
"""The annotation of the coreos operator that leaves a cluster to an operator for all namespaces."""


@dataclass(frozen=True)
class EtcdSettings:
    """The settings. Each attribute names its variable. Durations are in seconds, or have units ("10m")."""

    poll: float = 15.0
    """ETCD_POLL_PERIOD: How often the members of a settled cluster are asked for their state. Changes of
    their pods cause an earlier check."""
    # RELATED_IMAGE_ETCD_3_6_14: The image of etcd 3.6.14 for clusters without `spec.repository`, for example
    # with a digest. Each version has its own variable. OLM sets them, so they have no flags.
    images: Mapping[str, str] = field(default_factory=dict)
    # WATCH_NAMESPACE is a setting of every operator. Here it also decides which clusters are served.
    namespaces: tuple[str, ...] = ()

    @classmethod
    def load(cls, variables: Mapping[str, str]) -> "EtcdSettings":
        """Reads the settings from environment variables.

        Args:
            variables: The environment variables, for example `os.environ`.

        Raises:
            SettingsError: A variable has a wrong value.
        """
        env = Environment(variables)
        return cls(
            poll=env.seconds("ETCD_POLL_PERIOD", cls.poll, minimum=1.0),
            images={
                name.removeprefix(_IMAGE).replace("_", "."): image
                for name, image in variables.items()
                if name.startswith(_IMAGE) and image
            },
            namespaces=env.namespaces("WATCH_NAMESPACE"),
        )

    def serves(self, cluster: EtcdCluster) -> bool:
        """Returns whether this operator serves a cluster.

        In the coreos operator, the annotation `scope` with the value `clusterwide` leaves a cluster to an
        operator for all namespaces. Here an operator for all namespaces serves every cluster.
        """
        return not self.namespaces or cluster.metadata.annotations.get(SCOPE) != "clusterwide"

    def image(self, spec: EtcdClusterSpec, version: str) -> str:
        """Returns the image of a version of etcd.

        Args:
            spec: The valid spec.
            version: The version, without a leading "v".
        """
        if spec.repository in ("", DEFAULT_REPOSITORY) and version in self.images:
            return self.images[version]
        return image_of(spec, version)
