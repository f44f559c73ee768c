"""OLM upgrades the flights operator from each earlier release, whose images are built from its commit.

The tickets stay, and no booking is made or cancelled twice, also if the upgrade interrupts the booking or the
cancellation of a ticket.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from devcluster.folders import CHECKOUT
from devcluster.shell import ClusterError
from pilothouse.playbook.annotations import PAUSED, RECONCILE
from release import install, publish, revisions
from release.earlier import Release, releases_of
from release.packages import find
from tests.cluster.flights import NAMESPACE, Flights, ready_condition

pytestmark = pytest.mark.timeout(900)

RELEASES = releases_of(find("pilothouse-flights"))
SETTLED = 5


@pytest.mark.parametrize("release", RELEASES, ids=[release.version for release in RELEASES])
def test_an_upgrade_keeps_every_ticket_and_books_nothing_twice(flights: Flights, release: Release) -> None:
    before = _install(flights, release)
    # Tickets that are settled, one whose cancellation and one whose booking the upgrade interrupts.
    settled = {f"settled-{number}": flights.create(f"settled-{number}") for number in range(SETTLED)}
    tickets = {name: flights.wait_phase(name, "Booked") for name in settled}
    leaving = flights.create("leaving")
    flights.wait_phase("leaving", "Booked")
    _annotate(flights, "leaving", PAUSED, "true")
    flights.wait_phase("leaving", "Paused")
    flights.delete("leaving", wait=False)
    flights.airline.hold("after")
    try:
        interrupted = flights.create("interrupted")
        flights.until(lambda: flights.airline.held() > 0, "the airline holds its answer about a booking")
        csv = _upgrade(flights)
        assert csv["spec"]["replaces"] == flights.package.csv_of(release.version)
        [pod] = flights.until(lambda: _pods_of_the_upgrade(flights), "the earlier pod no longer exists", 120)
        assert pod["metadata"]["name"] not in before
    finally:
        flights.airline.release()

    # The new operator finds every ticket as the earlier one left it.
    flights.wait_phase("interrupted", "Booked", seconds=120)
    for name, earlier in tickets.items():
        _annotate(flights, name, RECONCILE, "after-the-upgrade")
        ticket = flights.wait_phase(name, "Booked")
        assert _booked_state(ticket) == _booked_state(earlier)
    assert dict(flights.airline.audit(*settled.values())) == {"created": SETTLED}
    assert dict(flights.airline.audit(interrupted)) == {"created": 1}
    # It cancels what the earlier operator was asked to, and removes that operator's finalizer.
    _annotate(flights, "leaving", PAUSED, None)
    flights.until(lambda: not flights.ticket("leaving"), "leaving is deleted")
    _assert_cancelled_once(flights, leaving)

    # It changes and cancels the bookings of the earlier operator, and books new tickets.
    flights.change("settled-0", number=3)
    assert flights.wait_phase("settled-0", "Booked")["status"]["bookedSeats"] == 3
    assert dict(flights.airline.audit(settled["settled-0"])) == {"created": 1, "changed": 1}
    created = flights.create("created-afterwards")
    flights.wait_phase("created-afterwards", "Booked")
    assert dict(flights.airline.audit(created)) == {"created": 1}
    for name, uid in {"settled-1": settled["settled-1"], "created-afterwards": created}.items():
        flights.delete(name)
        _assert_cancelled_once(flights, uid)
    untouched = {name: uid for name, uid in settled.items() if name not in ("settled-0", "settled-1")}
    assert dict(flights.airline.audit(*untouched.values())) == {"created": len(untouched)}
    for name in ("interrupted", "settled-0", *untouched):
        flights.delete(name)


def _install(flights: Flights, release: Release) -> set[str]:
    """Installs an earlier release in place of the current version, and returns the names of its pods."""
    try:
        revisions.resolve(release.commit)
    except ClusterError as error:
        pytest.skip(str(error))
    published = publish.publish_earlier(flights.package, release)
    install.unsubscribe(flights.kubectl, flights.package)
    install.subscribe(flights.kubectl, flights.package, published.catalog, published.operator)
    install.wait_succeeded(flights.kubectl, flights.package, release.version)
    pods = flights.operator_pods()
    assert {pod["spec"]["containers"][0]["image"] for pod in pods} == {published.operator}
    return {pod["metadata"]["name"] for pod in pods}


def _upgrade(flights: Flights) -> dict[str, Any]:
    """Sets the current catalog, as a user does, and waits until OLM has upgraded. Returns the CSV."""
    catalog = next(found for found in _olm_objects(flights) if found["kind"] == "CatalogSource")
    catalog["spec"]["image"] = flights.published.catalog
    flights.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=json.dumps(catalog))
    return install.wait_succeeded(flights.kubectl, flights.package)


def _olm_objects(flights: Flights) -> list[dict[str, Any]]:
    text = (CHECKOUT / "config" / "olm" / f"{flights.package.folder}.yaml").read_text()
    return list(yaml.safe_load_all(text))


def _pods_of_the_upgrade(flights: Flights) -> list[dict[str, Any]]:
    """Returns the operator's pods once all of them run the current image."""
    pods = flights.operator_pods()
    images = {pod["spec"]["containers"][0]["image"] for pod in pods}
    return pods if images == {flights.published.operator} and len(pods) == 1 else []


def _annotate(flights: Flights, name: str, annotation: str, value: str | None) -> None:
    patch = json.dumps({"metadata": {"annotations": {annotation: value}}})
    flights.kubectl("patch", "flightticket", name, "-n", NAMESPACE, "--type=merge", "-p", patch)


def _booked_state(ticket: dict[str, Any]) -> dict[str, Any]:
    """Returns what a status states about a booking."""
    ready = ready_condition(ticket)
    status = {key: value for key, value in ticket["status"].items() if key != "conditions"}
    return {**status, "ready": (ready["status"], ready["reason"], ready["lastTransitionTime"])}


def _assert_cancelled_once(flights: Flights, uid: str) -> None:
    audit = flights.airline.audit(uid)
    assert (audit["created"], audit["cancelled"]) == (1, 1), audit
    assert flights.airline.booking(uid) is None
