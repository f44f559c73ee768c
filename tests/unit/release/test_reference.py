"""The reference page has every setting, and every reason that the condition Ready can have."""

import re
from dataclasses import dataclass, field, replace

import pytest

from devcluster.folders import CHECKOUT
from flights_operator.types import FLIGHT_TICKET
from pilothouse.playbook import Watch
from pilothouse.process import Settings
from pilothouse.process.flags import Setting, settings

REASON = re.compile(
    r'TaskFailed\(\s*"(\w+)"|ready_reason = "(\w+)"|READY, None, "(\w+)"|^[A-Z_]+ = "([A-Z][a-z]+[A-Z]\w+)"$',
    re.MULTILINE,
)
# Reasons that occur only in Events or in docstrings, and reasons of modules, plans and waits that the flights
# operator does not use.
UNUSED = {
    "NoSeats",
    "PodRefused",
    "StatusContended",
    "WritesRepeated",
    "UnknownFinalizer",
    "FinalizersRemain",
    "NoLongerSelected",
    "IndexFailed",
    "Reconciled",
    "Deleting",
    "NameTaken",
    "InvalidManifest",
    "FieldContended",
    "FieldConflict",
    "NotSelected",
    "NotOwned",
    "AlreadyExists",
    "NothingToPatch",
    "Immutable",
    "StatusNotStored",
    "NoStatus",
    "NothingToScale",
    "JobRunning",
    "JobFailed",
    "PlanInProgress",
    "PlanCompleted",
    "PlanNotRecorded",
    "InProgress",
    "WaitTimedOut",
}


def test_every_reason_is_explained() -> None:
    used = set()
    for folder in ("flights_operator", "pilothouse/playbook"):
        for path in (CHECKOUT / "operator" / folder).rglob("*.py"):
            used |= {next(filter(None, match)) for match in REASON.findall(path.read_text())}
    assert "InvalidSpec" in used  # Checks that the search works.
    assert used - UNUSED == set(FLIGHT_TICKET.reasons)


@dataclass(frozen=True)
class Times:
    """Settings that belong together."""

    low: int = 1
    """SOME_LOW: the least."""
    high: int = 3
    """SOME_HIGH: the most."""


@dataclass(frozen=True)
class Some:
    """Settings."""

    url: str
    """SOME_URL: where it is."""
    wait: float = 2.0
    """SOME_WAIT: how long,
    seconds."""
    times: Times = field(default_factory=Times)
    on: bool = False
    """SOME_SWITCH: whether."""
    port: int = 80
    """SOME_ADDRESS: where, as host and
    port. Default: :80."""

    def method(self) -> None:
        """Nothing."""


def test_settings_are_read_from_the_strings_below_them() -> None:
    assert list(settings(Some)) == [
        Setting("SOME_URL", "where it is.", ""),
        Setting("SOME_WAIT", "how long,\nseconds.", "2"),
        Setting("SOME_LOW", "the least.", "1"),
        Setting("SOME_HIGH", "the most.", "3"),
        Setting("SOME_SWITCH", "whether.", "", switch=True),
        Setting("SOME_ADDRESS", "where, as host and\nport.", ":80"),
    ]


def test_the_documented_defaults_are_the_actual_ones() -> None:
    pod = {"KUBERNETES_SERVICE_HOST": "10.96.0.1"}
    shown = {each.name: each.default for each in settings(Settings) if each.default}
    assert {"HEALTH_ADDRESS", "LEADER_ELECT", "LEASE_DURATION", "RESYNC_PERIOD"} <= set(shown)
    loaded = Settings.load(pod | shown)
    usual = Watch(FLIGHT_TICKET, tasks=[])
    assert (loaded.resync, loaded.workers) == (usual.resync, usual.workers)
    assert replace(loaded, resync=None, workers=None) == Settings.load(pod)


@dataclass(frozen=True)
class Nameless:
    """Settings."""

    url: str
    """Where it is."""


@dataclass(frozen=True)
class Wordless:
    """Settings."""

    url: str
    """SOME_URL."""


@pytest.mark.parametrize("cls", [Nameless, Wordless])
def test_a_setting_without_its_variable_or_its_meaning_is_refused(cls: type) -> None:
    with pytest.raises(ValueError, match="does not begin with the name of an environment variable"):
        list(settings(cls))
