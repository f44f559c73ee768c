"""Finds, decodes and merges kubeconfig files by client-go's loading rules, and finds a context's entries."""

import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from pilothouse.kube.errors import ConfigError
from pilothouse.kube.kubeconfig_types import Cluster, Context, E, Exec, Found, Kubeconfig, User

log = logging.getLogger(__name__)

_FIX = "set KUBECONFIG to a file that kubectl can use"


def load(path: str | None) -> list[tuple[Path, Kubeconfig]]:
    """Returns the existing files, in order of precedence.

    As in client-go, files of a list in KUBECONFIG may be missing or empty. A single file must exist.

    Args:
        path: The file. None: the files in KUBECONFIG, or else ~/.kube/config.

    Raises:
        ConfigError: There is no file, or one of them is not a kubeconfig.
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


def choose(
    files: list[tuple[Path, Kubeconfig]], name: str | None
) -> tuple[Found[Context], Found[Cluster], Found[User]]:
    """Returns the entries of a context. If several files define a name, the first one counts.

    Args:
        files: The files, in order of precedence.
        name: The context. None: the current-context of the first file that has one.

    Raises:
        ConfigError: The context does not exist, or it refers to an entry that does not exist.
    """
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
