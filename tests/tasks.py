"""`inv test` and its parts: checks that need no server, then unit, api and cluster tests."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from invoke.collection import Collection
from invoke.context import Context
from invoke.exceptions import Exit
from invoke.tasks import task

from devcluster import target as targets
from devcluster.shell import ClusterError
from devcluster.tasks import speaking_plainly, whole_number

#: What the API tests run: the newest Kubernetes and the oldest that is claimed.
API_TOOLS = "etcd,kubernetes,kubernetes-oldest"
ROOT = Path(__file__).resolve().parent.parent

CHECKS = {
    "format": "-m ruff format --check .",
    "lint": "-m ruff check .",
    "types": "-m mypy",
    "layers": "-c 'from importlinter.cli import lint_imports_command as lint; lint()' --no-logo",
    "generated": "-m invoke generate --check",
    "bundle": "-m invoke bundle --check",
    "catalog": "-m invoke catalog --check",
    "OLM": "-m invoke tools.render-olm --check",
}


@task(help={"fix": "let ruff mend what it can, first"})
def check(c: Context, fix: bool = False) -> None:
    """Format, lint, types, import layers and drift of the generated files."""
    if fix:
        _tool(c, "-m ruff format .")
        _tool(c, "-m ruff check --fix .")
    for name, command in CHECKS.items():
        _step(name, c, command)


@task(help={"select": "pytest's -k expression"})
def unit(c: Context, select: str = "") -> None:
    """Unit tests and the fault matrix: virtual time, no cluster."""
    _pytest(c, "tests/unit tests/faults", select)


@task(help={"select": "pytest's -k expression"})
def api(c: Context, select: str = "") -> None:
    """Tests against a real kube-apiserver and etcd, started by a fixture; no node."""
    _build(c)
    _pytest(c, "tests/api", select)


@task(help={"select": "pytest's -k expression"})
def cluster(c: Context, select: str = "") -> None:
    """Tests on the real node with OLM; brings the cluster up first when it is down."""
    _ready()
    _pytest(c, "tests/cluster", select)


@task(default=True)
def everything(c: Context) -> None:
    """All of it, as CI runs it: checks, then one pytest run over unit, api and cluster tests."""
    check(c)
    _build(c)
    _ready()
    _pytest(c, "tests/unit tests/faults tests/api tests/cluster", "")


@task
def soak(c: Context) -> None:
    """What takes longer than a test run may: the demo on a cluster that another checkout made."""
    _pytest(c, "tests/soak", "")


@task(name="flights")
@speaking_plainly
def bench_flights(_: Context) -> None:
    """Measures the flights operator on the local node, as OLM installed it; figures go to build/bench."""
    from tests.bench import flights  # imports the operator, which no other task here needs

    print(flights.table(flights.Bench().run()))


def _build(c: Context) -> None:
    """Builds what the API tests run: it takes longer than a test may."""
    _tool(c, f"-m invoke tools.build --only {API_TOOLS}")


@task(
    name="runtime",
    help={
        "busy": "on the local node, with OLM and its pods beside it; takes the installed operator away",
        "growth": "cold runs of 1,000, 10,000 and 100,000 tickets, half an hour, and nothing else",
        "rounds": "how often each is measured: some 12 minutes each time",
        "defaults": "also everybody without any tuning: some ten minutes more",
        "tickets": "another number tries the bench itself: its results and its page stay in build/bench",
    },
)
@speaking_plainly
def bench_runtime(
    _: Context,
    busy: bool = False,
    growth: bool = False,
    rounds: str = "3",
    defaults: bool = True,
    tickets: str = "10000",
) -> None:
    """Measures the runtime beside its peers; writes docs/benchmarks.md."""
    from tests.bench import reliability, report, runtime

    size = whole_number("tickets", tickets, least=runtime.LEAST)
    full = size == runtime.TICKETS
    file = runtime.RESULTS if full else runtime.RESULTS.with_name("trial.json")
    run = runtime.Run(tickets=size, rounds=whole_number("rounds", rounds), file=file)
    if busy and growth:
        raise Exit("--busy and --growth are two runs: ask for one", code=2)
    if growth:
        results = run.growth([size // 10, size, size * 10])
    else:
        results = run.busy() if busy else run.quiet(defaults=defaults)
    report.write(file, reliability.RESULTS, report.PAGE if full else file.with_suffix(".md"))
    _print_goals(results["goals"])


@task(name="reliability")
@speaking_plainly
def bench_reliability(_: Context) -> None:
    """Books 1,000 tickets while the API server is killed, watches are cut, requests fail."""
    from tests.bench import reliability, report, runtime

    results = reliability.Trials().run()
    report.write(runtime.RESULTS, reliability.RESULTS)
    _print_goals(results["goals"])


def _print_goals(goals: dict[str, dict[str, Any]]) -> None:
    for name, goal in goals.items():
        if goal["met"] is not None:
            told = "met    " if goal["met"] else "NOT MET"
            print(f"{told} {goal['value']:10.2f} <= {goal['goal']:6g}  {name}")


@task(name="profile")
@speaking_plainly
def bench_profile(_: Context) -> None:
    """Profiles the shipped operator while 10,000 tickets are booked, and changed; writes docs/profile."""
    from tests.bench import profile

    for page in profile.run():
        print(page)


def _ready() -> None:
    """Brings the cluster up before pytest hides what takes long about that."""
    try:
        targets.ensure()
    except ClusterError as error:
        raise Exit(str(error), code=1) from None


def _step(name: str, c: Context, command: str) -> None:
    started = time.monotonic()
    _tool(c, command)
    print(f"{name:12} ok  {time.monotonic() - started:5.1f} s", flush=True)


def _tool(c: Context, command: str) -> None:
    """Runs the Python of .venv with these arguments; ends when that fails."""
    # Not the scripts in .venv/bin: they stop working when the checkout is moved.
    env = {"PYTHONPATH": f"{ROOT}/operator:{ROOT}/examples:{ROOT}"}
    result = c.run(f"{sys.executable} {command}", env=env, warn=True, pty=False)
    if result is None or not result.ok:
        raise Exit(f"inv: 'python {command}' failed; its output is above", code=1)


def _pytest(c: Context, paths: str, select: str) -> None:
    chosen = f" -k {select!r}" if select else ""
    _tool(c, f"-m pytest {paths}{chosen}")


bench = Collection("bench", bench_flights, bench_runtime, bench_reliability, bench_profile)
namespace = Collection("test", everything, check, unit, api, cluster, soak)
