"""The command line of an operator.

::

    python3 -m my_operator [--watch-namespace=a,b ...]        runs the operator
    python3 -m my_operator play KIND/NAMESPACE/NAME --check   reconciles one object manually
    python3 -m my_operator explain KIND                       shows the tasks of a kind

The code of the commands is imported only when one is used, so that the operator itself starts faster.
"""

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn

from pilothouse import __version__
from pilothouse.cli.operator import WRONG_SETTINGS, Watches, opened, require_operator, run_operator
from pilothouse.kube import Client, ClientConfig, KubeError, ObjectKey, can_be_name
from pilothouse.playbook.awaited import PlaybookError
from pilothouse.process import Settings, SettingsError
from pilothouse.telemetry import configure

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from pilothouse.cli.by_hand import Played

# Exit codes of `play` and `explain`. run_operator documents those of a run.
DONE = 0
NOT_DONE = 1
"""Refused, failed, or wrong arguments."""
WOULD_CHANGE = 2
"""With --check: the operator would change something, like `terraform plan -detailed-exitcode`."""

COMMANDS = {"play", "explain"}

NOTHING: Mapping[str, str] = MappingProxyType({})


def main(
    name: str,
    watches: Watches,
    argv: Sequence[str] | None = None,
    *,
    settings: Sequence[type] = (),
    variables: Mapping[str, str] = os.environ,
    placeholders: Mapping[str, str] = NOTHING,
) -> int:
    """Runs the command line of an operator: `python3 -m my_operator`.

    Args:
        name: The operator's name. Its Lease, its Events and its requests have this name.
        watches: The watches, or a function that opens what they need and yields them. The function raises
            SettingsError if a setting is missing.
        argv: The arguments. Default: those of the process.
        settings: The operator's own settings classes. Their variables become flags, like those of `Settings`.
        variables: The environment variables. Flags override them.
        placeholders: Values of the settings without a default for `explain`, which connects to nothing.

    Returns:
        The exit code. For a run: see `run_operator`. For `play`: 0 done, or nothing to change; 1 failed or
        refused; 2 with --check, the operator would change something. For `explain`: 0, or 1 if the kind is
        unknown.
    """
    try:
        require_operator(name, settings)
    except PlaybookError as error:
        sys.stderr.write(f"main: {error}\n")
        return NOT_DONE
    arguments = sys.argv[1:] if argv is None else argv
    if not arguments:
        return run_operator(name, watches, variables=variables)
    from pilothouse.process.flags import overlay

    # A run with a wrong argument ends with the code for wrong settings. `play --check` uses that code for
    # WOULD_CHANGE.
    wrong = NOT_DONE if COMMANDS & set(arguments) else WRONG_SETTINGS
    options = _parser(name, settings, wrong).parse_args(arguments)
    merged = {**variables, **overlay(options)}
    match options.command:
        case "play":
            return _run_command(name, lambda: _play(name, watches, merged, options))
        case "explain":
            return _run_command(name, lambda: _explain(watches, {**placeholders, **merged}, options))
    return run_operator(name, watches, variables=merged)


def _parser(name: str, settings: Sequence[type], wrong: int) -> "ArgumentParser":
    import argparse

    from pilothouse.process.flags import add_flags

    class Parser(argparse.ArgumentParser):
        def error(self, message: str) -> NoReturn:
            self.exit(wrong, f"{self.prog}: {message}. Use --help to list the arguments.\n")

    parser = Parser(prog=name, description="Runs the operator, unless a command is given.")
    add_flags(parser, *settings, Settings)
    commands = parser.add_subparsers(dest="command", metavar="play | explain")
    add_play_arguments(commands.add_parser("play", help="reconcile one object manually"))
    add_explain_arguments(commands.add_parser("explain", help="show the tasks of a kind in order"))
    return parser


def add_play_arguments(parser: "ArgumentParser") -> None:
    """Declares the arguments of `play`."""
    parser.description = (
        "Reconciles one object once. Without --check, the command holds the operator's Lease, and refuses if "
        "another process holds it. It cannot detect an operator that runs without leader election, which "
        "would write at the same time: stop such an operator first."
    )
    parser.epilog = (
        "exit codes: 0 done, or nothing to change; 1 failed or refused; "
        "2 with --check, the object would be changed"
    )
    parser.add_argument("object", metavar="KIND/[NAMESPACE/]NAME")
    parser.add_argument("-n", "--namespace", default="", help="the object's namespace")
    parser.add_argument("--check", action="store_true", help="change nothing, show what would be changed")
    parser.add_argument("--diff", action="store_true", help="show what each task changes, and the status")
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text")


def add_explain_arguments(parser: "ArgumentParser") -> None:
    """Declares the arguments of `explain`."""
    parser.add_argument("kind", nargs="?", default="", metavar="KIND")
    parser.add_argument("--format", choices=("text", "mermaid"), default="text")


def _run_command(name: str, command: Callable[[], Coroutine[Any, Any, int]]) -> int:
    """Runs a command and prints expected errors without a traceback."""
    from pilothouse.cli.selection import Refused

    try:
        return asyncio.run(command())
    except (Refused, SettingsError, KubeError, PlaybookError) as error:
        sys.stderr.write(f"{name}: {error}\n")
    except TimeoutError:
        sys.stderr.write(f"{name}: timed out. Allow more time with SYNC_TIMEOUT.\n")
    except KeyboardInterrupt:
        sys.stderr.write(f"{name}: interrupted\n")
    return NOT_DONE


async def _play(name: str, watches: Watches, variables: Mapping[str, str], options: "Namespace") -> int:
    from pilothouse.cli import report
    from pilothouse.cli.by_hand import Hand
    from pilothouse.cli.selection import Selection

    settings = Settings.load(variables)
    # A person reads this log, so it is not JSON.
    configure("console", "warning")
    async with opened(watches, variables) as all_watches:
        kind, key = _named(options.object, options.namespace)
        config = ClientConfig.load()
        settings = replace(settings, pod_namespace=settings.pod_namespace or config.namespace)
        async with Client(config, user_agent=f"{name}/{__version__}") as client:
            selection = Selection(settings, client)
            candidates = await selection.watches_of(all_watches, kind)
            if candidates[0].resource.namespaced and not key.namespace:
                key = ObjectKey(config.namespace, key.name)
            watch = await selection.choose(candidates, key)
            hand = Hand(name, settings, client)
            played = await (hand.check if options.check else hand.play)(watch, key)
    text = report.as_json(played) if options.output == "json" else report.as_text(played, diff=options.diff)
    sys.stdout.write(text)
    return _exit_code(played)


def _exit_code(played: "Played") -> int:
    if played.recap.failure is not None or played.due:
        return NOT_DONE
    return WOULD_CHANGE if played.check and played.changes else DONE


async def _explain(watches: Watches, variables: Mapping[str, str], options: "Namespace") -> int:
    from pilothouse.cli import explain
    from pilothouse.cli.selection import watches_of

    async with opened(watches, variables) as all_watches:
        chosen = watches_of(all_watches, options.kind) if options.kind else all_watches
        show = explain.as_mermaid if options.format == "mermaid" else explain.as_text
        sys.stdout.write("\n".join(show(watch) for watch in chosen))
    return DONE


def _named(text: str, namespace: str) -> tuple[str, ObjectKey]:
    """Returns the kind and the key in KIND/NAME or KIND/NAMESPACE/NAME; a missing namespace is empty."""
    from pilothouse.cli.selection import Refused

    kind, *place = text.split("/")
    if not 1 <= len(place) <= 2 or not all((kind, *place)):
        raise Refused(
            f"{text!r} is not an object. Use KIND/NAMESPACE/NAME, or KIND/NAME for the namespace of your "
            "context or a cluster-scoped kind."
        )
    if invalid := [part for part in place if not can_be_name(part)]:
        raise Refused(f"{text!r} is not an object: {invalid[0]!r} is not a valid name")
    given = place[0] if len(place) == 2 else ""
    if given and namespace and given != namespace:
        raise Refused(f"{text!r} and --namespace {namespace} are different namespaces. Use one of them.")
    return kind, ObjectKey(given or namespace, place[-1])
