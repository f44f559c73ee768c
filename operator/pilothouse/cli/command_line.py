"""The command line of an operator.

::

    python3 -m my_operator [--watch-namespace=a,b ...]        runs it
    python3 -m my_operator play KIND/NAMESPACE/NAME --check   plays one object by hand
    python3 -m my_operator explain KIND                       tells what is played over a kind

What only people use is imported when they do: the operator's own start does not pay for it.
"""

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn

from pilothouse import __version__
from pilothouse.cli.operator import WRONG_SETTINGS, Watches, opened, run_operator
from pilothouse.kube import Client, ClientConfig, KubeError, ObjectKey, can_be_name
from pilothouse.process import Settings, SettingsError
from pilothouse.telemetry import configure

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from pilothouse.cli.by_hand import Played

# Exit codes of `play` and `explain`; those of a run are told by run_operator.
DONE = 0
NOT_DONE = 1
"""Refused, failed, or asked for in a way that cannot be understood."""
WOULD_CHANGE = 2
"""With --check: a play would change something, as `terraform plan -detailed-exitcode` has it."""

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
    """What `python3 -m my_operator` does.

    Args:
        name: The operator's name: of its Lease, and in Events and requests.
        watches: The watches, or a function that opens what they need and yields them. The function raises
            SettingsError if a setting is missing.
        argv: The arguments; those of the process unless given.
        settings: The operator's own settings classes: their variables are flags, too, as those of `Settings`.
        variables: The environment; a flag goes before its variable.
        placeholders: Values for the settings that have no default, for `explain`, which reaches nothing.

    Returns:
        The exit code. Of a run: as `run_operator` says. Of `play`: 0 done, or nothing to change; 1 failed or
        refused; 2 with --check, a play would change something. Of `explain`: 0, or 1 for an unknown kind.
    """
    arguments = sys.argv[1:] if argv is None else argv
    if not arguments:
        return run_operator(name, watches, variables=variables)
    from pilothouse.process.flags import overlay

    # Of a wrong argument a run ends as of a wrong setting; with --check that would be an answer.
    wrong = NOT_DONE if COMMANDS & set(arguments) else WRONG_SETTINGS
    options = _parser(name, settings, wrong).parse_args(arguments)
    said = {**variables, **overlay(options)}
    match options.command:
        case "play":
            return _by_hand(name, lambda: _play(name, watches, said, options))
        case "explain":
            return _by_hand(name, lambda: _explain(watches, {**placeholders, **said}, options))
    return run_operator(name, watches, variables=said)


def _parser(name: str, settings: Sequence[type], wrong: int) -> "ArgumentParser":
    import argparse

    from pilothouse.process.flags import add_flags

    class Parser(argparse.ArgumentParser):
        def error(self, message: str) -> NoReturn:
            self.exit(wrong, f"{self.prog}: {message}; --help tells what there is\n")

    parser = Parser(prog=name, description="Without a command the operator runs.")
    add_flags(parser, *settings, Settings)
    commands = parser.add_subparsers(dest="command", metavar="play | explain")
    add_play_arguments(commands.add_parser("play", help="reconcile one object manually"))
    add_explain_arguments(commands.add_parser("explain", help="show the tasks of a kind in their order"))
    return parser


def add_play_arguments(parser: "ArgumentParser") -> None:
    """Declares what `play` takes."""
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
    """Declares what `explain` takes."""
    parser.add_argument("kind", nargs="?", default="", metavar="KIND")
    parser.add_argument("--format", choices=("text", "mermaid"), default="text")


def _by_hand(name: str, command: Callable[[], Coroutine[Any, Any, int]]) -> int:
    """Runs a command for a person: whatever is in its way becomes one sentence."""
    from pilothouse.cli.by_hand import Refused

    try:
        return asyncio.run(command())
    except (Refused, SettingsError, KubeError) as error:
        sys.stderr.write(f"{name}: {error}\n")
    except TimeoutError:
        sys.stderr.write(f"{name}: it was not done in time and was stopped; SYNC_TIMEOUT allows for more\n")
    except KeyboardInterrupt:
        sys.stderr.write(f"{name}: interrupted\n")
    return NOT_DONE


async def _play(name: str, watches: Watches, variables: Mapping[str, str], options: "Namespace") -> int:
    from pilothouse.cli import report
    from pilothouse.cli.by_hand import Hand

    settings = Settings.load(variables)
    # The lines are for the person; those of the running operator go where its own log goes.
    configure("console", "warning")
    async with opened(watches, variables) as all_watches:
        kind, key = _named(options.object, options.namespace)
        config = ClientConfig.load()
        settings = replace(settings, pod_namespace=settings.pod_namespace or config.namespace)
        async with Client(config, user_agent=f"{name}/{__version__}") as client:
            hand = Hand(name, settings, client)
            candidates = await hand.watches_of(all_watches, kind)
            if candidates[0].resource.namespaced and not key.namespace:
                key = ObjectKey(config.namespace, key.name)
            watch = await hand.choose(candidates, key)
            played = await (hand.check if options.check else hand.play)(watch, key)
    told = report.as_json(played) if options.output == "json" else report.as_text(played, diff=options.diff)
    sys.stdout.write(told)
    return _exit_code(played)


def _exit_code(played: "Played") -> int:
    if played.recap.failure is not None or played.due:
        return NOT_DONE
    return WOULD_CHANGE if played.check and played.changes else DONE


async def _explain(watches: Watches, variables: Mapping[str, str], options: "Namespace") -> int:
    from pilothouse.cli import explain
    from pilothouse.cli.by_hand import watches_of

    async with opened(watches, variables) as all_watches:
        chosen = watches_of(all_watches, options.kind) if options.kind else all_watches
        tell = explain.as_mermaid if options.format == "mermaid" else explain.as_text
        sys.stdout.write("\n".join(tell(watch) for watch in chosen))
    return DONE


def _named(text: str, namespace: str) -> tuple[str, ObjectKey]:
    """The kind and the key of KIND/NAME or KIND/NAMESPACE/NAME; a namespace that is not said is empty."""
    from pilothouse.cli.by_hand import Refused

    kind, *place = text.split("/")
    if not 1 <= len(place) <= 2 or not all((kind, *place)):
        raise Refused(f"{text!r} names no object: write KIND/NAMESPACE/NAME, or KIND/NAME for one without")
    if impossible := [part for part in place if not can_be_name(part)]:
        raise Refused(f"{text!r} names no object: {impossible[0]!r} cannot be a name")
    said = place[0] if len(place) == 2 else ""
    if said and namespace and said != namespace:
        raise Refused(f"{text!r} and --namespace {namespace} contradict each other: say one of them")
    return kind, ObjectKey(said or namespace, place[-1])
