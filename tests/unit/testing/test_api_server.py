"""Without its programs the API server says what to do."""

from pathlib import Path

import pytest

from pilothouse.testing import ApiServer, ApiServerError


def test_a_missing_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    with pytest.raises(ApiServerError, match="KUBEBUILDER_ASSETS is not set: name the folder"):
        ApiServer()


def test_a_missing_program_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        ApiServerError, match=rf"there is no program {tmp_path}/etcd: check KUBEBUILDER_ASSETS"
    ):
        ApiServer(tmp_path)
