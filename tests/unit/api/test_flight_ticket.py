"""The FlightTicket's CRD: it keeps every earlier field, and no stored object becomes invalid."""

import subprocess
import sys
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flights_operator.types import FLIGHT_TICKET, FlightTicket, FlightTicketStatus, Phase
from pilothouse.api.crd import crd
from tests import seed
from tests.unit.api.structural import complaints

CRD: Any = crd(FLIGHT_TICKET)
VERSION = CRD["spec"]["versions"][0]
SCHEMA = VERSION["schema"]["openAPIV3Schema"]
SEED_SCHEMA = seed.CRD["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


def test_keeps_the_names_that_users_have() -> None:
    assert CRD["metadata"]["name"] == seed.CRD["metadata"]["name"]
    assert CRD["spec"]["group"] == seed.CRD["spec"]["group"]
    assert CRD["spec"]["scope"] == seed.CRD["spec"]["scope"]
    assert CRD["spec"]["names"].items() >= seed.CRD["spec"]["names"].items()
    assert VERSION["name"] == "v1"
    assert VERSION["served"]
    assert VERSION["storage"]


def test_keeps_the_bounds_that_users_have() -> None:
    ours = SCHEMA["properties"]["spec"]["properties"]
    for name, theirs in SEED_SCHEMA["properties"]["spec"]["properties"].items():
        assert {word: ours[name].get(word) for word in theirs} == theirs
        assert ours[name].keys() - theirs.keys() == {"description"}


def test_accepts_the_ticket_that_users_have() -> None:
    assert list(complaints(SCHEMA, seed.TICKET)) == []


fields = st.fixed_dictionaries(
    {}, optional={"from": st.text(), "to": st.text(), "number": st.integers(1, 10), "more": st.booleans()}
)
tickets = st.fixed_dictionaries({"metadata": st.just({"name": "t"})}, optional={"spec": fields})


@given(tickets)
def test_accepts_and_decodes_every_ticket_that_the_first_crd_accepted(ticket: dict[str, Any]) -> None:
    assert list(complaints(SEED_SCHEMA, ticket)) == []
    assert list(complaints(SCHEMA, ticket)) == []
    decoded = msgspec.json.decode(msgspec.json.encode(ticket), type=FlightTicket)
    assert decoded.spec.from_ == ticket.get("spec", {}).get("from", "")
    assert decoded.spec.number == ticket.get("spec", {}).get("number", 0)


@pytest.mark.parametrize("number", [0, 11, -1])
def test_refuses_a_number_out_of_bounds(number: int) -> None:
    assert list(complaints(SCHEMA, {"spec": {"from": "a", "to": "b", "number": number}}))


def test_requires_fields_by_rules_with_messages_and_never_structurally() -> None:
    spec = SCHEMA["properties"]["spec"]
    assert "required" not in SCHEMA
    assert "required" not in spec
    assert not any("default" in schema for schema in spec["properties"].values())
    demands = [rule for rule in spec["x-kubernetes-validations"] if rule["reason"] == "FieldValueRequired"]
    assert [rule["fieldPath"] for rule in demands] == [".from", ".to", ".number"]
    assert all("example" in rule["message"] for rule in demands)


def test_one_invalid_object_does_not_prevent_decoding_of_others() -> None:
    strange = b'{"metadata": {"name": "t"}, "spec": {"number": 99}, "status": {"phase": "Boarding"}}'
    decoded = msgspec.json.decode(strange, type=FlightTicket)
    assert decoded.spec.number == 99
    assert decoded.status.phase is Phase.PENDING


def test_has_the_columns_that_users_need() -> None:
    shown = [column["name"] for column in VERSION["additionalPrinterColumns"] if not column.get("priority")]
    assert shown == ["From", "To", "Seats", "Status", "Booking", "Age"]
    assert VERSION["subresources"] == {"status": {}}
    for column in VERSION["additionalPrinterColumns"]:
        assert _field_of(column["jsonPath"]), column


def test_the_encoded_status_fits_the_schema() -> None:
    status = FlightTicketStatus(
        phase=Phase.BOOKED, booking_id="b-1", booked_seats=2, price="1084.00 EUR", observed_generation=3
    )
    written = msgspec.to_builtins(status)
    assert written == {
        "phase": "Booked",
        "bookingID": "b-1",
        "bookedSeats": 2,
        "price": "1084.00 EUR",
        "observedGeneration": 3,
    }
    assert list(complaints(SCHEMA["properties"]["status"], written)) == []
    assert written.keys() <= SCHEMA["properties"]["status"]["properties"].keys()


def test_conditions_are_identified_by_type() -> None:
    conditions = SCHEMA["properties"]["status"]["properties"]["conditions"]
    assert conditions["x-kubernetes-list-type"] == "map"
    assert conditions["x-kubernetes-list-map-keys"] == ["type"]
    # The API server refuses a CRD whose keys may be absent.
    assert "type" in conditions["items"]["required"]


def test_every_field_has_a_description() -> None:
    def silent(schema: dict[str, Any], path: str) -> list[str]:
        below = [
            found
            for name, part in schema.get("properties", {}).items()
            if f"{path}.{name}" != ".metadata"  # the API server's own
            for found in silent(part, f"{path}.{name}")
        ]
        return below if schema.get("description") else [path, *below]

    assert silent(SCHEMA, "") == []


def test_the_running_operator_does_not_load_the_generator() -> None:
    heavy = {"pilothouse.api.schema", "pilothouse.api.crd", "yaml", "kubernetes"}
    code = f"import sys, flights_operator.types; print(*sorted(sys.modules.keys() & {heavy}))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


def _field_of(path: str) -> bool:
    schema = SCHEMA
    for name in path.partition("[")[0].strip(".").split("."):
        if name == "creationTimestamp":
            return True
        schema = schema["properties"].get(name)
        if schema is None:
            return False
    return True
