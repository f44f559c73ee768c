"""The finalizers of a playbook: the name that it stores, and the names that earlier releases stored."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from pilothouse.kube import ObjectMeta
from pilothouse.playbook.arguments import require_text, shown
from pilothouse.playbook.awaited import PlaybookError

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
        """Returns whether an object has one of these finalizers."""
        return any(name == self.current or name in self.retired for name in metadata.finalizers)

    def stored(self, finalizers: tuple[str, ...]) -> tuple[str, ...]:
        """Returns the finalizers that an object must have before its first task runs."""
        if self.retired:
            finalizers = tuple(name for name in finalizers if name not in self.retired)
        if self.current and self.current not in finalizers:
            return (*finalizers, self.current)
        return finalizers

    def released(self, finalizers: tuple[str, ...]) -> tuple[str, ...]:
        """Returns the finalizers that remain after the cleanup: those of others."""
        return tuple(name for name in finalizers if name != self.current and name not in self.retired)

    @property
    def domains(self) -> frozenset[str]:
        """The domains of these names."""
        return frozenset(name.partition("/")[0] for name in (self.current, *self.retired) if name)

    def __str__(self) -> str:
        return ", ".join(filter(None, (self.current, *self.retired)))


def finalizers_of(current: str, retired: Sequence[str]) -> Finalizers:
    """Returns the finalizers of a playbook.

    Args:
        current: The playbook's finalizer; empty for a playbook without cleanup.
        retired: The names that earlier releases stored.

    Raises:
        PlaybookError: `retired` is not a list, the API server would refuse a name, or a name is given twice.
    """
    if isinstance(retired, str):
        raise PlaybookError(f"retired_finalizers is the string {retired!r}. Pass a list: [{retired!r}].")
    if not isinstance(retired, list | tuple):
        raise PlaybookError(
            f"retired_finalizers is {shown(retired)}, which is not a list. Pass a list: [...]."
        )
    for name in (current, *retired):
        require_text(name, "the finalizer of the Playbook")
    names = [*filter(None, (current,)), *retired]
    for name in names:
        _require_valid(name)
        if names.count(name) > 1:
            raise PlaybookError(
                f"The finalizer {name!r} is declared twice. A name must be either the playbook's finalizer "
                "or one of its retired_finalizers."
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
    raise PlaybookError(
        f"The API server would refuse the finalizer {name!r}: {why}. Write it as domain/name, for example "
        "example.com/cleanup."
    )
