"""The certificate that the probes and metrics are served with; a rotated one is taken up as it comes."""

import logging
import ssl
from pathlib import Path

from pilothouse.process.environment import SettingsError

log = logging.getLogger(__name__)


class ServingCertificate:
    """A certificate and its key, as a Secret of the type kubernetes.io/tls is mounted.

    At each handshake the files are looked at, and read again if they are others: a client never meets the
    certificate of yesterday. Files that cannot be used are told of, and the last good ones stay in use.

    Attributes:
        context: For a server.

    Args:
        folder: Where tls.crt and tls.key are.

    Raises:
        SettingsError: They are missing or do not fit each other.
    """

    def __init__(self, folder: Path) -> None:
        self._certificate = folder / "tls.crt"
        self._key = folder / "tls.key"
        try:
            self._stamp = self._look()
            self.context = self._load()
        except OSError as error:  # SSLError is one
            raise SettingsError(
                f"METRICS_CERT_DIR is {str(folder)!r}: it must hold a certificate in tls.crt and its key in "
                f"tls.key ({error})."
            ) from error
        self._newest = self.context
        self.context.sni_callback = self._on_hello

    def _on_hello(
        self, connection: ssl.SSLSocket | ssl.SSLObject, _name: str | None, _context: ssl.SSLContext
    ) -> None:
        try:
            stamp = self._look()
            if stamp != self._stamp:
                self._newest = self._load()
                self._stamp = stamp
        except OSError as error:
            log.warning("the certificate in use stays, %s cannot be used: %s", self._certificate, error)
        connection.context = self._newest

    def _look(self) -> tuple[int, ...]:
        stats = (self._certificate.stat(), self._key.stat())
        return tuple(number for stat in stats for number in (stat.st_ino, stat.st_mtime_ns))

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self._certificate, self._key)
        return context
