"""What the benchmark counts of a process and of those that it starts."""

import os
import signal
import sys
import time
from pathlib import Path

from tests.bench.usage import Contestant

#: Starts a process from a thread that is not its first, as a Go program may; that one says so and waits.
PARENT = """
import subprocess, sys, threading
argv = [sys.executable, "-c", "print('up', flush=True); input()"]
threading.Thread(target=lambda: subprocess.run(argv, stdin=open(sys.argv[1]))).start()
"""


def test_a_child_counts_whichever_thread_has_started_it(tmp_path: Path) -> None:
    never = tmp_path / "never"
    os.mkfifo(never)
    held = os.open(never, os.O_RDWR)
    try:
        with Contestant([sys.executable, "-c", PARENT, never], {}, tmp_path / "log") as parent:
            ends = time.monotonic() + 30
            while "up" not in parent.log.read_text() and time.monotonic() < ends:
                time.sleep(0.01)
            main, child = parent.pids
            os.kill(child, signal.SIGKILL)
            assert parent.wait() == 0
        assert main != child
    finally:
        os.close(held)
