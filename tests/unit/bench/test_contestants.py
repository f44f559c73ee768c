"""How the contestants of the benchmark are started."""

from pathlib import Path

import pytest

from devcluster import toolchain
from tests.bench.contestants import (
    CLIENT_GO,
    CLIENT_GO_DEFAULTS,
    CONTROLLER_RUNTIME,
    CONTROLLER_RUNTIME_DEFAULTS,
    Entry,
    Place,
)


@pytest.mark.parametrize(
    ("tuned", "defaults", "differs"),
    [
        (CLIENT_GO, CLIENT_GO_DEFAULTS, {"-qps=0"}),
        (CONTROLLER_RUNTIME, CONTROLLER_RUNTIME_DEFAULTS, {"-workers=16", "-workers=0"}),
    ],
)
def test_what_comes_untuned_is_the_same_program_with_the_defaults_of_its_library(
    tuned: Entry, defaults: Entry, differs: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toolchain, "binary", Path)
    place = Place("https://api", tmp_path / "ca.crt", "token", "http://airline", tmp_path)
    words = [set(map(str, entry.command(place)[0])) for entry in (tuned, defaults)]
    assert words[0] ^ words[1] == differs
