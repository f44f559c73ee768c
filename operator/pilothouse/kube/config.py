"""The API server's address and credentials, from a pod's service account or from a kubeconfig."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from pilothouse.kube.errors import ConfigError
from pilothouse.kube.tls import TlsFiles, TlsSource
from pilothouse.kube.tokens import FileToken, TokenSource

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass(frozen=True)
class ClientConfig:
    """The settings for connections to one API server.

    Attributes:
        server: The URL, such as `https://10.96.0.1:443`. In most clusters it has no path.
        tls: The TLS settings, with the client certificate if there is one. None for plain HTTP.
        token: The source of the bearer token. None if there is no token, for example with a certificate.
        namespace: The namespace of the pod or of the kubeconfig's context.
        server_hostname: The name to verify in the server's certificate. None: the host in the URL.
        proxy: The URL of an HTTP proxy, `http://` or `https://`. Empty: no proxy.
        headers: Headers for each request besides the token, for basic authentication and impersonation.
    """

    server: str
    tls: TlsSource | None = None
    token: TokenSource | None = None
    namespace: str = "default"
    server_hostname: str | None = None
    # The URL may contain a password.
    proxy: str = field(default="", repr=False)
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    @classmethod
    def load(cls) -> "ClientConfig":
        """Loads the service account's configuration in a pod, and the kubeconfig elsewhere.

        Raises:
            ConfigError: The configuration cannot be loaded.
        """
        return cls.in_cluster() if "KUBERNETES_SERVICE_HOST" in os.environ else cls.from_kubeconfig()

    @classmethod
    def in_cluster(cls, service_account: Path | None = None) -> "ClientConfig":
        """Loads the configuration that the kubelet provides in every pod.

        Token and CA are read again when the kubelet rotates them. The environment's proxy variables are not
        used, because the API server's address is inside the cluster.

        Args:
            service_account: The directory with token, ca.crt and namespace. By default, the kubelet's.

        Raises:
            ConfigError: The process does not run in a pod, or the pod has no service account token.
        """
        service_account = service_account or SERVICE_ACCOUNT
        tls = TlsFiles(ca_file=str(service_account / "ca.crt"))
        try:
            host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
            tls.context()
            namespace = (service_account / "namespace").read_text().strip()
            (service_account / "token").open().close()
        except KeyError as error:
            raise ConfigError(f"{error.args[0]} is not set, so this process does not run in a pod") from error
        except OSError as error:
            raise ConfigError(
                f"cannot read the service account in {service_account} ({error}); "
                "check that the pod does not set automountServiceAccountToken: false"
            ) from error
        return cls(
            server=f"https://{f'[{host}]' if ':' in host else host}:{port}",
            tls=tls,
            token=FileToken(service_account / "token"),
            namespace=namespace,
        )

    @classmethod
    def from_kubeconfig(cls, path: str | None = None, context: str | None = None) -> "ClientConfig":
        """Loads a kubeconfig, by the same rules as kubectl.

        The environment's proxy variables are used unless the cluster has a proxy-url. Files that are not JSON
        require PyYAML, which is not in the operator's image.

        Args:
            path: The file. None: the files in KUBECONFIG, or ~/.kube/config. If several files define the same
                name, the first one counts. Missing files in a list are ignored.
            context: The context's name. None: the current context.

        Raises:
            ConfigError: PyYAML or the file is missing, the file is incomplete, or it uses an unsupported
                feature: a SOCKS proxy or an auth-provider.
        """
        # Imported only on a host, to save memory in a pod.
        from pilothouse.kube import kubeconfig

        return cls(**kubeconfig.read(path, context))
