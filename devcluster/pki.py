"""The cluster's certificates and kubeconfig files, created with openssl and renewed before they expire."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from devcluster.shell import run, succeeds, write_if_changed

_CA_DAYS = 3650
_LEAF_DAYS = 730
#: Seconds before its expiry in which a certificate is renewed at a start. Clusters are rarely up for longer.
_RENEW_BEFORE = 60 * 24 * 3600
_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
# Python 3.13 clients verify strictly (RFC 5280): they require keyUsage and both key identifiers.
_CA_EXTENSIONS = (
    "basicConstraints=critical,CA:TRUE",
    "keyUsage=critical,keyCertSign,cRLSign",
    "subjectKeyIdentifier=hash",
)
_LEAF_EXTENSIONS = (
    "basicConstraints=critical,CA:FALSE",
    "keyUsage=critical,digitalSignature",
    "extendedKeyUsage=serverAuth,clientAuth",
    "subjectKeyIdentifier=hash",
    "authorityKeyIdentifier=keyid:always",
)


@dataclass(frozen=True)
class Authority:
    """A certificate authority: NAME.crt and NAME.key in `folder`."""

    folder: Path
    name: str

    @property
    def certificate(self) -> Path:
        """The authority's own certificate, which clients trust."""
        return self.folder / f"{self.name}.crt"

    def ensure(self, subject: str) -> None:
        """Creates the authority if it does not exist. A new one would invalidate its certificates."""
        if not self.certificate.exists():
            _issue(self.folder, self.name, subject, _CA_EXTENSIONS, ["-days", str(_CA_DAYS)])

    def sign(self, folder: Path, name: str, subject: str, alternative_names: Sequence[str] = ()) -> None:
        """Creates NAME.crt and NAME.key in `folder`, unless valid ones with these names exist."""
        wanted = json.dumps([subject, list(alternative_names)])
        record = folder / f"{name}.wish"
        valid = [
            "openssl",
            "x509",
            "-noout",
            "-checkend",
            str(_RENEW_BEFORE),
            "-in",
            f"{folder / name}.crt",
        ]
        if record.exists() and record.read_text() == wanted and succeeds(valid, timeout=10):
            return
        extensions = list(_LEAF_EXTENSIONS)
        if alternative_names:
            extensions.append("subjectAltName=" + ",".join(alternative_names))
        signer = ["-CA", str(self.certificate), "-CAkey", str(self.folder / f"{self.name}.key")]
        _issue(folder, name, subject, extensions, [*signer, "-days", str(_LEAF_DAYS)])
        record.write_text(wanted)

    def kubeconfig(self, folder: Path, name: str, server: str) -> None:
        """Writes NAME.conf, a kubeconfig with the certificate NAME.crt.

        Args:
            folder: Contains NAME.crt and NAME.key, and receives the file.
            name: The name of the certificate.
            server: The host:port of the API server.
        """
        cluster = {
            "server": f"https://{server}",
            "certificate-authority-data": _embedded(self.certificate),
        }
        user = {
            "client-certificate-data": _embedded(folder / f"{name}.crt"),
            "client-key-data": _embedded(folder / f"{name}.key"),
        }
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "pilothouse", "cluster": cluster}],
            "users": [{"name": name, "user": user}],
            "contexts": [{"name": "pilothouse", "context": {"cluster": "pilothouse", "user": name}}],
            "current-context": "pilothouse",
        }
        write_if_changed(folder / f"{name}.conf", json.dumps(document, indent=2) + "\n", mode=0o600)


def _issue(folder: Path, name: str, subject: str, extensions: Sequence[str], more: Sequence[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    config = "[req]\ndistinguished_name=dn\n[dn]\n[ext]\n" + "\n".join(extensions) + "\n"
    files = ["-keyout", str(folder / f"{name}.key"), "-out", str(folder / f"{name}.crt")]
    request = ["openssl", "req", "-x509", *_KEY, "-config", "/dev/stdin", "-extensions", "ext"]
    run([*request, "-subj", subject, *files, *more], timeout=30, stdin=config)


def _embedded(file: Path) -> str:
    return base64.b64encode(file.read_bytes()).decode()


def ensure_signing_key(folder: Path) -> None:
    """Creates sa.key and sa.pub, which sign and verify service account tokens, if they do not exist."""
    if not (folder / "sa.pub").exists():
        curve = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
        run(["openssl", "genpkey", *curve, "-out", folder / "sa.key"], timeout=30)
        run(["openssl", "pkey", "-in", folder / "sa.key", "-pubout", "-out", folder / "sa.pub"], timeout=30)
