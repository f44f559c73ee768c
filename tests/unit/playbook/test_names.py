"""Names of children: valid for their kind, unchanged if possible, and never equal by accident."""

import re
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pilothouse.kube import PartialObjectMetadata, Resource
from pilothouse.playbook import child_name
from pilothouse.playbook.awaited import PlaybookError
from pilothouse.views import JOB

LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"


def kind(group: str, name: str) -> Resource[Any]:
    return Resource(group, "v1", name, name.lower() + "s", PartialObjectMetadata)


# The names that the API server accepts (apimachinery, util/validation; kubernetes, pkg/apis/*/validation).
VALID: dict[Resource[Any] | None, tuple[int, str]] = {
    None: (52, "[a-z]([-a-z0-9]*[a-z0-9])?"),
    kind("", "Service"): (63, "[a-z]([-a-z0-9]*[a-z0-9])?"),
    kind("", "Namespace"): (63, LABEL),
    kind("", "Pod"): (63, LABEL),
    kind("apps", "Deployment"): (63, LABEL),
    kind("apps", "StatefulSet"): (52, LABEL),
    JOB: (63, LABEL),
    kind("batch", "CronJob"): (52, LABEL),
    kind("", "ConfigMap"): (253, rf"{LABEL}(\.{LABEL})*"),
    kind("", "PersistentVolumeClaim"): (253, rf"{LABEL}(\.{LABEL})*"),
    kind("example.com", "Site"): (253, rf"{LABEL}(\.{LABEL})*"),
}
kinds = st.sampled_from(list(VALID))
names = (
    st.from_regex(rf"\A{LABEL}(\.{LABEL}){{0,2}}\Z") | st.text("aA0-._é", max_size=300) | st.text(max_size=9)
)
parts_of_a_name = st.lists(names, min_size=1, max_size=4).filter(any)


@given(parts_of_a_name, kinds)
@example(["web", ""], None)
@example(["1" * 300], kind("", "Service"))
@example(["a." * 200, "b"], kind("", "ConfigMap"))
@example(["İ" * 80], None)
@example(["\ud83d"], None)
def test_a_name_is_valid_for_its_kind_and_the_same_each_time(
    parts: list[str], kind: Resource[Any] | None
) -> None:
    made = child_name(*parts, kind=kind)
    length, pattern = VALID[kind]
    assert re.fullmatch(pattern, made, re.ASCII)
    assert len(made) <= length
    assert made == child_name(*parts, kind=kind)


@given(parts_of_a_name, parts_of_a_name, kinds)
@example(["a", "b-c"], ["a-b", "c"], None)
@example(["a-b", "c"], ["a", "b", "c"], None)
@example(["a-b"], ["a", "b"], None)
@example(["Web"], ["web"], None)
@example(["a_b"], ["a.b"], None)
@example(["a", ""], ["a"], None)
@example(["w" * 70, "a"], ["w" * 70, "b"], None)
@example(["1a"], ["x-1a"], None)
def test_different_parts_have_different_names(
    one: list[str], other: list[str], kind: Resource[Any] | None
) -> None:
    same = child_name(*one, kind=kind) == child_name(*other, kind=kind)
    assert same == (one == other)


@given(parts_of_a_name, kinds)
def test_a_name_that_imitates_another_ones_digest_differs_from_it(
    parts: list[str], kind: Resource[Any] | None
) -> None:
    made = child_name(*parts, kind=kind)
    head, _, tail = made.rpartition("-")
    for imitation in ([made], [head, tail]):
        assert (child_name(*imitation, kind=kind) == made) == (imitation == parts)


@pytest.mark.parametrize(
    ("parts", "made"),
    [
        (("web", "config"), "web-config"),
        (("my-ticket", "password"), "my-ticket-password"),
        (("web",), "web"),
    ],
)
@pytest.mark.parametrize("resource", VALID)
def test_simple_names_stay_as_they_are(parts: tuple[str, ...], made: str, resource: Any) -> None:
    assert child_name(*parts, kind=resource) == made


def test_other_names_stay_readable() -> None:
    assert re.fullmatch("web-client-tls-[0-9a-f]{10}", child_name("web", "client", "tls"))
    assert re.fullmatch("web-a-b-[0-9a-f]{10}", child_name("Web", "a_b"))
    assert child_name("www.example.com", "tls", kind=kind("", "Secret")) == "www.example.com-tls"
    assert re.fullmatch(
        "www-example-com-tls-[0-9a-f]{10}", child_name("www.example.com", "tls").replace(".", "-")
    )
    assert re.fullmatch("x-1st-web-[0-9a-f]{10}", child_name("1st", "web", kind=kind("", "Service")))
    assert child_name("1st", "web", kind=JOB) == "1st-web"


@pytest.mark.parametrize("parts", [(), ("",), ("", "")])
def test_a_name_of_nothing_is_refused(parts: tuple[str, ...]) -> None:
    with pytest.raises(PlaybookError, match="needs a part that is not empty"):
        child_name(*parts)
