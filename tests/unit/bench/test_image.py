"""What is written in Python runs in the file system of the image."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.bench import image

BUSYBOX = "/bin/busybox"

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root, as the benchmark does")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file system with a shell, in which a folder of this one is shown."""
    root, shown = tmp_path / "root", tmp_path / "shown"
    shown.mkdir()
    (shown / "file").write_text("shown")
    for folder in ("/bin", "/proc", "/dev", image.ACCOUNT, shown):
        (root / str(folder).lstrip("/")).mkdir(parents=True)
    shutil.copy(BUSYBOX, root / "bin")
    monkeypatch.setattr(image, "ROOT", root)
    return root


def test_a_command_inside_sees_the_account_and_the_shown_folders_and_keeps_its_process(
    root: Path, tmp_path: Path
) -> None:
    account = tmp_path / "account"
    account.mkdir()
    (account / "token").write_text("secret, ")
    script = f"cat {image.ACCOUNT}/token {tmp_path}/shown/file; echo; echo $$; ls /; exit 3"
    process = subprocess.Popen(
        image.inside(account, [BUSYBOX, "sh", "-c", script], shown=[tmp_path / "shown"]),
        stdout=subprocess.PIPE,
        text=True,
    )
    told, _ = process.communicate(timeout=30)
    said, pid, *top = told.splitlines()
    assert (said, int(pid), process.returncode) == ("secret, shown", process.pid, 3)
    assert "bin" in top
    assert "usr" not in top, "it is not the host's"
    assert not list((root / image.ACCOUNT.lstrip("/")).iterdir()), "nothing stays mounted"


def test_a_command_without_its_account_is_not_run(root: Path, tmp_path: Path) -> None:
    words = image.inside(tmp_path / "missing", [BUSYBOX, "echo", "ran"], shown=[])
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode != 0
    assert done.stdout == ""
    assert "missing" in done.stderr
