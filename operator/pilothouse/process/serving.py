"""The certificate for probes and metrics. After a rotation, new connections use the new certificate."""

import ssl
from pathlib import Path

from pilothouse.kube import RotatedFiles
from pilothouse.process.environment import SettingsError


class ServingCertificate:
    """A certificate and its key, as in a mounted Secret of type kubernetes.io/tls.

    The files are checked at each TLS handshake and read again if they have changed. If the changed files
    cannot be used, the last good certificate stays in use, with a warning in the log.

    Attributes:
        context: The TLS context for a server.

    Args:
        folder: The folder with tls.crt and tls.key.

    Raises:
        SettingsError: A file is missing, or the key does not belong to the certificate.
    """

    def __init__(self, folder: Path) -> None:
        self._certificate = folder / "tls.crt"
        self._key = folder / "tls.key"
        self._files = RotatedFiles([self._certificate, self._key], self._load)
        try:
            self.context = self._files.get()
        except OSError as error:  # SSLError is an OSError
            raise SettingsError(
                f"METRICS_CERT_DIR is {str(folder)!r}, and its certificate cannot be loaded ({error}). The "
                "folder must have a certificate in tls.crt and its key in tls.key."
            ) from error
        self.context.sni_callback = self._on_hello

    def _on_hello(
        self, connection: ssl.SSLSocket | ssl.SSLObject, _name: str | None, _context: ssl.SSLContext
    ) -> None:
        connection.context = self._files.get()

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self._certificate, self._key)
        return context
