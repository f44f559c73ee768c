"""Kubeconfig files, read by the official client: the one module that imports it, and only on a host.

It knows exec plugins, OIDC, client certificates and the merging of several files, which are not worth a
second implementation.
"""

import os
from typing import Any

from pilothouse.kube.config import ClientConfig, CommandToken, TokenSource, tls_context
from pilothouse.kube.errors import ConfigError


def load(path: str | None, context: str | None) -> ClientConfig:
    """Return the configuration that a kubeconfig describes; see `ClientConfig.from_kubeconfig`."""
    # The package itself looks at the variable only once, when it is imported.
    path = path or os.environ.get("KUBECONFIG") or None
    settings, namespace = _read(path, context)
    server = str(settings.host).rstrip("/")
    if not server.startswith(("http://", "https://")):
        raise _unusable(path, f"its server {server!r} is no http or https URL")
    try:
        tls = tls_context(
            ca_file=settings.ssl_ca_cert,
            cert_file=settings.cert_file,
            key_file=settings.key_file,
            verify=settings.verify_ssl,
        )
    except OSError as error:
        raise _unusable(path, f"a certificate of it cannot be loaded: {error}") from error
    return ClientConfig(
        server=server,
        tls=tls if server.startswith("https:") else None,
        token=_token(settings),
        namespace=namespace,
        server_hostname=settings.tls_server_name or None,
    )


def _read(path: str | None, context: str | None) -> tuple[Any, str]:
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
    settings = kubernetes.client.Configuration()
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


def _token(settings: Any) -> TokenSource | None:
    if "BearerToken" not in settings.api_key:
        return None

    def fetch() -> str:
        # Runs the refresh hook, which runs the exec plugin again once its token has expired.
        value: str = settings.get_api_key_with_prefix("BearerToken") or ""
        return value.removeprefix("Bearer ").strip()

    return CommandToken(fetch)
