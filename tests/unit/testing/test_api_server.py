"""The errors of the API server when its programs are missing."""

from pathlib import Path

import pytest

from pilothouse.testing import ApiServer, ApiServerError


def test_a_missing_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    with pytest.raises(ApiServerError, match=r"KUBEBUILDER_ASSETS is not set\. Set it to the folder"):
        ApiServer()


def test_a_missing_program_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        ApiServerError, match=rf"{tmp_path}/etcd does not exist .*\. Check KUBEBUILDER_ASSETS"
    ):
        ApiServer(tmp_path)
