"""Amounts of memory, storage and CPU, as Kubernetes writes them: "1.5Gi", "500m", "12e6"."""

import re
from dataclasses import dataclass
from functools import total_ordering
from typing import Annotated, Literal, TypeAlias

import msgspec

IntOrString: TypeAlias = int | str
"""A whole number or a text, such as a port or a percentage (x-kubernetes-int-or-string)."""

_NUMBER = r"([0-9]+(\.[0-9]*)?|\.[0-9]+)"
# k8s.io/apimachinery/pkg/api/resource: <signedNumber><suffix>.
PATTERN = rf"^[+-]?{_NUMBER}([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]+)?$"

QuantityText: TypeAlias = Annotated[int | str, msgspec.Meta(extra_json_schema={"pattern": PATTERN})]
"""A field that holds a quantity, as it was written: `Quantity.parse` reads it.

It is read where it is used and not where it is decoded, so that one strange text does not hide an object.
"""

Family = Literal["binary", "decimal", "exponent"]

_BINARY = ("Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_DECIMAL_BY_POWER = {power: suffix for suffix, power in _DECIMAL.items()}
_WRITTEN = re.compile(PATTERN.strip("^$"))
_PARTS = re.compile(r"([+-]?)([0-9]*)\.?([0-9]*)(.*)")

# Kubernetes counts no finer than 1e-9, and no further than an int64.
_NANO = 9
_GREATEST = (2**63 - 1) * 10**_NANO


@total_ordering
@dataclass(frozen=True, slots=True)
class Quantity:
    """An exact amount; equal and ordered by what it amounts to, whatever unit it was written in.

    `str()` is the form that Kubernetes would write: no fraction, the greatest unit that fits, of the same
    family (1024-fold, 1000-fold or exponent) that it was read in. A sum has the family of its first part.

    Attributes:
        nanos: How many billionths.
        family: How it is written.
    """

    nanos: int
    family: Family = "decimal"

    @classmethod
    def parse(cls, text: IntOrString) -> "Quantity":
        """Reads a quantity.

        As in Kubernetes, what is finer than 1e-9 is rounded up, away from zero, and what is beyond an int64
        becomes the greatest one.

        Raises:
            ValueError: It is none.
        """
        written = str(text)
        found = _PARTS.fullmatch(written)
        if not found or not _WRITTEN.fullmatch(written):
            raise ValueError(f"{text!r} is no quantity; write one like 500m, 2, 1.5Gi or 12e6")
        sign, whole, fraction, suffix = found.groups()
        digits, power = int(whole + fraction), _NANO - len(fraction)
        family: Family = "decimal"
        if suffix in _BINARY:
            family = "binary"
            digits <<= 10 * (_BINARY.index(suffix) + 1)
        elif suffix in _DECIMAL:
            power += _DECIMAL[suffix]
        else:
            family = "exponent"
            power += int(suffix[1:])
        # What this cuts off is beyond the greatest quantity or below the finest; 1e999999999 costs no memory.
        power = max(min(power, 30), -len(written))
        nanos = digits * 10**power if power >= 0 else _divided(digits, 10**-power)
        nanos = min(nanos, _GREATEST)
        return cls(-nanos if sign == "-" else nanos, family)

    def __int__(self) -> int:
        """The amount in whole units (bytes, cores), rounded up, away from zero."""
        return self.in_units(0)

    def in_units(self, power: int) -> int:
        """The amount in units of ten to the power, rounded up, away from zero: -3 for CPU in millicores."""
        return _divided(self.nanos, 10 ** (_NANO + power))

    def __str__(self) -> str:
        # As Kubernetes: neither less than a Ki nor what has a fraction is written with a unit of 1024.
        whole = self.nanos % 10**_NANO == 0
        if self.family == "binary" and whole and abs(self.nanos) >= 1024 * 10**_NANO:
            return _written(int(self), 1024, ("", *_BINARY))
        number, power = self.nanos, -_NANO
        while number and number % 1000 == 0 and power < 18:
            number, power = number // 1000, power + 3
        if not number:
            return "0"
        if self.family == "exponent":
            return f"{number}e{power}" if power else str(number)
        return f"{number}{_DECIMAL_BY_POWER[power]}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Quantity) and self.nanos == other.nanos

    def __hash__(self) -> int:
        return hash(self.nanos)

    def __lt__(self, other: "Quantity") -> bool:
        return self.nanos < other.nanos

    def __add__(self, other: "Quantity") -> "Quantity":
        return Quantity(self.nanos + other.nanos, self.family)

    def __sub__(self, other: "Quantity") -> "Quantity":
        return Quantity(self.nanos - other.nanos, self.family)

    def __mul__(self, times: int) -> "Quantity":
        return Quantity(self.nanos * times, self.family)

    __rmul__ = __mul__


def _divided(number: int, by: int) -> int:
    """The quotient, rounded away from zero, as Kubernetes rounds."""
    return -(-number // by) if number >= 0 else number // by


def _written(number: int, base: int, suffixes: tuple[str, ...]) -> str:
    index = 0
    while number % base == 0 and index + 1 < len(suffixes):
        number, index = number // base, index + 1
    return f"{number}{suffixes[index]}"
