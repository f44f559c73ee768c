"""Unit tests need no server. One that asks for `virtual_time` runs on a loop whose clock jumps."""

import os

import hypothesis
import pytest

from pilothouse.testing import ModelApi

# No example has a deadline: a busy machine is no defect. CI tries the same examples every time; new ones are
# found by who develops.
hypothesis.settings.register_profile("pilothouse", deadline=None, derandomize="CI" in os.environ)
hypothesis.settings.load_profile("pilothouse")


@pytest.fixture
def api() -> ModelApi:
    """An empty model of the API server."""
    return ModelApi()
