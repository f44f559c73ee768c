"""Certificates for the client's tests, made with openssl."""

import ssl
import subprocess
from pathlib import Path

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
DAYS = 100


class Authority:
    """A CA in its own directory. Like the CAs of some clouds, it has no key usage extension."""

    def __init__(self, folder: Path, *, days: int = DAYS) -> None:
        self._folder = folder
        self.ca_file = folder / "ca.crt"
        name = ("-subj", "/CN=test-ca")
        self._openssl("-x509", "-keyout", folder / "ca.key", "-out", self.ca_file, *name, days=days)

    def issue(
        self, name: str, alternative_names: str = "IP:127.0.0.1", *, usage: str = "", days: int = DAYS
    ) -> tuple[Path, Path]:
        """Returns the files of a new certificate and its key.

        Args:
            name: The common name, and the name of the files. An earlier certificate of it is overwritten.
            alternative_names: The names in OpenSSL's notation. Empty: none.
            usage: The extended key usage in OpenSSL's notation. Empty: not restricted.
            days: How many days it is valid from now.
        """
        certificate, key = self._folder / f"{name}.crt", self._folder / f"{name}.key"
        ca = ("-CA", self.ca_file, "-CAkey", self._folder / "ca.key")
        extensions = {"subjectAltName": alternative_names, "extendedKeyUsage": usage}
        added = [
            word for field, text in extensions.items() if text for word in ("-addext", f"{field}={text}")
        ]
        subject = ("-subj", f"/CN={name}")
        self._openssl("-x509", *ca, *added, "-keyout", key, "-out", certificate, *subject, days=days)
        return certificate, key

    def server_context(self, name: str, alternative_names: str = "IP:127.0.0.1") -> ssl.SSLContext:
        """Returns the settings of a server that accepts only clients with a certificate of this CA."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=self.ca_file)
        context.load_cert_chain(*self.issue(name, alternative_names))
        # Python 3.13 would refuse such a CA.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        context.verify_mode = ssl.CERT_REQUIRED
        return context

    def _openssl(self, *arguments: str | Path, days: int) -> None:
        command = ["openssl", "req", *_KEY, "-days", str(days), *arguments]
        subprocess.run(command, check=True, capture_output=True)
