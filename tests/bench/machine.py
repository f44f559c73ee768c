"""The machine that the figures of a run belong to."""

from __future__ import annotations

import os
import platform


def hardware() -> str:
    """Returns the cores, the memory and the kernel, for example "2 cores, 24 GiB, Linux 6.18.44"."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores, {memory:.0f} GiB, Linux {platform.release().split('-')[0]}"
