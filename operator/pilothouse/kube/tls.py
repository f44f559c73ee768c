"""TLS settings for a cluster, from files that may be rotated while the process runs, or from data."""

import os
import ssl
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from pilothouse.kube.files import RotatedFiles

# The seconds between two checks of the files. The kubelet takes a minute to update a mounted file.
LOOK_SECONDS = 60.0


class TlsSource(Protocol):
    """A source of TLS settings."""

    def context(self, *, refused: bool = False) -> ssl.SSLContext:
        """Returns the settings for new connections. It is a new object if they have changed.

        Args:
            refused: Whether the server has returned 401, so cached settings may be outdated.

        Raises:
            OSError: A file cannot be read, or is not a certificate or key.
            ValueError: The data or the key are unusable.
        """


@dataclass
class TlsFiles:
    """TLS settings with a CA and a client certificate, which are read again when their files change.

    Attributes:
        ca_file: The cluster's CA. If neither it nor `ca_data` is set, the system's CAs are trusted.
        cert_file: The client certificate with its chain. None: no certificate, or `cert_data`.
        key_file: The certificate's key. None: the key is in `key_data` or in `cert_file`.
        verify: Whether to verify the server's certificate. A kubeconfig may disable this.
        ca_data: The CA as PEM text, instead of a file.
        cert_data: The client certificate as PEM text, instead of a file.
        key_data: The key as PEM text, instead of a file.
    """

    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    verify: bool = True
    ca_data: str | None = None
    cert_data: str | None = None
    key_data: str | None = field(default=None, repr=False)
    _files: RotatedFiles[ssl.SSLContext] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        names = [name for name in (self.ca_file, self.cert_file, self.key_file) if name]
        self._files = RotatedFiles(names, self._load, period=LOOK_SECONDS)

    def context(self, *, refused: bool = False) -> ssl.SSLContext:
        """Returns the settings for new connections. It is a new object if a file has changed.

        Connections with earlier settings continue. The connection pool closes them when they become idle.
        While files are only partly rotated, the earlier settings stay in use.

        Args:
            refused: Whether the server has returned 401. The files are then checked now, not within 60 s.

        Raises:
            OSError: A file cannot be read or is not a certificate or key (ssl.SSLError is an OSError), and
                there are no earlier settings.
            ValueError: The key is encrypted.
        """
        return self._files.get(now=refused)

    def _load(self) -> ssl.SSLContext:
        context = tls_context(ca_file=self.ca_file, ca_data=self.ca_data, verify=self.verify)
        if not (self.cert_file or self.cert_data):
            return context
        with ExitStack() as files:
            certificate = self.cert_file or files.enter_context(_file(self.cert_data or ""))
            key = self.key_file or (self.key_data and files.enter_context(_file(self.key_data)))
            context.load_cert_chain(certificate, key or None, password=_no_passphrase)
        return context


@contextmanager
def _file(text: str) -> Iterator[str]:
    """Yields the path of a file with this text, because OpenSSL reads certificates and keys only from files.

    On Linux the file exists only in memory. So the key is never on a disk, and a container needs no writable
    folder. Elsewhere it is a private temporary file, which is deleted.
    """
    if sys.platform == "linux":
        with open(os.memfd_create("pilothouse"), "wb") as memory:
            memory.write(text.encode())
            memory.flush()
            yield f"/proc/self/fd/{memory.fileno()}"
    else:
        with tempfile.NamedTemporaryFile("w", prefix="pilothouse-") as file:
            file.write(text)
            file.flush()
            yield file.name


def _no_passphrase() -> str:
    """Refuses an encrypted key. Without this function, OpenSSL would prompt for the passphrase."""
    raise ValueError("the client key is encrypted: use a key without a passphrase")


def tls_context(
    *,
    ca_file: str | None = None,
    ca_data: str | None = None,
    cert_file: str | None = None,
    key_file: str | None = None,
    verify: bool = True,
) -> ssl.SSLContext:
    """Returns the TLS settings for a cluster. The arguments are those of `TlsFiles`.

    Raises:
        OSError: A file cannot be read, or is not a certificate or key (ssl.SSLError is an OSError).
    """
    context = ssl.create_default_context(cafile=ca_file, cadata=ca_data)
    if ca_file is not None or ca_data is not None:
        # This flag is a default since Python 3.13. It refuses the CAs of many clusters, because they have no
        # key usage extension. Chain, dates and host name are still verified.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if cert_file is not None:
        context.load_cert_chain(cert_file, key_file)
    return context
