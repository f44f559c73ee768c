"""The annotations that record the state of an object's plans: their names and values."""

import hashlib
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

from pilothouse.kube import ObjectMeta

PLAN_PREFIX = "plan.pilothouse.dev/"

IN_PROGRESS = "InProgress"

# The name of an annotation has at most 63 characters after its prefix. A plan's part is shortened first, so
# that the owner's part is readable.
NAME_LENGTH = 63
PLAN_LENGTH = 40
DIGEST_BYTES = 8


class PlanAnnotations:
    """The annotations of the plans of one playbook.

    The name of an annotation is the owner and the plan, separated by the last dot. So two owners, such as an
    operator's two watches of the kind, never have the same annotation.

    Args:
        owner: The name of the operator, and of the watch if the operator has several watches of the kind.
        plans: The names of all plans of the playbook.
    """

    def __init__(self, owner: str = "", plans: Iterable[str] = ()) -> None:
        self._owner = owner
        self._names = {plan: self._named(plan) for plan in plans}
        self._known = frozenset(self._names.values())

    def name(self, plan: str) -> str:
        """Returns the name of the annotation of a plan."""
        return self._names.get(plan) or self._named(plan)

    def retired(self, metadata: ObjectMeta) -> Sequence[str]:
        """Returns the annotations of plans that an earlier release has begun and this one does not have.

        The digests of finished plans are not returned: if the earlier release is installed again, they show
        that its plans are not due.
        """
        return [
            name
            for name, value in metadata.annotations.items()
            if name.startswith(PLAN_PREFIX)
            and value.startswith(IN_PROGRESS)
            and name not in self._known
            and self._is_own(name)
        ]

    def _named(self, plan: str) -> str:
        plan = shortened(plan, PLAN_LENGTH, dots=False)
        return PLAN_PREFIX + ".".join(filter(None, (self._owner_part(plan), plan)))

    def _is_own(self, name: str) -> bool:
        owner, _, plan = name.removeprefix(PLAN_PREFIX).rpartition(".")
        return owner == self._owner_part(plan)

    def _owner_part(self, plan: str) -> str:
        return shortened(self._owner, NAME_LENGTH - len(".") - len(plan)) if self._owner else ""


def begun(metadata: ObjectMeta) -> str:
    """Returns the value of a plan that has begun. It has the object's UID, so a copy has begun no plan."""
    return f"{IN_PROGRESS}-{short_digest(metadata.uid)}"


@lru_cache(maxsize=256)
def shortened(text: str, length: int, *, dots: bool = True) -> str:
    """Returns a valid part of an annotation's name. Different texts have different parts.

    Args:
        text: The text.
        length: The maximum length, at least 17.
        dots: Whether the part may have dots.
    """
    part = re.sub("[^a-z0-9.]+" if dots else "[^a-z0-9]+", "-", text.lower()).strip("-.")
    if part == text and len(part) <= length:
        return part
    digest = short_digest(text)
    return f"{part[: max(0, length - len(digest) - 1)]}-{digest}".lstrip("-.")


def short_digest(*parts: str | bytes) -> str:
    """Returns a digest of 16 hexadecimal digits."""
    whole = b"\0".join(part.encode() if isinstance(part, str) else part for part in parts)
    return hashlib.blake2b(whole, digest_size=DIGEST_BYTES).hexdigest()
