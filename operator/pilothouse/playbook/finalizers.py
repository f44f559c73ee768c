"""The finalizers of a playbook: the name that it stores, and the names that earlier releases stored."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from pilothouse.kube import ObjectMeta

# kubernetes apimachinery, pkg/util/validation: IsQualifiedName and IsDNS1123Subdomain.
_DOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?", re.ASCII)
DOMAIN_LENGTH = 253
NAME_LENGTH = 63


class Finalizers(NamedTuple):
    """The finalizer names that a playbook is responsible for.

    Attributes:
        current: The name that is stored before the first task; empty for a playbook without cleanup.
        retired: Names that earlier releases stored.
    """

    current: str = ""
    retired: tuple[str, ...] = ()

    def hold(self, metadata: ObjectMeta) -> bool:
        """Returns whether one of these names holds an object back from deletion."""
        return any(name == self.current or name in self.retired for name in metadata.finalizers)

    def stored(self, finalizers: tuple[str, ...]) -> tuple[str, ...]:
        """Returns the finalizers that an object has to have before its first task."""
        if self.retired:
            finalizers = tuple(name for name in finalizers if name not in self.retired)
        if self.current and self.current not in finalizers:
            return (*finalizers, self.current)
        return finalizers

    def released(self, finalizers: tuple[str, ...]) -> tuple[str, ...]:
        """Returns the finalizers of others, which an object keeps after its cleanup."""
        return tuple(name for name in finalizers if name != self.current and name not in self.retired)

    @property
    def domains(self) -> frozenset[str]:
        """The domains of these names."""
        return frozenset(name.partition("/")[0] for name in (self.current, *self.retired) if name)

    def __str__(self) -> str:
        return ", ".join(filter(None, (self.current, *self.retired)))


def finalizers_of(current: str, retired: Sequence[str]) -> Finalizers:
    """Returns the finalizers of a playbook.

    Raises:
        TypeError: `retired` is a text and not a sequence of names.
        ValueError: A name is one that the API server refuses, or is given twice.
    """
    if isinstance(retired, str):
        raise TypeError(f"retired_finalizers is the text {retired!r}: write [{retired!r}]")
    names = [*filter(None, (current,)), *retired]
    for name in names:
        _require_valid(name)
        if names.count(name) > 1:
            raise ValueError(
                f"the finalizer {name!r} is declared twice: a name is either the playbook's finalizer or one "
                "of its retired_finalizers"
            )
    return Finalizers(current, tuple(retired))


def _require_valid(name: str) -> None:
    domain, slash, last = name.partition("/")
    if not slash:
        why = "it has no domain"
    elif len(domain) > DOMAIN_LENGTH or not _DOMAIN.fullmatch(domain):
        why = f"{domain!r} is not a lower-case DNS name of at most {DOMAIN_LENGTH} characters"
    elif len(last) > NAME_LENGTH or not _NAME.fullmatch(last):
        why = (
            f"{last!r} is not a name of at most {NAME_LENGTH} letters, digits, '-', '_' and '.' that begins "
            "and ends with a letter or digit"
        )
    else:
        return
    raise ValueError(
        f"the API server refuses the finalizer {name!r}: {why}. Write it as domain/name, such as "
        "example.com/cleanup"
    )
