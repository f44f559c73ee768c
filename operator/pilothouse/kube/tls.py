"""TLS connections to a cluster, from files that may be rotated while the process runs."""

import ssl
from dataclasses import dataclass, field

from pilothouse.kube.files import RotatedFiles

# How long a rotated file may go unnoticed. The kubelet itself takes a minute to update a mounted file.
LOOK_SECONDS = 60.0


@dataclass
class TlsFiles:
    """The CA that verifies the server and the client's certificate, read again when they change.

    Attributes:
        ca_file: The cluster's CA. None trusts the system's CAs.
        cert_file: The client's certificate, with its chain. None: no certificate.
        key_file: The certificate's key. None: it is in `cert_file`.
        verify: False trusts any server, as a kubeconfig may request.
    """

    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    verify: bool = True
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
        """
        return self._files.get(now=refused)

    def _load(self) -> ssl.SSLContext:
        return tls_context(
            ca_file=self.ca_file, cert_file=self.cert_file, key_file=self.key_file, verify=self.verify
        )


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
