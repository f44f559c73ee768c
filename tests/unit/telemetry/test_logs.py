"""Log lines name the object that is being reconciled."""

import asyncio
import json
import logging

import pytest

from pilothouse.telemetry import configure, current_object, now, object_context

log = logging.getLogger("pilothouse.test")


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_json_lines_carry_the_object(capsys):
    configure("json", "info")
    with object_context("FlightTicket", "demo", "mine"):
        log.info("booked %d seats", 2, extra={"seconds": 0.5, "at": now()})
    log.debug("not shown")
    log.warning("outside")
    first, second = lines(capsys)
    assert (first["level"], first["logger"], first["msg"]) == ("info", "pilothouse.test", "booked 2 seats")
    assert (first["kind"], first["namespace"], first["name"]) == ("FlightTicket", "demo", "mine")
    assert first["seconds"] == 0.5
    assert str(first["time"]).endswith("+00:00")
    assert "kind" not in second


def test_errors_carry_their_traceback_on_the_same_line(capsys):
    configure("json", "INFO")
    try:
        raise ValueError("boom\nboom")
    except ValueError:
        log.exception("failed")
    [line] = lines(capsys)
    assert "ValueError: boom" in str(line["error"])


async def test_each_task_and_thread_has_its_own_object(capsys):
    configure("json", "info")

    async def work(name: str) -> None:
        with object_context("Kind", "ns", name):
            await asyncio.sleep(0.01)
            await asyncio.to_thread(log.info, "in %s", name)

    await asyncio.gather(work("a"), work("b"))
    assert {(line["msg"], line["name"]) for line in lines(capsys)} == {("in a", "a"), ("in b", "b")}
    assert current_object() is None


def test_console(capsys):
    configure("console", "debug")
    with object_context("Node", "", "n1"):
        log.debug("hello", extra={"seconds": 1})
    assert capsys.readouterr().err.endswith(" DEBUG   Node n1: hello seconds=1\n")


def test_wrong_settings_name_the_choices(capsys):
    with pytest.raises(ValueError, match="unknown log level 'loud'; use debug, info"):
        configure("json", "loud")
    with pytest.raises(ValueError, match="unknown log format 'xml'; use json or console"):
        configure("xml", "info")  # type: ignore[arg-type]  # the failure is tested
