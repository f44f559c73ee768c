"""The command `pilothouse`."""

import os
import sys
from pathlib import Path

import pytest

from pilothouse.cli import script
from pilothouse.cli.script import main
from pilothouse.packaging.scaffold import TEMPLATE


@pytest.mark.parametrize("command", [[], ["new"], ["run"], ["play"], ["explain"], ["crd"], ["lock"]])
def test_help_works_after_every_command(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*command, "--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(" ".join(["usage: pilothouse", *command]))


def test_the_help_of_play_names_what_it_cannot_detect(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["play", "--help"])
    help_text = " ".join(capsys.readouterr().out.split())
    assert "It cannot detect an operator that runs without leader election" in help_text


def test_explain_shows_the_tasks_of_a_project(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "greeting", "--project", str(TEMPLATE)]) == 0
    assert "1. the ConfigMap holds the message" in capfd.readouterr().out


def test_play_passes_its_options_on(monkeypatch: pytest.MonkeyPatch) -> None:
    called = []

    def call(project: str, words: list[str]) -> int:
        called.append((project, [*words]))
        return 2

    monkeypatch.setattr(script, "_call", call)
    assert main(["play", "greeting/a/b", "--check", "-o", "json", "--project", "x"]) == 2
    assert called == [("x", ["play", "greeting/a/b", "--namespace=", "--output=json", "--check"])]


def test_run_starts_the_operator_of_a_project_with_defaults_for_a_host(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started = []

    def start(command: list[str], variables: dict[str, str]) -> None:
        started.append((command, variables))

    monkeypatch.setattr(script, "start", start)
    monkeypatch.setattr(script, "supervise", lambda begin, folder: begin())
    monkeypatch.setenv("LOG_FORMAT", "json")
    assert main(["run", str(TEMPLATE), "--", "--workers=2"]) == 0
    [(command, variables)] = started
    assert command == [sys.executable, "-m", "greeter_operator", "--workers=2"]
    assert (variables["LEADER_ELECT"], variables["LOG_FORMAT"]) == ("true", "json")
    assert variables["PYTHONPATH"].split(os.pathsep)[0] == str(TEMPLATE)


@pytest.mark.parametrize(
    ("words", "flags"),
    [
        ([], []),
        (["--", "--log-level=debug"], ["--log-level=debug"]),
        (["--", "--workers", "2", "--", "x"], ["--workers", "2", "--", "x"]),
        ([".", "--", "--log-level=debug"], ["--log-level=debug"]),
    ],
)
def test_flags_after_two_dashes_are_the_operators_own(
    words: list[str], flags: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[list[str]] = []
    monkeypatch.chdir(TEMPLATE)
    monkeypatch.setattr(script, "start", lambda command, variables: started.append(command))
    monkeypatch.setattr(script, "supervise", lambda begin, folder: begin())
    assert main(["run", *words]) == 0
    assert started == [[sys.executable, "-m", "greeter_operator", *flags]]


def test_a_module_is_run_from_the_current_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "hello.py").write_text("import sys; print(sys.argv[1:])")
    monkeypatch.chdir(tmp_path)
    assert main(["explain", "--project", "hello"]) == 0
    assert capfd.readouterr().out == "['explain', '--format=text']\n"


def test_an_argument_that_is_neither_a_project_nor_a_module_is_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["run", "no-such"]) == 1
    assert capsys.readouterr().err == (
        "pilothouse: no-such is neither a folder with a pyproject.toml nor a Python module\n"
    )


def test_a_file_is_refused_with_the_name_of_its_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hello.py").touch()
    assert main(["run", "hello.py"]) == 1
    assert capsys.readouterr().err == (
        "pilothouse: hello.py is a file. In its folder, give the name of the module: hello\n"
    )


@pytest.mark.parametrize("command", [["run"], ["explain", "--project"], ["play", "a/b", "--project"]])
@pytest.mark.parametrize(
    ("module", "sentence"),
    [
        ("no_such", "there is no Python module no_such, neither in {} nor installed"),
        ("json.no_such", "there is no Python module json.no_such, neither in {} nor installed"),
        ("email", "email is not an operator: it is a package without a module __main__"),
    ],
)
def test_a_module_that_cannot_run_is_refused(
    command: list[str], module: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, module]) == 1
    assert capsys.readouterr().err == f"pilothouse: {sentence.format(Path.cwd())}\n"


@pytest.mark.parametrize("command", [["explain"], ["play", "greeting/a/b"]])
def test_a_module_that_prints_nothing_is_not_an_operator(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(TEMPLATE)
    assert main([*command, "--project", "greeter_operator.types"]) == 1
    assert capsys.readouterr().err == (
        "pilothouse: greeter_operator.types is not an operator: it printed nothing. Use the module that "
        "calls main(), or the folder of the project\n"
    )


@pytest.mark.parametrize(
    ("argument", "sentence"),
    [
        ("json", "the module json does not declare a Kind. Use the module that does."),
        ("greeter_operator.types:", "greeter_operator.types: has no name after the colon"),
        ("no_such", "No module named 'no_such'"),
    ],
)
def test_the_crds_of_a_wrong_module_are_not_those_of_the_project(
    argument: str, sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(TEMPLATE)
    assert main(["crd", argument]) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith(f"pilothouse: {sentence}")


def test_the_crd_of_one_kind_of_a_module_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(TEMPLATE)
    assert main(["crd", "greeter_operator.types:GREETING"]) == 0
    assert "name: greetings.demo.pilothouse.dev\n" in capsys.readouterr().out
    assert main(["crd", "greeter_operator.types:OTHER"]) == 1
    assert capsys.readouterr().err == (
        "pilothouse: the module greeter_operator.types does not declare a Kind OTHER.\n"
    )
