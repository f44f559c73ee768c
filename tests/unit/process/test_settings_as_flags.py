"""Flags: each setting has one, and it overrides the environment variable."""

import argparse
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from pilothouse.process import Settings
from pilothouse.process.flags import add_flags, overlay, settings

SOURCES = Path(__file__).parents[3] / "operator"


@dataclass(frozen=True)
class Own:
    """An operator's own settings."""

    url: str
    """AIRLINE_URL: where it is; 100 % of it."""


def parse(*argv: str) -> dict[str, str]:
    parser = argparse.ArgumentParser("flights", allow_abbrev=False)
    add_flags(parser, Settings, Own)
    return overlay(parser.parse_args(argv))


def test_every_setting_has_a_flag_that_overrides_its_variable() -> None:
    environment = {"LEADER_ELECT": "false", "LOG_LEVEL": "ERROR", "RESYNC_PERIOD": "1h"}
    flags = parse("--leader-elect", "--log-level=debug", "--lease-duration", "60s", "--airline-url=http://a")
    assert flags["AIRLINE_URL"] == "http://a"
    loaded = Settings.load({**environment, **flags})
    assert loaded.leader_elect
    assert (loaded.log_level, loaded.lease.duration, loaded.resync) == ("DEBUG", 60, 3600)
    every = {each.flag: each.name for each in settings(Settings)}
    assert parse(*(f"{flag}=x" for flag in every)) == dict.fromkeys(every.values(), "x")


def test_a_switch_is_turned_off_by_its_value() -> None:
    assert parse("--leader-elect=false") == {"LEADER_ELECT": "false"}


def test_help_shows_every_flag_with_its_meaning_and_default(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as caught:
        parse("--help")
    assert caught.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "--watch-namespace WATCH_NAMESPACE The namespaces to watch, separated by commas" in shown
    assert "where it is; 100 % of it." in shown
    for setting in settings(Settings):
        assert setting.flag in shown
        assert not setting.default or f"[{setting.default}]" in shown


@pytest.mark.parametrize("argv", ["--watch-name=x", "--no-such", "word"])
def test_an_unknown_flag_is_refused(argv: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(argv)
    assert caught.value.code == 2
    assert "usage: flights" in capsys.readouterr().err


def test_without_flags_their_code_is_not_imported() -> None:
    """A pod gets its settings from the environment and must not pay for a command-line parser."""
    program = (
        "import sys, pilothouse.controller; "
        "print({'argparse', 'pilothouse.process.flags'} & set(sys.modules))"
    )
    environment = {**os.environ, "PYTHONPATH": str(SOURCES)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("set()\n", "")
