"""For tests that run on the newest and on the oldest Kubernetes that is claimed: `pytestmark = ON_BOTH`."""

import pytest

ON_BOTH = pytest.mark.parametrize("kubernetes", ["newest", "oldest"], indirect=True)
