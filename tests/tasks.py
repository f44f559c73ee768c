"""`inv test` and its parts: static checks, then unit, API and cluster tests. Also the benchmarks."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any, cast

from invoke.collection import Collection
from invoke.context import Context
from invoke.exceptions import Exit
from invoke.runners import Promise, Result
from invoke.tasks import task

from devcluster import target as targets
from devcluster.base_images import ETCD_IMAGES
from devcluster.shell import ClusterError
from devcluster.tasks import speaking_plainly, whole_number

#: The tools of tests with etcd: the versions that have an image, and the checker of histories.
ETCD_TOOLS = (*ETCD_IMAGES, "linearizability")
#: The tools of the API tests: etcd, and the newest and the oldest supported Kubernetes.
API_TOOLS = (*ETCD_TOOLS, "kubernetes", "kubernetes-oldest")
ROOT = Path(__file__).resolve().parent.parent
ENV = {"PYTHONPATH": f"{ROOT}/operator:{ROOT}/examples:{ROOT}"}

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


@task(help={"fix": "let ruff fix what it can first"})
def check(c: Context, fix: bool = False) -> None:
    """Checks format, lint, types, import layers, and that the generated files are up to date."""
    if fix:
        _tool(c, "-m ruff format .")
        _tool(c, "-m ruff check --fix .")
    for name, command in CHECKS.items():
        _step(name, c, command)


@task(help={"select": "pytest's -k expression"})
def unit(c: Context, select: str = "") -> None:
    """Runs the unit tests and the fault matrix, in virtual time and without a cluster."""
    _pytest(c, "tests/unit tests/faults", select)


@task(help={"select": "pytest's -k expression"})
def api(c: Context, select: str = "") -> None:
    """Runs the API tests against a real kube-apiserver and etcd, without a node."""
    _build(c, API_TOOLS)
    _pytest(c, "tests/api", select)


@task(help={"select": "pytest's -k expression"})
def cluster(c: Context, select: str = "") -> None:
    """Runs the cluster tests on the node with OLM. Starts the cluster if it is down."""
    _ready(c)
    _pytest(c, "tests/cluster", select)


@task(default=True)
def everything(c: Context) -> None:
    """Runs everything, as CI does: the checks, then the unit, API and cluster tests."""
    check(c)
    _build(c, API_TOOLS)
    _ready(c)
    # The cluster tests mostly wait for the node, while the others compute. Both halves take about as long.
    with _in_background(c, "tests/unit tests/api"):
        _pytest(c, "tests/cluster tests/faults", "")


@task
def soak(c: Context) -> None:
    """Runs the long tests: etcd clusters on the node, the demo on another checkout's cluster, and models."""
    _build(c, API_TOOLS)
    _ready(c)
    with _in_background(c, "tests/soak/models"):
        _pytest(c, "tests/soak --ignore=tests/soak/models", "")


@task(name="flights")
@speaking_plainly
def bench_flights(_: Context) -> None:
    """Measures the flights operator on the local node, as installed by OLM; writes build/bench."""
    from tests.bench import flights  # imports the operator, which the other tasks do not need

    print(flights.table(flights.Bench().run()))


def _build(c: Context, tools: Sequence[str]) -> None:
    """Builds the tools of tests before pytest runs, because that takes longer than the timeout of a test."""
    _tool(c, f"-m invoke tools.build --only {','.join(tools)}")


@task(
    name="runtime",
    help={
        "busy": "on the local node, beside OLM and its pods; uninstalls the operator there",
        "growth": "only cold runs of 1,000, 10,000 and 100,000 tickets, half an hour",
        "rounds": "how often to measure; a round takes about 12 minutes",
        "defaults": "also measure all frameworks without tuning, about ten minutes more",
        "tickets": "number of tickets; results with another number than the default go to build/bench",
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
    """Measures Pilothouse and other frameworks; writes docs/benchmarks.md."""
    from tests.bench import reliability, report, runtime

    size = whole_number("tickets", tickets, least=runtime.LEAST)
    full = size == runtime.TICKETS
    file = runtime.RESULTS if full else runtime.RESULTS.with_name("trial.json")
    run = runtime.Run(tickets=size, rounds=whole_number("rounds", rounds), file=file)
    if busy and growth:
        raise Exit("--busy and --growth cannot be combined. Run them one after the other.", code=2)
    if growth:
        results = run.growth([size // 10, size, size * 10])
    else:
        results = run.busy() if busy else run.quiet(defaults=defaults)
    report.write(file, reliability.RESULTS, report.PAGE if full else file.with_suffix(".md"))
    _print_goals(results["goals"])


@task(name="reliability")
@speaking_plainly
def bench_reliability(_: Context) -> None:
    """Books 1,000 tickets while the API server is killed, watches are cut and requests fail."""
    from tests.bench import reliability, report, runtime

    results = reliability.Trials().run()
    report.write(runtime.RESULTS, reliability.RESULTS)
    _print_goals(results["goals"])


@task(
    name="against",
    help={
        "revision": "the earlier revision, for example v0.1.0",
        "rounds": "how often to measure both; a round takes about 8 minutes",
        "tickets": "number of tickets",
    },
)
@speaking_plainly
def bench_against(_: Context, revision: str, rounds: str = "3", tickets: str = "10000") -> None:
    """Measures the runtime of an earlier revision and of this checkout in turns; prints what got worse."""
    from tests.bench import against, runtime

    comparisons = against.measure(
        revision,
        rounds=whole_number("rounds", rounds),
        tickets=whole_number("tickets", tickets, least=runtime.LEAST),
    )
    print(against.table(comparisons))


@task(
    name="etcd",
    help={
        "runs": "how often to measure each row; a run takes about two minutes",
        "rows": "names of rows, separated by commas; all by default",
        "add": "keep the other rows of build/bench/etcd.json, from an earlier run on the same day",
        "render": "measure nothing, only write the page from build/bench/etcd.json",
    },
)
@speaking_plainly
def bench_etcd(_: Context, runs: str = "10", rows: str = "", add: bool = False, render: bool = False) -> None:
    """Measures the etcd operator on the local node, installed by OLM; writes docs/benchmarks-etcd.md."""
    from tests.bench.etcd import report, run
    from tests.bench.etcd.results import Results

    if (add or render) and not run.RESULTS.exists():
        raise Exit(f"There are no results in {run.RESULTS}. Run ./inv bench.etcd.", code=1)
    if render:
        report.write(Results.load(run.RESULTS))
        return
    earlier = Results.load(run.RESULTS) if add else None
    bench = run.Bench(whole_number("runs", runs), [each for each in rows.split(",") if each], earlier)
    print(report.table(bench.run()))
    print(f"{bench.durations}\nThe results are in {bench.file} and {bench.page}.")


def _print_goals(goals: dict[str, dict[str, Any]]) -> None:
    for name, goal in goals.items():
        if goal["met"] is not None:
            verdict = "met    " if goal["met"] else "NOT MET"
            print(f"{verdict} {goal['value']:10.2f} <= {goal['goal']:6g}  {name}")


@task(name="profile")
@speaking_plainly
def bench_profile(_: Context) -> None:
    """Profiles the flights operator while it books and changes 10,000 tickets; writes docs/profile."""
    from tests.bench import profile

    for page in profile.run():
        print(page)


def _ready(c: Context) -> None:
    """Starts the cluster before pytest runs, because pytest would hide the progress."""
    try:
        target = targets.ensure()
        if target.local:  # Another cluster pulls the official images of etcd.
            _build(c, ETCD_TOOLS)
    except ClusterError as error:
        raise Exit(str(error), code=1) from None


def _step(name: str, c: Context, command: str) -> None:
    started = time.monotonic()
    _tool(c, command)
    print(f"{name:12} ok  {time.monotonic() - started:5.1f} s", flush=True)


def _tool(c: Context, command: str) -> None:
    """Runs the Python of .venv with the arguments, and exits if it fails."""
    # The scripts in .venv/bin are not used, because they break when the checkout is moved.
    _require_success(command, c.run(f"{sys.executable} {command}", env=ENV, warn=True, pty=False))


@contextmanager
def _in_background(c: Context, paths: str) -> Iterator[None]:
    """Runs tests during the block, and prints their output after it. Exits if they or the block fail."""
    command = f"-m pytest -p no:cacheprovider {paths}"
    output = StringIO()
    print(f"Running {paths} in the background. Their output follows at the end.", flush=True)
    # The annotation of `run` knows only the calls that wait.
    running = cast(
        "Promise",
        c.run(
            f"{sys.executable} {command}",
            env=ENV,
            warn=True,
            asynchronous=True,
            out_stream=output,
            err_stream=output,
        ),
    )
    try:
        yield
    except KeyboardInterrupt:
        running.runner.kill()
        raise
    finally:
        result = running.join()
        print(output.getvalue(), flush=True)
    _require_success(command, result)


def _require_success(command: str, result: Result | None) -> None:
    if result is None or not result.ok:
        raise Exit(f"inv: 'python {command}' failed. See its output above.", code=1)


def _pytest(c: Context, paths: str, select: str) -> None:
    chosen = f" -k {select!r}" if select else ""
    _tool(c, f"-m pytest {paths}{chosen}")


bench = Collection(
    "bench", bench_flights, bench_runtime, bench_against, bench_reliability, bench_profile, bench_etcd
)
namespace = Collection("test", everything, check, unit, api, cluster, soak)
