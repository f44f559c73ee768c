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
def test_a_cache_that_cannot_be_created_ends_with_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, base: str, sentence: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / base))
    make = speaking_plainly(lambda: (folders.cache() / "tools" / "bin").mkdir(parents=True))
    with pytest.raises(Exit, match=rf"{sentence}.*\. Correct that, or set XDG_CACHE_HOME"):
        make()


def fails(number: int, *file: str) -> None:
    raise OSError(number, os.strerror(number), *file)


def test_a_full_disk_ends_with_one_message() -> None:
    with pytest.raises(Exit, match=r"Could not write a file: No space left on device\. "):
        speaking_plainly(fails)(errno.ENOSPC)  # An error of write() has no file name.


@pytest.mark.parametrize("file", [("/srv/manifests/forgotten.yaml",), ()])
def test_our_own_errors_show_a_traceback(file: tuple[str, ...]) -> None:
    with pytest.raises(FileNotFoundError):
        speaking_plainly(fails)(errno.ENOENT, *file)


def test_a_file_missing_in_the_state_folder_shows_a_traceback() -> None:
    with pytest.raises(FileNotFoundError):
        speaking_plainly(lambda: fails(errno.ENOENT, str(folders.clusters() / "x" / "subnet")))()


@pytest.mark.parametrize("text", ["abc", "", "-1", "1.5", "\u0663", "99", "9" * 5000])
def test_an_option_that_is_not_such_a_number_is_refused(text: str) -> None:
    with pytest.raises(ClusterError, match=f"--lines must be a whole number of 100 or more, not '{text}'"):
        whole_number("lines", text, least=100)


def test_an_option_that_is_such_a_number() -> None:
    assert whole_number("lines", "100", least=100) == 100
