"""The catalog's upgrade graph: every older version can be upgraded to the newest in one step."""

from release import catalog
from release.packages import PACKAGES

PACKAGE = PACKAGES["pilothouse-flights"]


def test_a_first_version_replaces_nothing() -> None:
    channel = catalog.channel(PACKAGE, ["0.1.0"])
    assert channel["entries"] == [{"name": "pilothouse-flights.v0.1.0"}]


def test_every_version_replaces_the_one_before_and_may_skip_all() -> None:
    channel = catalog.channel(PACKAGE, ["0.10.0", "0.2.0", "0.10.0-rc.2", "0.10.0-rc.10"])
    assert channel["entries"] == [
        {"name": "pilothouse-flights.v0.2.0"},
        {
            "name": "pilothouse-flights.v0.10.0-rc.2",
            "replaces": "pilothouse-flights.v0.2.0",
            "skipRange": ">=0.2.0 <0.10.0-rc.2",
        },
        {
            "name": "pilothouse-flights.v0.10.0-rc.10",
            "replaces": "pilothouse-flights.v0.10.0-rc.2",
            "skipRange": ">=0.2.0 <0.10.0-rc.10",
        },
        {
            "name": "pilothouse-flights.v0.10.0",
            "replaces": "pilothouse-flights.v0.10.0-rc.10",
            "skipRange": ">=0.2.0 <0.10.0",
        },
    ]
