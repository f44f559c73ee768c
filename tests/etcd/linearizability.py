"""Checks with porcupine whether a history is linearizable, each key being a register.

The checker is a small Go program (tests/etcd/checker). With many writes that have no answer, its search would
take exponential time. So `registers` bounds or removes them first, which never changes the verdict.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable
from pathlib import Path

import msgspec

from devcluster import toolchain
from tests.etcd.history import Kind, Operation, Outcome

#: Seconds for the search in the history of one key, and for the whole check.
KEY_SECONDS = 60
_TIMEOUT = 900.0


def check(operations: Iterable[Operation], page: Path | None = None) -> str:
    """Returns which key is not linearizable; empty if all are.

    Args:
        operations: The reads and writes of all clients.
        page: An HTML file to write if a key is not linearizable. It shows the operations on that key.

    Raises:
        ClusterError: The checker could not be built.
    """
    words: list[str | Path] = [toolchain.binary("linearizability"), f"-timeout={KEY_SECONDS}s"]
    words += [f"-visualize={page}"] if page else []
    done = subprocess.run(
        words,
        input=msgspec.json.encode(registers(operations)),
        capture_output=True,
        timeout=_TIMEOUT,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stderr.decode())
    found = json.loads(done.stdout)
    match found["verdict"]:
        case "linearizable":
            return ""
        case "timed out":
            return f"The check of {found['key']} did not end within {KEY_SECONDS} s."
    where = f" The file {page} shows them." if page else ""
    return f"The operations on {found['key']} are not linearizable.{where}"


def registers(operations: Iterable[Operation]) -> list[Operation]:
    """Returns the operations to check: those that had an effect, with the time by which they had it.

    Failed operations had none. A write without an answer is one of two cases, because no other attempt writes
    the same value:

    - A read returned its value. Then the write took effect before that read returned.
    - No read returned its value. If there is a valid order with the write, no read is between it and the next
      write, so the order without it is valid, too. The write is left out.
    """
    known = [each for each in operations if each.outcome is not Outcome.FAILED]
    seen: dict[tuple[str, str | None], int] = {}
    for each in known:
        if each.kind is Kind.READ:
            place = (each.key, each.value)
            seen[place] = min(each.returned, seen.get(place, each.returned))
    found = []
    for each in known:
        if each.outcome is Outcome.OK:
            found.append(each)
        elif (each.key, each.value) in seen:
            # If the read was earlier than the write, the check must fail, so the write keeps its time.
            taken = max(each.called, seen[each.key, each.value])
            found.append(msgspec.structs.replace(each, returned=taken))
    return found
