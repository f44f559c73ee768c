"""The entries of a kubeconfig file as typed structs, and what errors about an entry name."""

import base64
import binascii
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

from pilothouse.kube.errors import ConfigError


class _Entry(msgspec.Struct, rename="kebab"):
    """The base of the parts of a kubeconfig. client-go's api/v1 types are the reference."""


class Extension(_Entry):
    """Additional data that a tool keeps in a kubeconfig."""

    name: str = ""
    extension: Any = None


class Cluster(_Entry):
    """An API server's address, and how to verify its identity."""

    server: str = ""
    tls_server_name: str = ""
    insecure_skip_tls_verify: bool = False
    certificate_authority: str = ""
    certificate_authority_data: str = ""
    proxy_url: str = ""
    # Without effect, because responses are never compressed; see Transport.
    disable_compression: bool = False
    extensions: list[Extension] = []


class EnvVar(_Entry):
    """An environment variable for an exec plugin."""

    name: str = ""
    value: str = ""


class Exec(_Entry, rename="camel"):
    """A program that prints credentials."""

    api_version: str = ""
    command: str = ""
    args: list[str] = []
    env: list[EnvVar] = []
    install_hint: str = ""
    provide_cluster_info: bool = False
    interactive_mode: str = ""


class AuthProvider(_Entry):
    """The predecessor of exec plugins in client-go."""

    name: str = ""
    config: dict[str, Any] = {}


class User(_Entry):
    """The client's credentials."""

    client_certificate: str = ""
    client_certificate_data: str = ""
    client_key: str = ""
    client_key_data: str = ""
    token: str = ""
    token_file: str = msgspec.field(default="", name="tokenFile")
    impersonate: str = msgspec.field(default="", name="as")
    impersonate_uid: str = msgspec.field(default="", name="as-uid")
    impersonate_groups: list[str] = msgspec.field(default_factory=list, name="as-groups")
    impersonate_extra: dict[str, list[str]] = msgspec.field(default_factory=dict, name="as-user-extra")
    username: str = ""
    password: str = ""
    auth_provider: AuthProvider | None = None
    exec: Exec | None = None
    extensions: list[Extension] = []


class Context(_Entry):
    """A combination of a cluster, a user and a namespace."""

    cluster: str = ""
    user: str = ""
    namespace: str = ""
    extensions: list[Extension] = []


class NamedCluster(_Entry):
    """A cluster with its name."""

    name: str
    cluster: Cluster = msgspec.field(default_factory=Cluster)


class NamedUser(_Entry):
    """A user with its name."""

    name: str
    user: User = msgspec.field(default_factory=User)


class NamedContext(_Entry):
    """A context with its name."""

    name: str
    context: Context = msgspec.field(default_factory=Context)


class Kubeconfig(_Entry):
    """A kubeconfig file."""

    current_context: str = ""
    clusters: list[NamedCluster] = []
    users: list[NamedUser] = []
    contexts: list[NamedContext] = []


E = TypeVar("E", Cluster, User, Context)


@dataclass(frozen=True)
class Found(Generic[E]):
    """An entry of a kubeconfig, and the file that it is in.

    Attributes:
        file: The file.
        what: The kind and name of the entry, for errors, such as `user 'admin'`.
        entry: The entry.
    """

    file: Path
    what: str
    entry: E

    @property
    def source(self) -> str:
        """The beginning of errors: the file and the entry."""
        return f"the kubeconfig {self.file} cannot be used: {self.what}"

    def wrong(self, why: str) -> ConfigError:
        """Returns the error for a problem with the entry."""
        return ConfigError(f"{self.source}: {why}")

    def path(self, name: str) -> Path:
        """Returns a path from the entry. A relative path is relative to the directory of the file."""
        return self.file.absolute().parent / name

    def decoded(self, field: str, text: str) -> str:
        """Returns the decoded content of a `-data` field.

        Raises:
            ConfigError: The field is not base64.
        """
        try:
            return base64.b64decode("".join(text.split()), validate=True).decode()
        except (binascii.Error, ValueError):
            raise self.wrong(
                f"its {field} is not a PEM text in base64: copy it again from its source"
            ) from None

    def readable(self, field: str, name: str) -> Path:
        """Returns a path from the entry, like `path`.

        Raises:
            ConfigError: The file cannot be read.
        """
        path = self.path(name)
        try:
            path.open("rb").close()
        except OSError as error:
            raise self.wrong(f"its {field} {path} cannot be read: {error.strerror or error}") from error
        return path
