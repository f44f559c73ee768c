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

#: A thread that is not its first works for 50 ms, says so and waits.
WORKER = """
import threading, time
def work():
    while time.thread_time() < 0.05:
        pass
    print("done", flush=True)
    time.sleep(60)
threading.Thread(target=work, daemon=True).start()
time.sleep(60)
"""


def test_a_child_counts_whichever_thread_has_started_it(tmp_path: Path) -> None:
    never = tmp_path / "never"
    os.mkfifo(never)
    held = os.open(never, os.O_RDWR)
    try:
        with Contestant([sys.executable, "-c", PARENT, never], {}, tmp_path / "log") as parent:
            wait_logged(parent, "up")
            main, child = parent.pids
            os.kill(child, signal.SIGKILL)
            assert parent.wait() == 0
        assert main != child
    finally:
        os.close(held)


def test_what_threads_have_run_is_counted_finer_than_the_ticks_of_the_kernel(tmp_path: Path) -> None:
    with Contestant([sys.executable, "-c", WORKER], {}, tmp_path / "log") as worker:
        wait_logged(worker, "done")
        used = worker.on_cpu_seconds()
        os.kill(worker.pids[0], signal.SIGKILL)
        worker.wait()
        assert used >= 0.05
        assert worker.on_cpu_seconds() == 0.0


def wait_logged(contestant: Contestant, word: str) -> None:
    """Waits until it has written the word."""
    ends = time.monotonic() + 30
    while word not in contestant.log.read_text():
        contestant.check()
        assert time.monotonic() < ends, f"{word} was not written"
        time.sleep(0.01)
