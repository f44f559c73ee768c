"""Runs other programs: always as argument lists and with a deadline. A failure is one readable error."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

#: Lines of a failed program's output that its error shows.
TAIL_LINES = 20


class ClusterError(Exception):
    """An error that the user can fix. Its message says how, and is shown without a traceback."""


class CommandError(ClusterError):
    """A program failed, could not be started or timed out."""


def run(
    argv: Sequence[str | Path],
    *,
    timeout: float,
    stdin: str = "",
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    log: Path | None = None,
) -> str:
    """Runs a program until it ends and returns its standard output.

    Args:
        argv: The program and its arguments.
        timeout: Seconds after which the program is killed.
        stdin: Text for its standard input.
        env: The whole environment. None means the environment of this process.
        cwd: The folder it runs in.
        log: A file that receives all output instead (for long builds). The result is then empty.

    Raises:
        CommandError: The program failed, could not be started or timed out. If it failed, the message
            contains the last lines of its output.
    """
    words = [str(word) for word in argv]
    try:
        with log.open("w") if log else nullcontext(subprocess.PIPE) as sink:
            done = subprocess.run(
                words,
                input=stdin,
                env=env,
                cwd=cwd,
                timeout=timeout,
                stdout=sink,
                stderr=sink,
                text=True,
                check=False,
            )
    except FileNotFoundError as error:
        missing_folder = f", or the folder {cwd} does not exist" if cwd else ""
        raise CommandError(f"'{words[0]}' is not installed{missing_folder}.") from error
    except subprocess.TimeoutExpired as error:
        raise CommandError(f"'{_brief(words)}' timed out after {timeout:.0f} s and was stopped.") from error
    if done.returncode != 0:
        output = log.read_text(errors="replace") if log else done.stderr or done.stdout
        tail = "\n  ".join(output.strip().splitlines()[-TAIL_LINES:])
        where = f"\n(complete output: {log})" if log else ""
        raise CommandError(f"'{_brief(words)}' failed with status {done.returncode}:\n  {tail}{where}")
    return done.stdout or ""


def succeeds(argv: Sequence[str | Path], *, timeout: float) -> bool:
    """Returns whether a program ends with status 0 within `timeout` seconds. Discards its output."""
    try:
        run(argv, timeout=timeout)
    except CommandError:
        return False
    return True


def write_if_changed(file: Path, text: str, mode: int = 0o644) -> None:
    """Writes a file only if its content differs, because some programs exit when their file is written.

    A new file gets `mode`.
    """
    if not file.exists():
        file.touch(mode=mode)
    elif file.read_text() == text:
        return
    file.write_text(text)


def _brief(words: Sequence[str]) -> str:
    line = " ".join(words)
    return line if len(line) <= 160 else line[:157] + "..."
