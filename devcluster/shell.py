"""Running other programs: argument lists only, always with a deadline, failures as one readable error."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

#: Lines of a failed program's output that its error shows.
TAIL_LINES = 20


class ClusterError(Exception):
    """What a person must know or do before the work goes on: a clear sentence, shown without a traceback."""


class CommandError(ClusterError):
    """A program ended with an error, could not be started or passed its deadline."""


def run(
    argv: Sequence[str | Path],
    *,
    timeout: float,
    stdin: str = "",
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    log: Path | None = None,
) -> str:
    """Runs a program to its end and returns what it printed.

    Args:
        argv: the program and its arguments.
        timeout: seconds after which the program is killed.
        stdin: text for its standard input.
        env: the whole environment; none means this process's own.
        cwd: the folder it runs in.
        log: a file that receives all output instead (for long builds); the result is then empty.

    Raises:
        CommandError: with the last lines of the output.
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
        raise CommandError(f"'{words[0]}' is not installed, or the folder {cwd} is gone") from error
    except subprocess.TimeoutExpired as error:
        raise CommandError(f"'{_brief(words)}' did not end within {timeout:.0f} s and was stopped") from error
    if done.returncode != 0:
        complaint = log.read_text(errors="replace") if log else done.stderr or done.stdout
        tail = "\n  ".join(complaint.strip().splitlines()[-TAIL_LINES:])
        where = f"\n(all of it: {log})" if log else ""
        raise CommandError(f"'{_brief(words)}' failed with status {done.returncode}:\n  {tail}{where}")
    return done.stdout or ""


def succeeds(argv: Sequence[str | Path], *, timeout: float) -> bool:
    """Whether a program ends with status 0 within `timeout` seconds; its output is dropped."""
    try:
        run(argv, timeout=timeout)
    except CommandError:
        return False
    return True


def write_if_changed(file: Path, text: str, mode: int = 0o644) -> None:
    """Writes a file, new with `mode`, only when that changes it: some programs end when a file is written."""
    if not file.exists():
        file.touch(mode=mode)
    elif file.read_text() == text:
        return
    file.write_text(text)


def _brief(words: Sequence[str]) -> str:
    line = " ".join(words)
    return line if len(line) <= 160 else line[:157] + "..."
