"""Logs each defect's traceback once, however many objects it affects and however often it repeats."""

import logging
import traceback as tracebacks
from collections import OrderedDict
from types import TracebackType
from typing import TypeAlias

from pilothouse.telemetry.redaction import redacted

# How many defects are remembered. Beyond that, the one that has not occurred for the longest time is
# forgotten, and its next occurrence logs a traceback again.
CAPACITY = 256

_Defect: TypeAlias = tuple[type[BaseException], frozenset[tuple[str, int]]]

_occurrences: "OrderedDict[_Defect, int]" = OrderedDict()


def log_defect(log: logging.Logger, error: BaseException, message: str, *args: object) -> None:
    """Logs an unexpected error, with its traceback only when the same defect occurs for the first time.

    Two errors are the same defect if they have the same type and were raised on the same lines. Repetitions
    are logged as one line without a traceback: the 2nd to the 9th, and then every 10th, 100th and so on. The
    other repetitions are logged at level debug.

    Args:
        log: The logger of the caller.
        error: The unexpected error.
        message: What failed, with %-placeholders.
        *args: Values for the placeholders.
    """
    times = _count(error)
    if times == 1:
        text = "".join(tracebacks.format_exception(error)).rstrip()
        if (shown := redacted(text)) == text:
            log.error(message, *args, exc_info=error)
        else:
            # Handlers of other libraries would format the error itself.
            log.error(f"{message}\n%s", *args, shown)
        return
    level = logging.ERROR if _is_round(times) else logging.DEBUG
    repeated = "%s (%s, occurrence %d of this defect; the traceback was logged with the first)"
    if log.isEnabledFor(level):
        log.log(level, repeated, message % args if args else message, type(error).__name__, times)


def forget_defects() -> None:
    """Forgets all defects, as if the process had just started."""
    _occurrences.clear()


def _count(error: BaseException) -> int:
    defect = type(error), _lines(error.__traceback__)
    times = _occurrences[defect] = _occurrences.pop(defect, 0) + 1
    if len(_occurrences) > CAPACITY:
        _occurrences.popitem(last=False)
    return times


def _lines(traceback: TracebackType | None) -> frozenset[tuple[str, int]]:
    """Returns the lines that an error passed through, as a set: the depth of a recursion may vary."""
    lines = set()
    while traceback is not None:
        lines.add((traceback.tb_frame.f_code.co_filename, traceback.tb_lineno))
        traceback = traceback.tb_next
    return frozenset(lines)


def _is_round(number: int) -> bool:
    """Whether all digits after the first are 0."""
    return not str(number)[1:].strip("0")
