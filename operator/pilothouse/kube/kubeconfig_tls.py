"""The TLS material of a kubeconfig: the authority of its cluster, the certificate and key of its user."""

from typing import Any

from pilothouse.kube.kubeconfig_types import Cluster, Found, User
from pilothouse.kube.tls import TlsFiles


def tls_of(cluster: Found[Cluster], user: Found[User]) -> TlsFiles:
    """Returns the TLS files and data of a cluster and a user.

    Raises:
        ConfigError: They contradict each other, cannot be read, or cannot be used.
    """
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
    return str(found.readable(field, name)) if name else None


def _data(found: Found[Any], field: str, text: str) -> str | None:
    return found.decoded(field, text) if text else None
