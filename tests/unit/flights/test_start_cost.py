"""The memory and start-up CPU time of the operator, relative to a bare interpreter with the same imports.

Both tend to grow unnoticed: an import at the top of a module costs every pod. Measured when this test was
written: 1.07 times the memory, 1.2 to 1.5 times the CPU time, also on a busy machine.
"""

import json
import subprocess
import sys
from typing import NamedTuple

MEMORY = 1.12
CPU = 1.7
STARTS = 4

IMPORTS = """
import json, sys, time
for name in json.loads(sys.argv[1]):
    __import__(name)
fields = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
ours = ("pilothouse", "flights_operator")
others = [name for name in sys.modules if name != "__main__" and not name.startswith(ours)]
print(json.dumps([float(fields["VmRSS"].split()[0]), time.process_time(), others]))
"""


class Cost(NamedTuple):
    """Resident KiB, seconds of CPU, and the modules that are not ours."""

    memory: float
    cpu: float
    modules: list[str]


def start(modules: list[str]) -> Cost:
    """Starts an interpreter that imports these modules, and measures it."""
    path = [each for each in sys.path if each]
    code = f"import sys; sys.path[:0] = {path!r}\n{IMPORTS}"
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, json.dumps(modules)], capture_output=True, text=True, check=True
    )
    return Cost(*json.loads(done.stdout))


def least(starts: list[Cost]) -> Cost:
    """Returns the smallest values of several starts, because other processes can only increase them."""
    return Cost(min(each.memory for each in starts), min(each.cpu for each in starts), starts[0].modules)


def test_the_operator_costs_little_more_than_the_libraries_that_it_imports() -> None:
    operators: list[Cost] = []
    bares: list[Cost] = []
    for _ in range(STARTS):
        operators.append(start(["flights_operator.__main__"]))
        bares.append(start(operators[0].modules))
    operator, bare = least(operators), least(bares)
    memory, cpu = operator.memory / bare.memory, operator.cpu / bare.cpu
    assert memory <= MEMORY, f"{memory:.2f} times the memory of a bare interpreter with the same imports"
    assert cpu <= CPU, f"{cpu:.2f} times the CPU of a bare interpreter with the same imports"
