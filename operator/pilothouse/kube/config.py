"""Where the API server is and how to speak to it: from a pod's service account, or from a kubeconfig."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from pilothouse.kube.errors import ConfigError
from pilothouse.kube.tls import TlsFiles, TlsSource
from pilothouse.kube.tokens import FileToken, TokenSource

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass(frozen=True)
class ClientConfig:
    """How to reach one API server.

    Attributes:
        server: its URL, without a path in most clusters, such as `https://10.96.0.1:443`.
        tls: verifies the server and gives the client's certificate, if any; None for plain HTTP.
        token: gives the bearer token; None when the certificate says who we are.
        namespace: the pod's own, or the kubeconfig context's.
        server_hostname: the name to verify in the server's certificate when it is not the URL's host.
        proxy: the URL of an HTTP proxy on the way, `http://` or `https://`; empty for none.
        headers: sent with each request, besides the token: basic authentication and impersonation.
    """

    server: str
    tls: TlsSource | None = None
    token: TokenSource | None = None
    namespace: str = "default"
    server_hostname: str | None = None
    # Its URL may hold a password.
    proxy: str = field(default="", repr=False)
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)

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

        Token and CA are read again while the process runs: the kubelet rotates them. The proxy variables of
        the environment do not apply: the server's address is inside the cluster.

        Args:
            service_account: the folder of token, ca.crt and namespace; by default where the kubelet puts it.

        Raises:
            ConfigError: outside of a pod, or when the pod has no service account token.
        """
        service_account = service_account or SERVICE_ACCOUNT
        tls = TlsFiles(ca_file=str(service_account / "ca.crt"))
        try:
            host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
            tls.context()
            namespace = (service_account / "namespace").read_text().strip()
            (service_account / "token").open().close()
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
        """Return a kubeconfig's configuration, as kubectl reads it.

        The proxy variables of the environment apply unless the cluster has a proxy-url. Needs PyYAML for
        files that are not JSON, which the operator's image leaves out.

        Args:
            path: the file; None reads KUBECONFIG (a list of files, of which the first to have a name counts
                and those that are missing do not), else ~/.kube/config.
            context: a context's name; None is the current one.

        Raises:
            ConfigError: when PyYAML or the file is missing, the file does not say enough, or it asks for what
                is not supported: a SOCKS proxy, or an auth-provider.
        """
        # Only on a host: a pod does not pay for it.
        from pilothouse.kube import kubeconfig

        return cls(**kubeconfig.read(path, context))
