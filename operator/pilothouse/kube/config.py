"""Where the API server is and how to speak to it: from a pod's service account, or from a kubeconfig."""

import asyncio
import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from pilothouse.kube.errors import ConfigError

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")

# client-go, transport/token_source.go: the kubelet rotates a projected token at 80 % of its life, ten minutes
# at least.
TOKEN_SECONDS = 60.0


class TokenSource(Protocol):
    """Gives the bearer token for the next request."""

    async def token(self, *, refused: bool = False) -> str:
        """Return the token; empty sends none.

        Args:
            refused: the server answered 401 to the last one, so whatever is remembered is stale.
        """


@dataclass
class StaticToken:
    """A token that never changes."""

    value: str = field(repr=False)

    async def token(self, *, refused: bool = False) -> str:
        """Return the token."""
        return self.value


@dataclass
class FileToken:
    """A token in a file that the kubelet rotates: read again every 60 s, and when refused."""

    path: Path
    _value: str = field(default="", repr=False)
    _expires: float = 0.0

    async def token(self, *, refused: bool = False) -> str:
        """Return the token as the file has had it in the last 60 s.

        Raises:
            ConfigError: when the file cannot be read and no earlier token is known.
        """
        now = asyncio.get_running_loop().time()
        if refused or now >= self._expires or not self._value:
            try:
                # A projected token is a kilobyte in memory (tmpfs): reading it costs less than a thread
                # would.
                self._value = self.path.read_text().strip()
            except OSError as error:
                if not self._value:
                    raise ConfigError(
                        f"cannot read the service account token {self.path}: {error}"
                    ) from error
            self._expires = now + TOKEN_SECONDS
        return self._value


@dataclass
class CommandToken:
    """A token from a call that may block, such as an exec plugin: made in a thread, every 60 s."""

    fetch: Callable[[], str] = field(repr=False)
    _value: str = field(default="", repr=False)
    _expires: float = 0.0

    async def token(self, *, refused: bool = False) -> str:
        """Return the token that the call gave within the last 60 s.

        Raises:
            ConfigError: the call failed.
        """
        now = asyncio.get_running_loop().time()
        if refused or now >= self._expires:
            try:
                self._value = await asyncio.to_thread(self.fetch)
            except Exception as error:
                # Whatever a plugin raises: callers know this package's errors only.
                raise ConfigError(f"the kubeconfig's credentials could not be renewed: {error}") from error
            self._expires = now + TOKEN_SECONDS
        return self._value


@dataclass(frozen=True)
class ClientConfig:
    """How to reach one API server.

    Attributes:
        server: its URL, without a path in most clusters, such as `https://10.96.0.1:443`.
        tls: verifies the server and holds the client's certificate, if any; None for plain HTTP.
        token: gives the bearer token; None when the certificate says who we are.
        namespace: the pod's own, or the kubeconfig context's.
        server_hostname: the name to verify in the server's certificate when it is not the URL's host.
    """

    server: str
    tls: ssl.SSLContext | None = None
    token: TokenSource | None = None
    namespace: str = "default"
    server_hostname: str | None = None

    @classmethod
    def load(cls) -> "ClientConfig":
        """Return the service account's configuration inside a pod, the kubeconfig's elsewhere.

        Raises:
            ConfigError: when neither can be loaded.
        """
        return cls.in_cluster() if "KUBERNETES_SERVICE_HOST" in os.environ else cls.from_kubeconfig()

    @classmethod
    def in_cluster(cls, service_account: Path | None = None) -> "ClientConfig":
        """Return the configuration that the kubelet gives every pod.

        Args:
            service_account: the folder of token, ca.crt and namespace; by default where the kubelet puts it.

        Raises:
            ConfigError: outside of a pod, or when the pod has no service account token.
        """
        service_account = service_account or SERVICE_ACCOUNT
        try:
            host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
            tls = tls_context(ca_file=str(service_account / "ca.crt"))
            namespace = (service_account / "namespace").read_text().strip()
        except KeyError as error:
            raise ConfigError(f"{error.args[0]} is not set: this process does not run in a pod") from error
        except OSError as error:
            raise ConfigError(
                f"the service account in {service_account} cannot be read ({error}); "
                "does the pod set automountServiceAccountToken: false?"
            ) from error
        return cls(
            server=f"https://{f'[{host}]' if ':' in host else host}:{port}",
            tls=tls,
            token=FileToken(service_account / "token"),
            namespace=namespace,
        )

    @classmethod
    def from_kubeconfig(cls, path: str | None = None, context: str | None = None) -> "ClientConfig":
        """Return a kubeconfig's configuration, with whatever authentication the official client knows.

        Needs the `kubernetes` package, which the operator's image leaves out (it costs 44 MiB of memory).

        Args:
            path: the file; None reads KUBECONFIG (a list of files), else ~/.kube/config.
            context: a context's name; None is the current one.

        Raises:
            ConfigError: when the package or the file is missing, or the file does not say enough.
        """
        from pilothouse.kube import kubeconfig

        return kubeconfig.load(path, context)


def tls_context(
    *,
    ca_file: str | None = None,
    cert_file: str | None = None,
    key_file: str | None = None,
    verify: bool = True,
) -> ssl.SSLContext:
    """Return the TLS settings for a cluster.

    Args:
        ca_file: the cluster's CA; None trusts the system's.
        cert_file: the client's certificate, with its chain.
        key_file: the certificate's key.
        verify: False trusts any server, as a kubeconfig may ask for.

    Raises:
        OSError: when a file cannot be read or is not what it should be (ssl.SSLError is an OSError).
    """
    context = ssl.create_default_context(cafile=ca_file)
    if ca_file is not None:
        # Python 3.13 made this flag a default; it refuses the CAs of many clusters for want of a key usage
        # extension. Chain, dates and host name are verified as before.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if cert_file is not None:
        context.load_cert_chain(cert_file, key_file)
    return context
