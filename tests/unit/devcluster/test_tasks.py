import errno
import os
from pathlib import Path

import pytest
from invoke.exceptions import Exit

from devcluster import folders
from devcluster.shell import ClusterError
from devcluster.tasks import speaking_plainly, whole_number


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    for variable in ("XDG_CACHE_HOME", "XDG_STATE_HOME"):
        monkeypatch.setenv(variable, str(tmp_path))


@pytest.mark.parametrize(
    ("base", "sentence"),
    [("file", "file/pilothouse.*: Not a directory"), ("/proc/nope", "/proc/nope: No such file")],
)
def test_a_cache_that_cannot_be_made_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, base: str, sentence: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / base))
    make = speaking_plainly(lambda: (folders.cache() / "tools" / "bin").mkdir(parents=True))
    with pytest.raises(Exit, match=f"{sentence}.*; correct that, or set XDG_CACHE_HOME"):
        make()


def fails(number: int, *file: str) -> None:
    raise OSError(number, os.strerror(number), *file)


def test_a_full_disk_is_one_sentence() -> None:
    with pytest.raises(Exit, match="a file could not be written: No space left on device; "):
        speaking_plainly(fails)(errno.ENOSPC)  # a write knows no file's name


@pytest.mark.parametrize("file", [("/srv/manifests/forgotten.yaml",), ()])
def test_our_own_errors_stay_loud(file: tuple[str, ...]) -> None:
    with pytest.raises(FileNotFoundError):
        speaking_plainly(fails)(errno.ENOENT, *file)


def test_a_file_that_we_forgot_in_the_state_folder_stays_loud() -> None:
    with pytest.raises(FileNotFoundError):
        speaking_plainly(lambda: fails(errno.ENOENT, str(folders.clusters() / "x" / "subnet")))()


@pytest.mark.parametrize("text", ["abc", "", "-1", "1.5", "\u0663", "99", "9" * 5000])
def test_an_option_that_is_no_such_number_is_one_sentence(text: str) -> None:
    with pytest.raises(ClusterError, match=f"--lines is a whole number of 100 or more, not '{text}'"):
        whole_number("lines", text, least=100)


def test_an_option_that_is_such_a_number() -> None:
    assert whole_number("lines", "100", least=100) == 100
