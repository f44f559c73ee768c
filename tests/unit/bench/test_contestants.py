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
    ("tuned", "defaults"),
    [(CLIENT_GO, CLIENT_GO_DEFAULTS), (CONTROLLER_RUNTIME, CONTROLLER_RUNTIME_DEFAULTS)],
)
def test_what_comes_untuned_is_the_same_program_with_the_defaults_of_its_library(
    tuned: Entry, defaults: Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toolchain, "binary", Path)
    place = Place("https://api", tmp_path / "ca.crt", "token", "http://airline", tmp_path)
    (words, variables), (plain, none) = (entry.command(place) for entry in (tuned, defaults))
    assert plain == [*words, "-defaults"]
    assert (variables, none) == ({"KUBE_FEATURE_WatchListClient": "true"}, {})
