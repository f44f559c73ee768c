"""The exec plugin of a kubeconfig's user: validates its entry, and returns the command to run."""

import base64
import os
from collections.abc import Mapping
from typing import Any

from pilothouse.kube.exec_plugin import ExecCommand
from pilothouse.kube.kubeconfig_types import Cluster, Exec, Found, User

EXEC_VERSIONS = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")
# client-go, tools/clientcmd: the cluster's extension that is passed to exec plugins.
_EXEC_EXTENSION = "client.authentication.k8s.io/exec"


def exec_command(cluster: Found[Cluster], user: Found[User], given: Exec) -> ExecCommand:
    """Returns the command of a user's exec plugin.

    Args:
        cluster: The cluster that the credentials are for.
        user: The user, whom errors name.
        given: The exec entry of the user.

    Raises:
        ConfigError: The entry is not one that client-go accepts.
    """
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
