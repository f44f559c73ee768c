"""Names for the objects that a playbook creates: valid for their kind, and different for different parts."""

import hashlib
import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from pilothouse.kube import Resource
from pilothouse.playbook.arguments import require_resource, shown
from pilothouse.playbook.awaited import PlaybookError

DIGEST_LENGTH = 8
# 40 bits. Longer than DIGEST_LENGTH, so that a name with such a digest is not mistaken for one with this.
NAME_DIGEST_LENGTH = 10


class NameRule(NamedTuple):
    """The rule for the names of a kind.

    Attributes:
        length: The length of the longest name.
        dots: Whether a name may contain dots: it is a DNS subdomain, not a DNS label.
        letter: Whether a name must start with a letter (RFC 1035), not with a digit.
    """

    length: int
    dots: bool = False
    letter: bool = False

    def admits(self, name: str) -> bool:
        """Returns whether an object of the kind may have this name."""
        return (
            len(name) <= self.length
            and (self.dots or "." not in name)
            and not (self.letter and name[:1].isdigit())
            and _SUBDOMAIN.fullmatch(name) is not None
        )


_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = re.compile(rf"{_LABEL}(\.{_LABEL})*", re.ASCII)
_DIGEST = re.compile(f"[0-9a-f]{{{NAME_DIGEST_LENGTH}}}")

# The name of a Service is a DNS-1035 label. The name of a Job or a Pod is also used as a label value and as a
# host name. The name of a StatefulSet, with 11 more characters, becomes the label controller-revision-hash.
# The name of a CronJob, with 11 more characters, becomes that of its Jobs (pkg/apis/batch/validation).
_RULES = {
    ("", "Service"): NameRule(63, letter=True),
    ("", "Namespace"): NameRule(63),
    ("", "Pod"): NameRule(63),
    ("apps", "Deployment"): NameRule(63),
    ("apps", "ReplicaSet"): NameRule(63),
    ("apps", "DaemonSet"): NameRule(63),
    ("apps", "StatefulSet"): NameRule(52),
    ("batch", "Job"): NameRule(63),
    ("batch", "CronJob"): NameRule(52),
}
_OTHERS = NameRule(253, dots=True)
_ANY = NameRule(52, letter=True)


def child_name(*parts: str, kind: Resource[Any] | None = None) -> str:
    """Returns the name of an object that belongs to another: `child_name("web", "config")` is "web-config".

    The name is valid for the kind, the same each time, and different for different parts. A name followed by
    one word is joined by a hyphen. In all other cases (more parts, a hyphen in the last part, capital
    letters, other characters, a name that is too long) the joined parts are cleaned and truncated, and get a
    digest of the parts as a suffix: "web-client-tls-59b2c08f3a". So two lists of parts have the same name
    only if 40 bits of their SHA-256 are equal.

    Args:
        *parts: The parts of the name: first the name of the owner, then the purpose of the object.
        kind: The kind of the object that gets the name. None: the name is valid for every kind. It has at
            most 52 characters, starts with a letter and has no dots.

    Raises:
        PlaybookError: All parts are empty, or a part is not text.
    """
    if wrong := [part for part in parts if not isinstance(part, str)]:
        raise PlaybookError(f"child_name: a part is {shown(wrong[0])}, but must be text, such as str(...)")
    if not any(parts):
        raise PlaybookError("child_name needs a part that is not empty: child_name(owner_name, 'config')")
    if kind is not None:
        require_resource(kind, "child_name")
    rule = _ANY if kind is None else _RULES.get((kind.group, kind.kind), _OTHERS)
    plain = "-".join(parts)
    if _is_unambiguous(parts) and rule.admits(plain):
        return plain
    suffix = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:NAME_DIGEST_LENGTH]
    prefix = _cleaned(plain, rule)[: rule.length - len(suffix) - 1].rstrip("-.")
    return f"{prefix}-{suffix}"


def _is_unambiguous(parts: Sequence[str]) -> bool:
    """Returns whether the parts can be recovered from the joined name, by splitting it at its last hyphen."""
    last = parts[-1]
    return len(parts) <= 2 and "-" not in last and not _DIGEST.fullmatch(last)


def _cleaned(text: str, rule: NameRule) -> str:
    """Returns a text as the start of a name, with a hyphen in place of invalid characters."""
    labels = re.sub("[^a-z0-9.]+" if rule.dots else "[^a-z0-9]+", "-", text.lower()).split(".")
    cleaned = ".".join(filter(None, (label.strip("-") for label in labels)))
    return f"x-{cleaned}" if not cleaned or (rule.letter and cleaned[0].isdigit()) else cleaned


def digest(content: object, length: int = DIGEST_LENGTH) -> str:
    """Returns a short hash of a content, which is the same in every process."""
    return hashlib.sha256(msgspec.json.encode(content, order="sorted")).hexdigest()[:length]
