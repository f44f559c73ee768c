"""Quantities: what Kubernetes reads and writes, and arithmetic on it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.api import Quantity
from pilothouse.api.quantity import PATTERN

parse = Quantity.parse

# What k8s.io/apimachinery v0.34.2 writes for the same texts.
CANONICAL = {
    "0": "0",
    "0Ki": "0",
    "5": "5",
    2048: "2048",
    "100000": "100k",
    "0.5": "500m",
    ".5": "500m",
    "5.": "5",
    "+6": "6",
    "1000m": "1",
    "0.1n": "1n",
    "1E": "1E",
    "1e3": "1e3",
    "1E4": "10e3",
    "-1.5": "-1500m",
    "1024": "1024",
    "1024Ki": "1Mi",
    "0.5Gi": "512Mi",
    "1.5Ki": "1536",
    "42.540Mi": "44606423040m",
    "1e999999999": "9223372036854775807",
    "1e-999999999": "1e-9",
}


@pytest.mark.parametrize(("text", "canonical"), CANONICAL.items(), ids=str)
def test_writes_what_kubernetes_writes(text: str | int, canonical: str) -> None:
    quantity = parse(text)
    assert str(quantity) == canonical
    assert parse(str(quantity)) == quantity


@pytest.mark.parametrize(
    "text", ["", "x", "1 Gi", "1gi", "1Zi", "Gi", "1.2.3", "--1", "1e", "1Gi\n", "\u0661"]
)
def test_invalid_quantities_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a quantity; use a format such as"):
        parse(text)


@given(st.from_regex(PATTERN.strip("^$"), fullmatch=True))
def test_reads_back_what_it_writes(text: str) -> None:
    assert parse(str(parse(text))) == parse(text)


@given(st.integers(-(10**27), 10**27), st.integers(-(10**27), 10**27))
def test_sums_and_order_are_exact(one: int, other: int) -> None:
    assert (Quantity(one) + Quantity(other)).nanos == one + other
    assert (Quantity(one) - Quantity(other)).nanos == one - other
    assert (Quantity(one) < Quantity(other)) == (one < other)
    assert (Quantity(one) == Quantity(other)) == (one == other)


def test_equality_ignores_the_unit() -> None:
    assert parse("1Gi") == parse("1024Mi") == parse(2**30)
    assert len({parse("1"), parse("1000m"), parse("1e0")}) == 1
    assert parse("9Gi") < parse("10Gi") <= parse("10240Mi")
    assert str(parse("1Gi") + parse("1G")) == "2073741824"
    assert str(3 * parse("512Mi")) == "1536Mi"


def test_conversion_to_units_rounds_away_from_zero() -> None:
    assert int(parse("1.5Gi")) == 1_610_612_736
    assert int(parse("100m")) == 1
    assert int(parse("-1.5")) == -2
    assert parse("0.25").in_units(-3) == 250
    assert parse("1.5G").in_units(6) == 1500
