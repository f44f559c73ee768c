"""The versions of etcd: which are supported, which have known defects, and the path from one to another.

Sources: the CHANGELOGs and the upgrade guides of etcd (etcd.io/docs/v3.6/upgrades, .../v3.7/upgrades).
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

_WRITTEN = re.compile(
    r"v*(0|[1-9][0-9]{0,5})\.(0|[1-9][0-9]{0,5})\.(0|[1-9][0-9]{0,5})((?:-[0-9A-Za-z._-]{1,64})?)"
)

_PRE_RELEASE = re.compile(r"-(alpha|beta|rc)[._-]?([0-9]*).*", re.IGNORECASE)


class Minor(NamedTuple):
    """A minor release, such as 3.6."""

    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


class Version(msgspec.Struct, frozen=True, order=True):
    """A version of etcd. Versions that differ only in their suffix are not equal, but are the same release.

    Attributes:
        release: Its three numbers.
        suffix: What follows the numbers, such as "-0" in 3.5.21-0, the tag of another registry.
    """

    release: tuple[int, int, int]
    suffix: str = ""

    @classmethod
    def parse(cls, text: str) -> "Version":
        """Parses a version. As in earlier operators, it may begin with "v".

        Raises:
            ValueError: The text is not a version.
        """
        found = _WRITTEN.fullmatch(text)
        if not found:
            raise ValueError(f"{text!r} is not a version of etcd; use three numbers, such as {DEFAULT}")
        major, minor, patch, suffix = found.groups()
        return cls((int(major), int(minor), int(patch)), suffix)

    def __str__(self) -> str:
        return f"{'.'.join(map(str, self.release))}{self.suffix}"

    @property
    def age(self) -> tuple[tuple[int, int, int], tuple[bool, str, int]]:
        """A key that sorts versions by age: pre-releases such as 3.7.0-rc.0 are older than their release.

        Other suffixes, such as "-0", do not count: they are builds of one release.
        """
        found = _PRE_RELEASE.fullmatch(self.suffix)
        if not found:
            return self.release, (True, "", 0)
        stage, number = found.groups()
        return self.release, (False, stage.lower(), int(number or 0))

    @property
    def minor(self) -> Minor:
        """The minor release that the version belongs to."""
        return Minor(*self.release[:2])

    @property
    def tag(self) -> str:
        """The tag of its image."""
        return f"v{self}"


def _version(text: str) -> Version:
    return Version(tuple(map(int, text.split("."))))  # type: ignore[arg-type]  # three numbers


NEWEST = {version.minor: version for version in map(_version, ("3.5.33", "3.6.14", "3.7.3"))}
"""The supported minor releases in ascending order, each with its newest known patch release."""

DEFAULT = max(NEWEST.values())
"""The version of a new cluster whose spec has none."""

FLOORS = {minor: _version(text) for minor, text in ((Minor(3, 6), "3.5.32"), (Minor(3, 7), "3.6.11"))}
"""The lowest version that all members need before the upgrade to a minor release."""


class Defect(NamedTuple):
    """A known defect of a range of versions.

    Attributes:
        since: The first version that has it.
        before: The first version that does not have it any more.
        what: What can happen, for people.
    """

    since: Version
    before: Version
    what: str


_DEFECTS = tuple(
    Defect(_version(since), _version(before), what)
    for since, before, what in (
        ("3.5.0", "3.5.3", "members can become inconsistent with each other after a crash"),
        ("3.5.0", "3.5.5", "a cluster of one member can lose acknowledged writes after a crash"),
        ("3.5.0", "3.5.6", "revisions can become inconsistent if a member crashes while it defragments"),
        ("3.5.1", "3.5.20", "promoted learners are not recorded, which can break the upgrade to 3.6"),
        ("3.5.0", "3.5.23", "a member that defragments while it applies a snapshot can lose data"),
        ("3.6.0", "3.6.4", "a new member can fail to start after an earlier learner was promoted"),
        ("3.6.0", "3.6.5", "a member that defragments while it applies a snapshot can lose data"),
        ("3.5.0", "3.5.33", "it lacks the fixes of GHSA-xg4h-6gfc-h4m8 and GHSA-6vch-q96h-7gc3"),
        ("3.6.0", "3.6.14", "it lacks the fixes of GHSA-xg4h-6gfc-h4m8 and GHSA-6vch-q96h-7gc3"),
        ("3.7.0", "3.7.1", "it lacks the fixes of GHSA-xg4h-6gfc-h4m8 and GHSA-6vch-q96h-7gc3"),
    )
)


def defect(version: Version) -> Defect | None:
    """Returns the most serious known defect of a version. None: no defect is known."""
    return next(
        (each for each in _DEFECTS if each.since.release <= version.release < each.before.release), None
    )


def unsupported(version: Version) -> str:
    """Returns why the operator does not run a version, and what to do. Empty: it is supported."""
    oldest, newest = min(NEWEST), max(NEWEST)
    if version.minor in NEWEST:
        return ""
    if version.minor > newest:
        return (
            f"this release of the operator supports etcd {oldest} to {newest}; use {DEFAULT}, or upgrade the "
            "operator"
        )
    first = NEWEST[oldest]
    return (
        f"the oldest supported version is {oldest}; use {DEFAULT} for a new cluster. To keep the data of an "
        f"older cluster, upgrade it one minor release at a time to {first} first, or restore its snapshot"
    )


def path(current: Version, target: Version) -> tuple[Version, ...]:
    """Returns the versions through which all members go, one after the other, up to the target.

    It does not skip a minor release. Before a minor upgrade, all members get at least the version in
    `FLOORS`.

    Args:
        current: The version of the member with the lowest version.
        target: The desired version. Its minor release is supported and not lower.

    Returns:
        The versions without the current one. Empty: the release does not change.

    Raises:
        ValueError: The target is a downgrade.
    """
    return tuple(_steps(current, target))


def _steps(current: Version, target: Version) -> Iterator[Version]:
    if is_downgrade(current, target):
        raise ValueError(f"etcd {current} cannot be downgraded to {target}")
    for minor in (each for each in NEWEST if current.minor < each <= target.minor):
        floor = FLOORS.get(minor)
        if floor and current.release < floor.release:
            # The member is not above the newest patch, because that is not below the floor.
            current = NEWEST[current.minor]
            yield current
        current = target if minor == target.minor else NEWEST[minor]
        yield current
    if current != target:
        yield target


def is_downgrade(current: Version, target: Version) -> bool:
    """Returns whether the target is an older release, or an older pre-release of the same one.

    Other suffixes do not count. etcd refuses the data of a newer minor release. An older patch release can
    have defects that are fixed in the current one.
    """
    return target.age < current.age


def minors_between(current: Version, target: Version) -> int:
    """Returns the number of minor releases from one version up to another; 0 within one minor release."""
    return sum(current.minor < minor <= target.minor for minor in NEWEST)
