"""Digests of official images, from a registry on this machine that asks for tokens as public ones do."""

import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from devcluster.shell import ClusterError
from release import cut, publish
from release.official_images import resolve
from release.packages import PACKAGES

MANIFEST = b'{"schemaVersion": 2}'
DIGEST = f"sha256:{hashlib.sha256(MANIFEST).hexdigest()}"
ETCD = PACKAGES["pilothouse-etcd"]


@dataclass
class Registry:
    """A registry with one image, coreos/etcd:v3.6.14.

    Attributes:
        host: Its address, as in references.
        digest: The digest that it reports.
        challenge: Whether it asks for a token.
        requests: The path and the Authorization header of each request.
    """

    host: str = ""
    digest: str = DIGEST
    challenge: bool = True
    requests: list[tuple[str, str]] = field(default_factory=list)

    def answer(self, path: str, authorization: str) -> tuple[int, dict[str, str], bytes]:
        """Returns the status, the headers and the body for a request."""
        self.requests.append((path, authorization))
        if path.startswith("/token"):
            return 200, {}, json.dumps({"token": "secret"}).encode()
        if self.challenge and authorization != "Bearer secret":
            scope = 'service="here",scope="repository:coreos/etcd:pull"'
            return 401, {"WWW-Authenticate": f'Bearer realm="http://{self.host}/token",{scope}'}, b""
        if path != "/v2/coreos/etcd/manifests/v3.6.14":
            return 404, {}, b""
        return 200, {"Docker-Content-Digest": self.digest} if self.digest else {}, MANIFEST


@pytest.fixture
def registry() -> Iterator[Registry]:
    """A running registry."""
    found = Registry()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, body = found.answer(self.path, self.headers.get("Authorization", ""))
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found.host = f"127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield found
        server.shutdown()
        thread.join()


def test_a_tag_becomes_the_digest_that_the_registry_has(registry: Registry) -> None:
    image = f"{registry.host}/coreos/etcd"
    assert resolve({"X": f"{image}:v3.6.14"}) == {"X": f"{image}@{DIGEST}"}
    paths = [path.partition("?")[0] for path, _ in registry.requests]
    manifest = "/v2/coreos/etcd/manifests/v3.6.14"
    assert paths == [manifest, "/token", manifest]
    assert "service=here&scope=repository%3Acoreos%2Fetcd%3Apull" in registry.requests[1][0]


def test_a_registry_without_tokens_is_asked_once(registry: Registry) -> None:
    registry.challenge, registry.digest = False, ""
    assert resolve({"X": f"{registry.host}/coreos/etcd:v3.6.14"})["X"].endswith(f"@{DIGEST}")
    assert len(registry.requests) == 1


def test_a_digest_of_another_content_is_refused(registry: Registry) -> None:
    registry.digest = f"sha256:{'0' * 64}"
    with pytest.raises(ClusterError, match="sent another content"):
        resolve({"X": f"{registry.host}/coreos/etcd:v3.6.14"})


def test_an_image_that_the_registry_does_not_have_is_named(registry: Registry) -> None:
    with pytest.raises(ClusterError, match=r"digest of .*/coreos/etcd:v9: HTTP Error 404"):
        resolve({"X": f"{registry.host}/coreos/etcd:v9"})


def test_a_reference_without_a_tag_is_refused() -> None:
    with pytest.raises(ClusterError, match="must be HOST/PATH:TAG"):
        resolve({"X": f"quay.io/coreos/etcd@{DIGEST}"})


def test_without_its_registry_a_release_names_the_option_and_builds_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse() -> str:
        raise AssertionError("built")

    monkeypatch.setattr(publish, "operator_image", refuse)
    unreachable = replace(ETCD, official={"RELATED_IMAGE_X": "127.0.0.1:9/coreos/etcd:v3.6.14"})
    monkeypatch.setattr(cut, "PACKAGES", {ETCD.name: unreachable})
    with pytest.raises(ClusterError, match=r"127\.0\.0\.1:9/coreos/etcd:v3\.6\.14.*--local-images"):
        list(cut.cut())


def test_every_image_of_the_operator_has_an_official_one() -> None:
    assert ETCD.official["RELATED_IMAGE_ETCD_3_5_0"] == "quay.io/coreos/etcd:v3.5.0"
    assert not PACKAGES["pilothouse-flights"].official
