from pathlib import Path

import pytest

from devcluster import python_base

OWN = "http://mirror.example.com/debian/"


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host without apt."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def respond(host: Path, program: str, text: str, query: str) -> None:
    """Installs a program that prints `text` if its arguments contain `query`."""
    script = f"#!/bin/sh\ncase \"$*\" in *'{query}'*) printf '%s' '{text}';; esac\n"
    (host / program).write_text(script)
    (host / program).chmod(0o755)


def test_a_host_without_apt_uses_debootstrap_s_default_mirror(host: Path) -> None:
    assert python_base.mirror() == []
    assert python_base.proxies() == {}


def test_the_host_s_mirror_and_proxy_are_used(host: Path) -> None:
    respond(host, "apt-get", f"cdrom:[disc]/\n{OWN}\nhttps://other.example.com/\n", "Label: Debian")
    respond(host, "apt-config", "http://proxy.example.com:3128", "Acquire::http::Proxy")
    assert python_base.mirror() == [OWN]
    assert python_base.proxies() == {"http_proxy": "http://proxy.example.com:3128"}


@pytest.mark.parametrize("text", ["", "cdrom:[disc]/\n", "mirror+file:/etc/apt/mirrors\n"])
def test_mirrors_that_debootstrap_cannot_read_are_skipped(host: Path, text: str) -> None:
    respond(host, "apt-get", text, "indextargets")
    assert python_base.mirror() == []


def test_without_a_proxy_no_variable_is_set(host: Path) -> None:
    respond(host, "apt-config", "DIRECT", "Proxy")
    assert python_base.proxies() == {}


def test_debootstrap_gets_the_mirror_and_the_proxy(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[list[str], dict[str, str]]] = []

    def run(words: list[object], env: dict[str, str] | None = None, **_: object) -> str:
        calls.append(([str(word) for word in words], env or {}))
        return ""

    monkeypatch.setattr(python_base, "run", run)
    monkeypatch.setattr(python_base, "_trim", lambda _: None)
    monkeypatch.setattr(python_base, "mirror", lambda: [OWN])
    monkeypatch.setattr(python_base, "proxies", lambda: {"http_proxy": "http://proxy.example.com:3128"})
    monkeypatch.delenv("http_proxy", raising=False)
    python_base.build(host / "draft")
    words, environment = calls[0]
    assert words[-1] == OWN
    assert environment["http_proxy"] == "http://proxy.example.com:3128"
