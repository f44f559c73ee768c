"""TLS connections to a cluster, from files that may be rotated while the process runs, or from data."""

import ssl
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from pilothouse.kube.files import RotatedFiles

# How long a rotated file may go unnoticed. The kubelet itself takes a minute to update a mounted file.
LOOK_SECONDS = 60.0


class TlsSource(Protocol):
    """Gives the TLS settings for the next connection."""

    def context(self, *, refused: bool = False) -> ssl.SSLContext:
        """Return the settings for new connections: another object once they have changed.

        Args:
            refused: The server answered 401, so what is remembered may be stale.

        Raises:
            OSError: There are none: a file cannot be read, or is not a certificate or key.
            ValueError: There are none: data or a key are unusable.
        """


@dataclass
class TlsFiles:
    """The CA that verifies the server and the client's certificate, read again when their files change.

    Attributes:
        ca_file: The cluster's CA. None trusts the system's CAs, unless there is `ca_data`.
        cert_file: The client's certificate, with its chain. None: no certificate, or `cert_data`.
        key_file: The certificate's key. None: `key_data`, or it is in `cert_file`.
        verify: False trusts any server, as a kubeconfig may request.
        ca_data: The CA as PEM text, instead of a file.
        cert_data: The client's certificate as PEM text, instead of a file.
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
        """Return the settings for new connections: a new object when a file has changed.

        Connections made with an earlier object continue. A pool that keeps them apart closes them when they
        become idle. Files that are only partly rotated leave the earlier settings in use.

        Args:
            refused: The server answered 401: check the files now, not within 60 s.

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
        # OpenSSL reads certificates and keys from files only. These are private, and gone in a moment.
        with tempfile.TemporaryDirectory(prefix="pilothouse-") as folder:
            certificate = self.cert_file or _written(folder, "tls.crt", self.cert_data)
            key = self.key_file or (self.key_data and _written(folder, "tls.key", self.key_data))
            context.load_cert_chain(certificate, key or None, password=_no_passphrase)
        return context


def _written(folder: str, name: str, text: str | None) -> str:
    path = Path(folder, name)
    path.touch(mode=0o600)
    path.write_text(text or "")
    return str(path)


def _no_passphrase() -> str:
    """Called for an encrypted key; without it, OpenSSL would ask for the passphrase on the terminal."""
    raise ValueError("the client key is encrypted: give one without a passphrase")


def tls_context(
    *,
    ca_file: str | None = None,
    ca_data: str | None = None,
    cert_file: str | None = None,
    key_file: str | None = None,
    verify: bool = True,
) -> ssl.SSLContext:
    """Return the TLS settings for a cluster; the arguments are those of `TlsFiles`.

    Raises:
        OSError: A file cannot be read or is not what it should be (ssl.SSLError is an OSError).
    """
    context = ssl.create_default_context(cafile=ca_file, cadata=ca_data)
    if ca_file is not None or ca_data is not None:
        # Python 3.13 made this flag a default; it refuses the CAs of many clusters for want of a key usage
        # extension. Chain, dates and host name are verified as before.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if cert_file is not None:
        context.load_cert_chain(cert_file, key_file)
    return context
