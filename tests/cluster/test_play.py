"""`inv play` in the operator's pod, as OLM installed it."""

from __future__ import annotations

import json
import subprocess

import pytest

from pilothouse.playbook import PAUSED
from tests.cluster.commands import inv
from tests.cluster.flights import NAMESPACE, Flights

pytestmark = pytest.mark.timeout(900)


def play(flights: Flights, *words: str) -> subprocess.CompletedProcess[str]:
    """Runs `inv play`, as a user does."""
    return inv(flights.kubectl, "play", *words)


def pause(flights: Flights, name: str, *, on: bool) -> None:
    """Pauses a ticket, or ends the pause."""
    annotation = f"{PAUSED}=true" if on else f"{PAUSED}-"
    flights.kubectl("annotate", "flightticket", name, "-n", NAMESPACE, "--overwrite", annotation)


def test_check_shows_the_changes_of_a_play_and_makes_none(flights: Flights) -> None:
    uid = flights.create("checked")
    flights.wait_phase("checked", "Booked")
    settled = play(flights, f"ft/{NAMESPACE}/checked", "--check", "--diff")
    assert (settled.returncode, "Nothing to change." in settled.stdout) == (0, True), settled

    pause(flights, "checked", on=True)
    flights.change("checked", number=4)
    checked = play(flights, "flightticket/checked", "-n", NAMESPACE, "--check", "--output", "json")
    assert checked.returncode == 2, checked
    document = json.loads(checked.stdout)
    assert document["changes"]
    assert ["seats: 2 -> 4"] in [task["diff"] for task in document["tasks"]]
    assert dict(flights.airline.audit(uid)) == {"created": 1}, "nothing was changed at the airline"

    pause(flights, "checked", on=False)
    flights.until(
        lambda: flights.ticket("checked")["status"].get("bookedSeats") == 4, "the operator changed it"
    )
    flights.delete("checked")


def test_while_the_operator_leads_a_play_is_refused_with_the_holder_and_the_fix(flights: Flights) -> None:
    flights.create("refused")
    flights.wait_phase("refused", "Booked")
    refused = play(flights, f"ft/{NAMESPACE}/refused")
    [pod] = flights.operator_pods()
    assert refused.returncode == 1
    assert refused.stdout == ""
    assert pod["metadata"]["name"] in refused.stderr
    assert "Use --check" in refused.stderr
    assert "pilothouse.dev/reconcile" in refused.stderr
    assert "Traceback" not in refused.stderr
    flights.delete("refused")


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        (
            "pod/x",
            "no operator of this checkout has the kind 'pod'. The kinds are: EtcdCluster, FlightTicket",
        ),
        (f"ft/{NAMESPACE}/none", f"there is no FlightTicket {NAMESPACE}/none"),
        ("ft", "is not an object. Use KIND/NAMESPACE/NAME"),
    ],
)
def test_an_impossible_manual_play_prints_one_line(flights: Flights, target: str, sentence: str) -> None:
    done = play(flights, target, "--check")
    assert (done.returncode, done.stdout) == (1, "")
    assert sentence in done.stderr
    assert len(done.stderr.splitlines()) == 1
