"""Both minor versions of etcd that the measurements cover pass all cases of the model."""

import pytest

from tests.api.test_etcd_model import RealHost, host
from tests.etcd.contract import CASES, Case

__all__ = ["host"]


@pytest.mark.parametrize("minor", [5, 6])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
async def test_etcd_behaves_like_the_model(case: Case, host: RealHost) -> None:
    await case(host)
