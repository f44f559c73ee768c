"""How TLS connections to a cluster are made, from files that may be rotated while the process runs."""

import logging
import os
import ssl
import time
from dataclasses import dataclass, field

log = logging.getLogger(__name__)

# How long a rotated file may go unnoticed. The kubelet itself takes a minute to bring a new one into a pod.
LOOK_SECONDS = 60.0


@dataclass
class TlsFiles:
    """The CA that verifies the server and the certificate that says who we are, read again when they change.

    Attributes:
        ca_file: the cluster's CA; None trusts the system's.
        cert_file: the client's certificate, with its chain; None for none.
        key_file: the certificate's key.
        verify: False trusts any server, as a kubeconfig may ask for.
    """

    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    verify: bool = True
    _context: ssl.SSLContext | None = field(default=None, repr=False)
    _read: tuple[tuple[int, int, int], ...] = field(default=(), repr=False)
    _look_at: float = field(default=0.0, repr=False)

    def context(self, *, refused: bool = False) -> ssl.SSLContext:
        """Return the settings for new connections: another object once a file has changed, in the last 60 s.

        Connections made with an earlier one go on; a pool that keeps them apart lets them run out. Files that
        are caught half rotated leave the earlier settings in force until the next look.

        Args:
            refused: the server answered 401, so look at once.

        Raises:
            OSError: a file cannot be read or is not what it should be (ssl.SSLError is an OSError), and there
                are no earlier settings.
        """
        now = time.monotonic()
        if self._context is not None and now < self._look_at and not refused:
            return self._context
        self._look_at = now + LOOK_SECONDS
        try:
            files = tuple(_state(name) for name in (self.ca_file, self.cert_file, self.key_file) if name)
            if self._context is None or files != self._read:
                self._context = tls_context(
                    ca_file=self.ca_file,
                    cert_file=self.cert_file,
                    key_file=self.key_file,
                    verify=self.verify,
                )
                self._read = files
        except OSError as error:
            if self._context is None:
                raise
            log.warning("the rotated TLS files cannot be used yet, the earlier ones stay: %s", error)
        return self._context


def _state(name: str) -> tuple[int, int, int]:
    status = os.stat(name)
    return status.st_mtime_ns, status.st_size, status.st_ino


def tls_context(
    *,
    ca_file: str | None = None,
    cert_file: str | None = None,
    key_file: str | None = None,
    verify: bool = True,
) -> ssl.SSLContext:
    """Return the TLS settings for a cluster; the arguments are those of `TlsFiles`.

    Raises:
        OSError: when a file cannot be read or is not what it should be (ssl.SSLError is an OSError).
    """
    context = ssl.create_default_context(cafile=ca_file)
    if ca_file is not None:
        # Python 3.13 made this flag a default; it refuses the CAs of many clusters for want of a key usage
        # extension. Chain, dates and host name are verified as before.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if cert_file is not None:
        context.load_cert_chain(cert_file, key_file)
    return context
