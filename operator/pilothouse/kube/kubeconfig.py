"""The settings of a kubeconfig's context, by the rules of client-go (tools/clientcmd). Only used on a host.

A feature that kubectl supports is either supported, or refused with an error that names the file, the entry
and the field. Only fields that Kubernetes does not define are ignored, with a warning.
"""

import base64
import logging
import os
from collections.abc import Iterable
from typing import Any, TypedDict
from urllib.parse import quote, urlsplit

from pilothouse.kube.exec_plugin import ExecPlugin, PluginTls
from pilothouse.kube.kubeconfig_exec import exec_command
from pilothouse.kube.kubeconfig_files import choose, load
from pilothouse.kube.kubeconfig_tls import tls_of
from pilothouse.kube.kubeconfig_types import Cluster, Context, Found, User
from pilothouse.kube.proxies import proxy_from_environment
from pilothouse.kube.tls import TlsSource
from pilothouse.kube.tokens import FileToken, StaticToken, TokenSource, has_control_character
from pilothouse.telemetry import hide_everywhere

log = logging.getLogger(__name__)

# The characters besides letters and digits in the name of a header (RFC 9110, token), except the percent
# sign.
_HEADER_CHARACTERS = "!#$&'*+-.^_`|~"
_EXAMPLE = "https://10.0.0.1:6443"


class Settings(TypedDict):
    """The settings of a kubeconfig's context, with the names of `ClientConfig`."""

    server: str
    tls: TlsSource | None
    token: TokenSource | None
    namespace: str
    server_hostname: str | None
    proxy: str
    headers: tuple[tuple[str, str], ...]


def read(path: str | None, context: str | None) -> Settings:
    """Returns the settings of a kubeconfig; see `ClientConfig.from_kubeconfig`."""
    chosen, cluster, user = choose(load(path), context)
    _refuse_control_characters(chosen, cluster, user)
    server, is_secure = _server(cluster)
    _validate_user(user)
    # As in client-go, credentials are not sent over an unencrypted connection.
    token, tls, headers = _credentials(cluster, user) if is_secure else (None, None, ())
    if not is_secure and user.entry != User():
        log.warning("Not sending the credentials of %s, because the server is an http URL", user.what)
    return Settings(
        server=server,
        tls=tls,
        token=token,
        namespace=chosen.entry.namespace or "default",
        server_hostname=cluster.entry.tls_server_name or None,
        proxy=_proxy(cluster, server),
        headers=(*headers, *_impersonation(user.entry)),
    )


def _refuse_control_characters(context: Found[Context], cluster: Found[Cluster], user: Found[User]) -> None:
    """Refuses control characters in what becomes part of a request. As in kubectl, nothing is stripped."""
    server, given = cluster.entry, user.entry
    values: list[tuple[Found[Any], str, str]] = [
        (context, "namespace", context.entry.namespace),
        (cluster, "server", server.server),
        (cluster, "tls-server-name", server.tls_server_name),
        (cluster, "proxy-url", server.proxy_url),
        (user, "token", given.token),
        (user, "as", given.impersonate),
        (user, "as-uid", given.impersonate_uid),
        *((user, "as-groups", each) for each in given.impersonate_groups),
        *((user, "as-user-extra", each) for values in given.impersonate_extra.values() for each in values),
    ]
    for found, field, value in values:
        if has_control_character(value):
            raise found.wrong(f"its {field} contains a control character, such as a newline: remove it")


def _server(cluster: Found[Cluster]) -> tuple[str, bool]:
    server = cluster.entry.server.rstrip("/")
    if not server:
        raise cluster.wrong("it has no server: set one with 'kubectl config set-cluster'")
    try:
        parts = urlsplit(server)
        _ = parts.port
    except ValueError:
        raise cluster.wrong(f"its server {server!r} is not a URL: use a URL such as {_EXAMPLE}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise cluster.wrong(
            f"its server {server!r} is not an http or https URL: use a URL such as {_EXAMPLE}"
        )
    if parts.query or parts.fragment or parts.username:
        raise cluster.wrong("its server is a URL with a user, a query or a fragment: remove that part")
    return server, parts.scheme == "https"


def _proxy(cluster: Found[Cluster], server: str) -> str:
    """Returns the proxy's URL from proxy-url or else from the environment, as kubectl does."""
    given = cluster.entry.proxy_url
    proxy = given or proxy_from_environment(server, os.environ)
    scheme = urlsplit(proxy).scheme if "://" in proxy else ""
    if proxy and scheme not in ("http", "https"):
        # Without the URL itself, which may contain a password.
        field = "proxy-url" if given else "proxy in the environment (HTTPS_PROXY or HTTP_PROXY)"
        what = f"has the scheme {scheme}" if scheme else "is not a URL"
        raise cluster.wrong(
            f"its {field} {what}, but only http and https proxies are supported: "
            "use such a proxy, or a tunnel"
        )
    return proxy


def _validate_user(user: Found[User]) -> None:
    given = user.entry
    if given.auth_provider is not None:
        raise user.wrong(
            f"its auth-provider {given.auth_provider.name!r} is not supported: use an exec plugin instead, "
            "such as gke-gcloud-auth-plugin, kubelogin or kubectl oidc-login"
        )
    if given.token and (given.username or given.password):
        raise user.wrong("it has both a token and a username or password: remove one of them")
    if given.password and not given.username:
        raise user.wrong("it has a password but no username: set both")
    if (
        given.impersonate_uid or given.impersonate_groups or given.impersonate_extra
    ) and not given.impersonate:
        raise user.wrong(
            "it has as-uid, as-groups or as-user-extra, but not 'as': set 'as' to the name of the user to "
            "impersonate"
        )


# Credentials.


def _credentials(
    cluster: Found[Cluster], user: Found[User]
) -> tuple[TokenSource | None, TlsSource, tuple[tuple[str, str], ...]]:
    tls = tls_of(cluster, user)
    given = user.entry
    token: TokenSource | None = None
    headers: tuple[tuple[str, str], ...] = ()
    if given.token_file:
        token = FileToken(user.readable("tokenFile", given.token_file))
    elif given.token:
        token = StaticToken(given.token)
    elif given.username:
        pair = base64.b64encode(f"{given.username}:{given.password}".encode()).decode()
        headers = (("Authorization", f"Basic {pair}"),)
        hide_everywhere(given.password)
        hide_everywhere(pair)
    if given.exec is None:
        return token, tls, headers
    if token or headers or tls.cert_file or tls.cert_data:
        # client-go, plugin/pkg/client/auth/exec: UpdateTransportConfig.
        log.warning("Not using the exec plugin of %s, because it also has other credentials", user.what)
        return token, tls, headers
    plugin = ExecPlugin(exec_command(cluster, user, given.exec))
    return plugin, PluginTls(tls, plugin), headers


def _impersonation(user: User) -> Iterable[tuple[str, str]]:
    """Yields the headers of client-go's transport.NewImpersonatingRoundTripper."""
    if not user.impersonate:
        return
    yield "Impersonate-User", user.impersonate
    if user.impersonate_uid:
        yield "Impersonate-Uid", user.impersonate_uid
    for group in user.impersonate_groups:
        yield "Impersonate-Group", group
    for key, values in user.impersonate_extra.items():
        for value in values:
            yield f"Impersonate-Extra-{quote(key.lower(), safe=_HEADER_CHARACTERS)}", value
