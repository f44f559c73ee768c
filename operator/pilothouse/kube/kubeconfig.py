"""Kubeconfig files, read by the rules of client-go (tools/clientcmd). Only used on a host.

A feature that kubectl supports is either supported, or refused with an error that names the file, the entry
and the field. Only fields that Kubernetes does not define are ignored, with a warning.
"""

import base64
import binascii
import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypedDict, TypeVar
from urllib.parse import quote, urlsplit

import msgspec

from pilothouse.kube.errors import ConfigError
from pilothouse.kube.exec_plugin import ExecCommand, ExecPlugin, PluginTls
from pilothouse.kube.proxies import proxy_from_environment
from pilothouse.kube.tls import TlsFiles, TlsSource
from pilothouse.kube.tokens import FileToken, StaticToken, TokenSource, has_control_character
from pilothouse.telemetry import hide_everywhere

log = logging.getLogger(__name__)

EXEC_VERSIONS = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")
# client-go, tools/clientcmd: the cluster's extension that is passed to exec plugins.
_EXEC_EXTENSION = "client.authentication.k8s.io/exec"
# The characters besides letters and digits in the name of a header (RFC 9110, token), except the percent
# sign.
_HEADER_CHARACTERS = "!#$&'*+-.^_`|~"
_EXAMPLE = "https://10.0.0.1:6443"
_FIX = "set KUBECONFIG to a file that kubectl can use"


class Settings(TypedDict):
    """The settings of a kubeconfig's context, with the names of `ClientConfig`."""

    server: str
    tls: TlsSource | None
    token: TokenSource | None
    namespace: str
    server_hostname: str | None
    proxy: str
    headers: tuple[tuple[str, str], ...]


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


def read(path: str | None, context: str | None) -> Settings:
    """Returns the settings of a kubeconfig; see `ClientConfig.from_kubeconfig`."""
    chosen, cluster, user = _choose(_load(path), context)
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


# The files.


def _load(path: str | None) -> list[tuple[Path, Kubeconfig]]:
    """Returns the existing files, in order of precedence.

    As in client-go, files of a list in KUBECONFIG may be missing or empty. A single file must exist.
    """
    files = _files(path)
    if all(config == Kubeconfig() for _, config in files):
        raise _unusable(files[0][0], "it is empty")
    return files


def _files(path: str | None) -> list[tuple[Path, Kubeconfig]]:
    listed = os.environ.get("KUBECONFIG", "")
    names = [Path(name) for name in dict.fromkeys(listed.split(os.pathsep)) if name]
    if path or len(names) < 2:
        file = Path(path or next(iter(names), "~/.kube/config")).expanduser()
        return [(file, _parse(file))]
    files = [(name, _parse(name)) for name in names if name.exists()]
    if not files:
        raise ConfigError(f"KUBECONFIG is {listed!r}, but none of these files exists; {_FIX}")
    return files


def _parse(file: Path) -> Kubeconfig:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise _unusable(file, error.strerror or str(error)) from error
    try:
        parsed = _without_nulls(_decode(content))
        if parsed is None:
            return Kubeconfig()
        config = msgspec.convert(parsed, Kubeconfig)
    except msgspec.ValidationError as error:
        raise _unusable(file, f"it is not a kubeconfig: {error}") from None
    for entries, kind in (
        (config.clusters, "clusters"),
        (config.users, "users"),
        (config.contexts, "contexts"),
    ):
        names = [each.name for each in entries]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise _unusable(file, f"it has several {kind} named {twice[0]!r}")
    _warn_of_unknown_fields(file, parsed)
    return config


def _decode(content: bytes) -> Any:
    """Decodes JSON or YAML. The parsers' errors are dropped, because they may quote secrets in the file."""
    content = content.removeprefix(b"\xef\xbb\xbf")
    try:
        return msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:
        import yaml
    except ImportError as error:
        raise ConfigError(
            "reading a kubeconfig requires PyYAML, which is not installed: run "
            "pip install 'pilothouse[host]', or run the operator in a pod"
        ) from error
    try:
        return yaml.safe_load(content)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        raise msgspec.ValidationError(f"not YAML{f', see line {mark.line + 1}' if mark else ''}") from None


def _without_nulls(value: Any) -> Any:
    """Returns the value without fields that are null, which Go treats as absent."""
    if isinstance(value, dict):
        return {str(key): _without_nulls(each) for key, each in value.items() if each is not None}
    if isinstance(value, list):
        return [_without_nulls(each) for each in value]
    return value


def _warn_of_unknown_fields(file: Path, parsed: Mapping[str, Any]) -> None:
    for kind, field, view in (
        ("clusters", "cluster", Cluster),
        ("users", "user", User),
        ("contexts", "context", Context),
    ):
        for each in parsed.get(kind, ()):
            given = each.get(field, {})
            unknown = sorted(given.keys() - {known.encode_name for known in msgspec.structs.fields(view)})
            execs = given.get("exec", {}).keys() if view is User else set()
            unknown += sorted(execs - {known.encode_name for known in msgspec.structs.fields(Exec)})
            if unknown:
                log.warning(
                    "Ignoring unknown fields of the kubeconfig %s: %s of %s %r",
                    file,
                    ", ".join(unknown),
                    field,
                    each["name"],
                )


def _unusable(file: Path, why: str) -> ConfigError:
    return ConfigError(f"the kubeconfig {file} cannot be used: {why}; {_FIX}")


# The entries.


def _choose(
    files: list[tuple[Path, Kubeconfig]], name: str | None
) -> tuple[Found[Context], Found[Cluster], Found[User]]:
    """Returns the entries of a context. If several files define a name, the first one counts."""
    contexts = _first((file, each.name, each.context) for file, config in files for each in config.contexts)
    clusters = _first((file, each.name, each.cluster) for file, config in files for each in config.clusters)
    users = _first((file, each.name, each.user) for file, config in files for each in config.users)
    current, first = next(
        ((config.current_context, file) for file, config in files if config.current_context),
        ("", files[0][0]),
    )
    known = f"it has {', '.join(map(repr, contexts))}" if contexts else "it has no contexts"
    chosen = name or current
    if not chosen:
        raise ConfigError(
            f"the kubeconfig {first} cannot be used: it has no current-context: "
            f"choose a context with 'kubectl config use-context' ({known})"
        )
    if chosen not in contexts:
        problem = "it has no context" if name else "its current-context does not exist:"
        raise ConfigError(
            f"the kubeconfig {first} cannot be used: {problem} {chosen!r}: "
            f"choose another with 'kubectl config use-context' ({known})"
        )
    file, context = contexts[chosen]
    found = Found(file, f"context {chosen!r}", context)
    if context.cluster not in clusters:
        raise found.wrong(
            f"its cluster {context.cluster!r} is not in the file: add it with 'kubectl config set-cluster'"
            if context.cluster
            else "it names no cluster: set one with 'kubectl config set-context'"
        )
    if context.user and context.user not in users:
        raise found.wrong(
            f"its user {context.user!r} is not in the file: add it with 'kubectl config set-credentials'"
        )
    user_file, user = users.get(context.user, (file, User()))
    return (
        found,
        Found(clusters[context.cluster][0], f"cluster {context.cluster!r}", clusters[context.cluster][1]),
        Found(user_file, f"user {context.user!r}", user),
    )


def _first(entries: Iterable[tuple[Path, str, E]]) -> dict[str, tuple[Path, E]]:
    found: dict[str, tuple[Path, E]] = {}
    for file, name, entry in entries:
        found.setdefault(name, (file, entry))
    return found


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
        what = f"a {scheme} proxy" if scheme else "not a URL"
        raise cluster.wrong(
            f"its {field} is {what}, but only http and https proxies are supported: "
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
    tls = _tls(cluster, user)
    given = user.entry
    token: TokenSource | None = None
    headers: tuple[tuple[str, str], ...] = ()
    if given.token_file:
        token = FileToken(_readable(user, "tokenFile", given.token_file))
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
    plugin = ExecPlugin(_exec_command(cluster, user, given.exec))
    return plugin, PluginTls(tls, plugin), headers


def _tls(cluster: Found[Cluster], user: Found[User]) -> TlsFiles:
    server, given = cluster.entry, user.entry
    for found, field, file, data in (
        (cluster, "certificate-authority", server.certificate_authority, server.certificate_authority_data),
        (user, "client-certificate", given.client_certificate, given.client_certificate_data),
        (user, "client-key", given.client_key, given.client_key_data),
    ):
        if file and data:
            raise found.wrong(f"it has both {field} and {field}-data: remove one of them")
    ca_file, ca_data = server.certificate_authority, server.certificate_authority_data
    if server.insecure_skip_tls_verify and (ca_file or ca_data):
        raise cluster.wrong(
            "it has both a certificate-authority and insecure-skip-tls-verify: remove one of them"
        )
    has_certificate = bool(given.client_certificate or given.client_certificate_data)
    has_key = bool(given.client_key or given.client_key_data)
    if has_certificate != has_key:
        missing = "client-key" if has_certificate else "client-certificate"
        raise user.wrong(f"its {missing} is missing: set {missing} or {missing}-data")
    tls = TlsFiles(
        ca_file=_file(cluster, "certificate-authority", ca_file),
        cert_file=_file(user, "client-certificate", given.client_certificate),
        key_file=_file(user, "client-key", given.client_key),
        verify=not server.insecure_skip_tls_verify,
        ca_data=_data(cluster, "certificate-authority-data", ca_data),
        cert_data=_data(user, "client-certificate-data", given.client_certificate_data),
        key_data=_data(user, "client-key-data", given.client_key_data),
    )
    _check_loads(cluster, user, tls)
    return tls


def _check_loads(cluster: Found[Cluster], user: Found[User], tls: TlsFiles) -> None:
    try:
        TlsFiles(ca_file=tls.ca_file, ca_data=tls.ca_data, verify=tls.verify).context()
    except (OSError, ValueError) as error:
        field = "certificate-authority" if tls.ca_file else "certificate-authority-data"
        raise cluster.wrong(f"its {field} is not a PEM certificate: {error}") from error
    try:
        tls.context()
    except (OSError, ValueError) as error:
        raise user.wrong(f"its client certificate and key cannot be used together: {error}") from error


def _file(found: Found[Any], field: str, name: str) -> str | None:
    return str(_readable(found, field, name)) if name else None


def _data(found: Found[Any], field: str, text: str) -> str | None:
    return found.decoded(field, text) if text else None


def _readable(found: Found[Any], field: str, name: str) -> Path:
    path = found.path(name)
    try:
        path.open("rb").close()
    except OSError as error:
        raise found.wrong(f"its {field} {path} cannot be read: {error.strerror or error}") from error
    return path


def _exec_command(cluster: Found[Cluster], user: Found[User], given: Exec) -> ExecCommand:
    if given.api_version not in EXEC_VERSIONS:
        raise user.wrong(f"its exec.apiVersion is {given.api_version!r}: use {' or '.join(EXEC_VERSIONS)}")
    if not given.command:
        raise user.wrong("its exec.command is missing: set it to the plugin's program")
    if any(not each.name for each in given.env):
        raise user.wrong("an entry of its exec.env has no name: give it one")
    mode = given.interactive_mode
    if not mode and given.api_version.endswith("/v1beta1"):
        mode = "IfAvailable"
    if mode not in ("Never", "IfAvailable", "Always"):
        raise user.wrong(f"its exec.interactiveMode is {mode!r}: use Never, IfAvailable or Always")
    # As in client-go, a command with a separator is a path. If relative, it is relative to the kubeconfig.
    command = str(user.path(given.command)) if os.sep in given.command else given.command
    return ExecCommand(
        source=user.source,
        api_version=given.api_version,
        command=command,
        arguments=tuple(given.args),
        environment={each.name: each.value for each in given.env},
        interactive_mode=mode,
        cluster=_cluster_info(cluster) if given.provide_cluster_info else None,
        install_hint=given.install_hint,
    )


def _cluster_info(found: Found[Cluster]) -> Mapping[str, Any]:
    """Returns the information about the cluster for an exec plugin: ExecCredential's spec.cluster."""
    cluster = found.entry
    authority = cluster.certificate_authority_data
    if cluster.certificate_authority:
        content = found.path(cluster.certificate_authority).read_bytes()
        authority = base64.b64encode(content).decode()
    config = next((each.extension for each in cluster.extensions if each.name == _EXEC_EXTENSION), None)
    info = {
        "server": cluster.server,
        "tls-server-name": cluster.tls_server_name,
        "insecure-skip-tls-verify": cluster.insecure_skip_tls_verify,
        "certificate-authority-data": authority,
        "proxy-url": cluster.proxy_url,
        "disable-compression": cluster.disable_compression,
        "config": config,
    }
    return {name: value for name, value in info.items() if value}


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
