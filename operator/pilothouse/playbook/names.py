"""Names for the objects that a playbook makes: valid for their kind, and different for different parts."""

import hashlib
import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from pilothouse.kube import Resource

DIGEST_LENGTH = 8
# 40 bits. Longer than `digest`, so that a name that ends in one of those is not taken for a digest of parts.
NAME_DIGEST_LENGTH = 10


class NameRule(NamedTuple):
    """What names a kind has.

    Attributes:
        length: The longest name, in characters.
        dots: A name may have dots: it is a DNS subdomain, not a DNS label.
        letter: A name must start with a letter (RFC 1035), not with a digit.
    """

    length: int
    dots: bool = False
    letter: bool = False

    def admits(self, name: str) -> bool:
        """Whether an object of the kind may have this name."""
        return (
            len(name) <= self.length
            and (self.dots or "." not in name)
            and not (self.letter and name[:1].isdigit())
            and _SUBDOMAIN.fullmatch(name) is not None
        )


_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = re.compile(rf"{_LABEL}(\.{_LABEL})*", re.ASCII)
_DIGEST = re.compile(f"[0-9a-f]{{{NAME_DIGEST_LENGTH}}}")

# A Service's name is a DNS-1035 label. The name of a Job or a Pod becomes the value of a label and a host
# name. A StatefulSet's becomes the label controller-revision-hash with 11 characters more; a CronJob's
# becomes that of its Jobs, with 11 characters more (kubernetes pkg/apis/batch/validation).
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
    """Makes the name of an object that belongs to another one: `child_name("web", "config")` is "web-config".

    The name is valid for the kind, the same each time, and different for different parts. One word alone,
    or any name with one word after it, is joined by a hyphen as it is. In all other cases (more parts, a
    hyphen in the last part, capital letters, other characters, a name that is too long) the joined parts are
    cleaned and truncated, and a digest of the parts makes the name unique: "web-client-tls-59b2c08f3a".
    So two lists of parts have the same name only if 40 bits of their SHA-256 are equal.

    Args:
        *parts: What the name consists of: the owner's name first, then what the object is for.
        kind: The kind of the object that gets the name. Unless given, the name fits every kind: it has at
            most 52 characters, starts with a letter and has no dots.

    Raises:
        ValueError: There are no parts.
    """
    if not any(parts):
        raise ValueError("a child's name needs a part that is not empty: child_name(owner_name, 'config')")
    rule = _ANY if kind is None else _RULES.get((kind.group, kind.kind), _OTHERS)
    plain = "-".join(parts)
    if _is_unambiguous(parts) and rule.admits(plain):
        return plain
    suffix = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:NAME_DIGEST_LENGTH]
    prefix = _cleaned(plain, rule)[: rule.length - len(suffix) - 1].rstrip("-.")
    return f"{prefix}-{suffix}"


def _is_unambiguous(parts: Sequence[str]) -> bool:
    """Whether the joined name shows what its parts were: it is split at its last hyphen, if it has one."""
    last = parts[-1]
    return len(parts) <= 2 and "-" not in last and not _DIGEST.fullmatch(last)


def _cleaned(text: str, rule: NameRule) -> str:
    """Returns a text as the start of a name: with a hyphen for what a name must not have."""
    labels = re.sub("[^a-z0-9.]+" if rule.dots else "[^a-z0-9]+", "-", text.lower()).split(".")
    cleaned = ".".join(filter(None, (label.strip("-") for label in labels)))
    return f"x-{cleaned}" if not cleaned or (rule.letter and cleaned[0].isdigit()) else cleaned


def digest(content: object, length: int = DIGEST_LENGTH) -> str:
    """Returns a few letters that stand for a content: the same for the same content, in any process."""
    return hashlib.sha256(msgspec.json.encode(content, order="sorted")).hexdigest()[:length]
