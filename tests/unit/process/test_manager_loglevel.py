"""The log level: a file changes it while the operator runs."""

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pilothouse.process.loglevel import follow_level

pytestmark = pytest.mark.usefixtures("virtual_time")


@pytest.fixture
async def file(tmp_path: Path) -> AsyncIterator[Path]:
    before = logging.getLogger().level
    file = tmp_path / "level"
    following = asyncio.create_task(follow_level(file, "INFO"))
    logging.getLogger().setLevel("INFO")
    yield file
    following.cancel()
    logging.getLogger().setLevel(before)


def says(file: Path, text: str) -> None:
    file.write_text(text)


def level() -> str:
    return logging.getLevelName(logging.getLogger().level)


async def test_a_file_sets_the_level_and_an_empty_file_restores_the_default(file: Path) -> None:
    await asyncio.sleep(6)
    assert level() == "INFO"
    says(file, "debug\n")
    await asyncio.sleep(6)
    assert level() == "DEBUG"
    says(file, "Warning")
    await asyncio.sleep(6)
    assert level() == "WARNING"
    says(file, "")
    await asyncio.sleep(6)
    assert level() == "INFO"


async def test_an_unknown_level_changes_nothing_and_is_logged_once(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    says(file, "loud")
    await asyncio.sleep(30)
    assert level() == "INFO"
    [record] = caplog.records
    assert record.getMessage().startswith(f"Ignoring the log level in {file}: ")
    assert "unknown log level 'loud'; use debug, info, warning or error" in record.getMessage()
