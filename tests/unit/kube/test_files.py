"""Files that are rotated while the process runs."""

from pathlib import Path

import pytest

from pilothouse.kube import RotatedFiles


class Reader:
    """Counts how often the file is read; refuses the content "bad"."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.reads = 0

    def __call__(self) -> str:
        self.reads += 1
        if (text := self.path.read_text()) == "bad":
            raise ValueError("it is bad")
        return text


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_text("one")
    return path


def replace(file: Path, text: str) -> None:
    new = file.with_name("new")
    new.write_text(text)
    new.replace(file)


def test_a_file_is_read_again_only_when_it_has_changed(file: Path) -> None:
    read = Reader(file)
    files = RotatedFiles([file], read)
    assert [files.get(), files.get(), read.reads] == ["one", "one", 1]
    replace(file, "two")
    assert [files.get(), files.get(), read.reads] == ["two", "two", 2]


def test_files_are_checked_once_per_period_and_on_request(file: Path) -> None:
    clock = [0.0]
    files = RotatedFiles([file], Reader(file), clock=lambda: clock[0], period=60)
    assert files.get() == "one"
    replace(file, "two")
    clock[0] = 59
    assert files.get() == "one"
    clock[0] = 60
    assert files.get() == "two"
    replace(file, "three")
    assert files.get(now=True) == "three"


@pytest.mark.parametrize("failure", ["bad", None])
def test_with_unusable_files_the_last_valid_value_is_kept(
    file: Path, failure: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    files = RotatedFiles([file], Reader(file))
    assert files.get() == "one"
    if failure:
        replace(file, failure)
    else:
        file.unlink()
    assert [files.get(), files.get()] == ["one", "one"]
    [record] = caplog.records
    assert f"Keeping the last valid content of {file}: " in record.getMessage()
    replace(file, "two")
    assert files.get() == "two"


def test_a_file_that_reappears_unchanged_causes_no_warning(file: Path) -> None:
    files = RotatedFiles([file], Reader(file))
    files.get()
    away = file.rename(file.with_name("away"))
    assert files.get() == "one"
    away.rename(file)
    assert files.get() == "one"


@pytest.mark.parametrize(("failure", "error"), [("bad", ValueError), (None, FileNotFoundError)])
def test_without_an_earlier_value_the_error_is_raised(
    file: Path, failure: str | None, error: type[Exception]
) -> None:
    replace(file, failure) if failure else file.unlink()
    files = RotatedFiles([file], Reader(file))
    with pytest.raises(error):
        files.get()
    replace(file, "two")
    assert files.get() == "two"
