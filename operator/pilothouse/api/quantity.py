"""Amounts of memory, storage and CPU in Kubernetes' format: "1.5Gi", "500m", "12e6"."""

import re
from dataclasses import dataclass
from functools import total_ordering
from typing import Annotated, Literal, TypeAlias

import msgspec

IntOrString: TypeAlias = int | str
"""An integer or a string, such as a port or a percentage (x-kubernetes-int-or-string)."""

_NUMBER = r"([0-9]+(\.[0-9]*)?|\.[0-9]+)"
# k8s.io/apimachinery/pkg/api/resource: <signedNumber><suffix>.
PATTERN = rf"^[+-]?{_NUMBER}([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]+)?$"

QuantityText: TypeAlias = Annotated[int | str, msgspec.Meta(extra_json_schema={"pattern": PATTERN})]
"""A field with a quantity, as the user wrote it. Parse it with `Quantity.parse` where it is used.

Decoding does not parse it. Otherwise one invalid quantity would make the whole object unreadable.
"""

Family = Literal["binary", "decimal", "exponent"]

_BINARY = ("Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_DECIMAL_BY_POWER = {power: suffix for suffix, power in _DECIMAL.items()}
_WRITTEN = re.compile(PATTERN.strip("^$"))
_PARTS = re.compile(r"([+-]?)([0-9]*)\.?([0-9]*)(.*)")

# The precision of a Kubernetes quantity is 1e-9, and its maximum an int64.
_NANO = 9
_GREATEST = (2**63 - 1) * 10**_NANO


@total_ordering
@dataclass(frozen=True, slots=True)
class Quantity:
    """An exact amount. Comparisons ignore the unit that it was written in.

    `str()` returns Kubernetes' canonical form: no fraction, and the largest unit that fits, of the family
    (binary, decimal or exponent) that the text had. A sum has the family of its first operand.

    Attributes:
        nanos: The amount in billionths.
        family: The family of units in which it is written.
    """

    nanos: int
    family: Family = "decimal"

    @classmethod
    def parse(cls, text: IntOrString) -> "Quantity":
        """Parses a quantity.

        As in Kubernetes, an amount finer than 1e-9 is rounded away from zero, and an amount beyond an int64
        becomes the largest int64.

        Raises:
            ValueError: The text is not a quantity.
        """
        written = str(text)
        found = _PARTS.fullmatch(written)
        if not found or not _WRITTEN.fullmatch(written):
            raise ValueError(f"{text!r} is not a quantity; use a format such as 500m, 2, 1.5Gi or 12e6")
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
        # Limits the memory for a text such as 1e999999999. Only amounts out of range are affected.
        power = max(min(power, 30), -len(written))
        nanos = digits * 10**power if power >= 0 else _divided(digits, 10**-power)
        nanos = min(nanos, _GREATEST)
        return cls(-nanos if sign == "-" else nanos, family)

    def __int__(self) -> int:
        """Returns the amount in whole units (bytes, cores), rounded away from zero."""
        return self.in_units(0)

    def in_units(self, power: int) -> int:
        """Returns the amount in units of 10**power, rounded away from zero. Use -3 for CPU in millicores."""
        return _divided(self.nanos, 10 ** (_NANO + power))

    def __str__(self) -> str:
        # As in Kubernetes, amounts below 1Ki and amounts with a fraction are not written with binary units.
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
    """Returns the quotient, rounded away from zero as in Kubernetes."""
    return -(-number // by) if number >= 0 else number // by


def _written(number: int, base: int, suffixes: tuple[str, ...]) -> str:
    index = 0
    while number % base == 0 and index + 1 < len(suffixes):
        number, index = number // base, index + 1
    return f"{number}{suffixes[index]}"
