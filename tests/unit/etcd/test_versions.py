"""The versions of etcd and the paths between them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devcluster import etcd_images
from etcd_operator import versions
from etcd_operator.versions import DEFAULT, FLOORS, NEWEST, Version

V = Version.parse


@pytest.mark.parametrize(
    ("text", "written", "tag"),
    [
        ("3.6.14", "3.6.14", "v3.6.14"),
        ("v3.6.14", "3.6.14", "v3.6.14"),
        ("vv3.2.13", "3.2.13", "v3.2.13"),
        ("3.5.21-0", "3.5.21-0", "v3.5.21-0"),
        ("3.7.0-rc.1", "3.7.0-rc.1", "v3.7.0-rc.1"),
    ],
)
def test_a_version_is_parsed_as_users_write_it(text: str, written: str, tag: str) -> None:
    assert (str(V(text)), V(text).tag) == (written, tag)


@pytest.mark.parametrize(
    "text",
    ["", "latest", "3.6", "3.6.x", "3.6.014", "3.6.14 ", "V3.6.14", "3.6.14\n", "3.6.14+a:b", "9" * 5000],
)
def test_a_text_that_is_not_a_version_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"use three numbers, such as 3\."):
        V(text)


PATHS = [
    ("3.5.0", "3.5.33", ["3.5.33"]),
    ("3.5.33", "3.5.33", []),
    ("3.5.21", "3.5.21-0", ["3.5.21-0"]),
    ("3.5.21-0", "3.5.21", ["3.5.21"]),
    ("3.5.21-1", "3.5.21-0", ["3.5.21-0"]),
    ("3.5.21-debian-12-r1", "3.5.21", ["3.5.21"]),
    ("3.7.0-alpha.0", "3.7.0-rc.0", ["3.7.0-rc.0"]),
    ("3.7.0-rc.1", "3.7.0", ["3.7.0"]),
    ("3.5.0", "3.6.14", ["3.5.33", "3.6.14"]),
    ("3.5.31", "3.6.14", ["3.5.33", "3.6.14"]),
    ("3.5.32", "3.6.14", ["3.6.14"]),
    ("3.5.40", "3.6.14", ["3.6.14"]),
    ("3.5.0", "3.7.1", ["3.5.33", "3.6.14", "3.7.1"]),
    ("3.5.33", "3.7.0", ["3.6.14", "3.7.0"]),
    ("3.6.4", "3.7.1", ["3.6.14", "3.7.1"]),
    ("3.6.11", "3.7.1", ["3.7.1"]),
    ("3.6.14", "3.7.9", ["3.7.9"]),
]


@pytest.mark.parametrize(("current", "target", "steps"), PATHS)
def test_the_path(current: str, target: str, steps: list[str]) -> None:
    assert [str(each) for each in versions.path(V(current), V(target))] == steps


@pytest.mark.parametrize(
    ("current", "target"),
    [
        ("3.6.0", "3.5.33"),
        ("3.5.33", "3.5.32"),
        ("3.7.0", "3.5.0"),
        ("3.6.14", "3.6.14-rc.0"),
        ("3.6.14-0", "3.6.14-alpha.0"),
        ("3.6.14-rc.10", "3.6.14-rc.9"),
        ("3.6.14-rc.0", "3.6.14-beta.1"),
        ("3.6.14-beta", "3.6.14-ALPHA2"),
    ],
)
def test_a_downgrade_has_no_path(current: str, target: str) -> None:
    with pytest.raises(ValueError, match="cannot be downgraded"):
        versions.path(V(current), V(target))


known = st.builds(
    lambda minor, patch: Version((*minor, patch)), st.sampled_from(sorted(NEWEST)), st.integers(0, 50)
)


@given(known, known)
def test_every_step_obeys_the_rules(current: Version, target: Version) -> None:
    current, target = sorted((current, target))
    steps = versions.path(current, target)
    assert (steps[-1] if steps else current) == target
    for before, after in zip((current, *steps), steps, strict=False):
        assert after.release > before.release
        assert after.minor.minor - before.minor.minor in (0, 1), "one minor release at a time"
        if after.minor != before.minor and after.minor in FLOORS:
            assert before.release >= FLOORS[after.minor].release
    assert versions.path(current, target)[1:] == (versions.path(steps[0], target) if steps else ())


@pytest.mark.parametrize(
    ("version", "what"),
    [
        ("3.5.0", "inconsistent with each other"),
        ("3.5.2", "inconsistent with each other"),
        ("3.5.4", "cluster of one member"),
        ("3.5.5", "defragments"),
        ("3.5.19", "learners"),
        ("3.5.22", "applies a snapshot"),
        ("3.5.32", "GHSA"),
        ("3.6.3", "fail to start"),
        ("3.6.4", "applies a snapshot"),
        ("3.6.13", "GHSA"),
        ("3.7.0", "GHSA"),
    ],
)
def test_known_defects(version: str, what: str) -> None:
    found = versions.defect(V(version))
    assert found
    assert what in found.what


def test_the_newest_versions_have_no_known_defect_and_are_above_the_floors() -> None:
    assert [str(minor) for minor in NEWEST] == ["3.5", "3.6", "3.7"]
    for minor, newest in NEWEST.items():
        assert newest.minor == minor
        assert versions.defect(newest) is None
        assert not versions.unsupported(newest)
    for floor in FLOORS.values():
        assert floor.release <= NEWEST[floor.minor].release
    assert max(NEWEST.values()) == DEFAULT


def test_the_newest_versions_are_those_of_the_local_images() -> None:
    """A cluster without a version, and each step of an upgrade, needs an image."""
    assert {str(each) for each in NEWEST.values()} <= set(etcd_images.versions())


@pytest.mark.parametrize(
    ("version", "why"),
    [
        ("3.4.45", "upgrade it one minor release at a time to 3.5.33 first"),
        ("3.2.13", "use 3.7.3 for a new cluster"),
        ("2.3.8", "the oldest supported version is 3.5"),
        ("3.8.0", "supports etcd 3.5 to 3.7"),
        ("4.0.0", "upgrade the operator"),
    ],
)
def test_an_unsupported_version_is_explained(version: str, why: str) -> None:
    assert why in versions.unsupported(V(version))


def test_minors_between() -> None:
    assert versions.minors_between(V("3.5.0"), V("3.7.1")) == 2
    assert versions.minors_between(V("3.5.0"), V("3.5.33")) == 0
