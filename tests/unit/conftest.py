"""Unit tests need no server. One that asks for `virtual_time` runs on a loop whose clock jumps."""

import asyncio
import os
from collections.abc import Callable, Mapping

import hypothesis
import pytest

from tests.virtual_time import VirtualTimeLoop

# No example has a deadline: a busy machine is no defect. CI tries the same examples every time; new ones are
# found by who develops.
hypothesis.settings.register_profile("pilothouse", deadline=None, derandomize="CI" in os.environ)
hypothesis.settings.load_profile("pilothouse")


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Function
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    if "virtual_time" in item.fixturenames:
        return {"virtual": VirtualTimeLoop}
    return {"real": asyncio.new_event_loop}


@pytest.fixture
async def virtual_time() -> VirtualTimeLoop:
    """The test's loop; its clock jumps to the next timer when every task waits.

    For a whole module: `pytestmark = pytest.mark.usefixtures("virtual_time")`.
    """
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    return loop
