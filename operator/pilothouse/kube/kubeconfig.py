"""Kubeconfig files, read by the official client: the one module that imports it, and only on a host.

It knows exec plugins, OIDC, client certificates and the merging of several files, which are not worth a
second implementation.
"""

import os
from typing import Any, TypedDict

from pilothouse.kube.errors import ConfigError
from pilothouse.kube.tls import TlsFiles
from pilothouse.kube.tokens import CommandToken, TokenSource


class Settings(TypedDict):
    """What a kubeconfig's context says, under the names of `ClientConfig`."""

    server: str
    tls: TlsFiles | None
    token: TokenSource | None
    namespace: str
    server_hostname: str | None
    proxy: str


def read(path: str | None, context: str | None) -> Settings:
    """Return what a kubeconfig describes; see `ClientConfig.from_kubeconfig`."""
    # The package itself looks at the variable only once, when it is imported.
    path = path or os.environ.get("KUBECONFIG") or None
    settings, namespace = _load(path, context)
    server = str(settings.host).rstrip("/")
    if not server.startswith(("http://", "https://")):
        raise _unusable(path, f"its server {server!r} is no http or https URL")
    tls = TlsFiles(settings.ssl_ca_cert, settings.cert_file, settings.key_file, verify=settings.verify_ssl)
    try:
        tls.context()
    except OSError as error:
        raise _unusable(path, f"a certificate of it cannot be loaded: {error}") from error
    return Settings(
        server=server,
        tls=tls if server.startswith("https:") else None,
        token=_token(settings),
        namespace=namespace,
        server_hostname=settings.tls_server_name or None,
        proxy=_proxy(path, settings),
    )


def _load(path: str | None, context: str | None) -> tuple[Any, str]:
    """The official client's settings from a kubeconfig, and the namespace of the context."""
    try:
        import kubernetes.client
        import kubernetes.config
    except ImportError as error:
        raise ConfigError(
            "reading a kubeconfig needs the 'kubernetes' package, which is not installed here: "
            "install it (pip install 'kubernetes>=37'), or run inside a pod"
        ) from error
    official: Any = kubernetes.config  # without type hints of its own
    # Without this, it would take a proxy from the environment, which is meant for downloads.
    settings = kubernetes.client.Configuration(proxy="")
    try:
        official.load_kube_config(path, context, client_configuration=settings)
        contexts, active = official.list_kube_config_contexts(path)
        chosen = next((each for each in contexts if each["name"] == context), active)
        return settings, chosen["context"].get("namespace") or "default"
    except (official.ConfigException, OSError) as error:
        raise _unusable(path, " ".join(str(error).split())) from error
    except Exception as error:
        # The package takes the content for what it should be. What is wrong with it surfaces as any error of
        # Python's or YAML's, whose text may quote the file.
        raise _unusable(path, f"it is no kubeconfig ({type(error).__name__})") from error


def _unusable(path: str | None, why: str) -> ConfigError:
    name = path or "~/.kube/config"
    return ConfigError(
        f"the kubeconfig {name} cannot be used: {why}; set KUBECONFIG to a file that kubectl can use"
    )


def _proxy(path: str | None, settings: Any) -> str:
    proxy = str(settings.proxy or "")
    scheme = proxy.partition(":")[0]
    if proxy and scheme not in ("http", "https"):
        # Not the URL itself: it may hold a password.
        raise _unusable(
            path, f"its proxy-url is a {scheme} proxy, and only http and https ones are supported"
        )
    return proxy


def _token(settings: Any) -> TokenSource | None:
    if "BearerToken" not in settings.api_key:
        return None

    def fetch() -> str:
        # Runs the refresh hook, which runs the exec plugin again once its token has expired.
        value: str = settings.get_api_key_with_prefix("BearerToken") or ""
        return value.removeprefix("Bearer ").strip()

    return CommandToken(fetch)
