"""Which addresses exist, what their names are, and who can reach them."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum


class Answer(Enum):
    """What a connection to an address gets."""

    OPEN = "open"
    REFUSED = "refused"
    SILENT = "silent"


@dataclass
class Network:
    """The network of the pods.

    Attributes:
        names: The address of each name, as DNS returns it.
        addresses: The addresses that exist. A packet to another address gets no answer.
        listening: The addresses where a process listens.
        frozen: The addresses where the process hangs.
        zones: The part of the network of an address. "" is where clients are. Parts cannot reach each other.
    """

    names: dict[str, str] = field(default_factory=dict)
    addresses: set[str] = field(default_factory=set)
    listening: set[str] = field(default_factory=set)
    frozen: set[str] = field(default_factory=set)
    zones: dict[str, str] = field(default_factory=dict)

    def connect(self, address: str, source: str = "") -> Answer:
        """Returns what a connection from one address to another one gets. "" is the address of a client."""
        apart = self.zones.get(address, "") != self.zones.get(source, "")
        if apart or address not in self.addresses or address in self.frozen:
            return Answer.SILENT
        return Answer.OPEN if address in self.listening else Answer.REFUSED
