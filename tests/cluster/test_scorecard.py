"""The six scorecard tests of operator-sdk, which run as pods in the cluster."""

import pytest

from devcluster import target as targets
from release import scorecard
from release.packages import PACKAGES, Package

SIX = {
    "basic-check-spec",
    "olm-bundle-validation",
    "olm-crds-have-resources",
    "olm-crds-have-validation",
    "olm-spec-descriptors",
    "olm-status-descriptors",
}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("package", PACKAGES.values(), ids=list(PACKAGES))
def test_all_six_pass(package: Package) -> None:
    targets.ensure()
    assert dict(scorecard.score(package)) == dict.fromkeys(SIX, "pass")
