from pathlib import Path

import pytest

from devcluster import dockerfiles, folders

DOCKERFILE = """\
# a comment
ARG PACKAGE=none
ARG BASE="docker.io/library/python:3.13-slim"
FROM $BASE AS build
COPY requirements/ /r
RUN pip install \\
    --target /w x
FROM ${BASE}
COPY --from=build /w /w
COPY --chown=1001 operator/a.py \\
     bundle/${PACKAGE} /app/
FROM scratch
FROM quay.io/operator-framework/opm:v1
"""


@pytest.fixture
def context(tmp_path: Path) -> Path:
    for name in (
        "requirements/r.txt",
        "operator/a.py",
        "operator/b.py",
        "bundle/flights/x.yaml",
        "bundle/etcd/x.yaml",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "Dockerfile").write_text(DOCKERFILE)
    return tmp_path


def key(context: Path, **arguments: str) -> str:
    return dockerfiles.content_key(context / "Dockerfile", context, {"PACKAGE": "flights", **arguments})


def test_bases_are_public_images_not_stages(context: Path) -> None:
    assert dockerfiles.bases(context / "Dockerfile", {}) == [
        "docker.io/library/python:3.13-slim",
        "quay.io/operator-framework/opm:v1",
    ]
    assert dockerfiles.bases(context / "Dockerfile", {"BASE": "x/y:1"})[0] == "x/y:1"


@pytest.mark.parametrize(
    "changed", ["requirements/r.txt", "operator/a.py", "bundle/flights/x.yaml", "Dockerfile"]
)
def test_a_changed_input_changes_the_key(context: Path, changed: str) -> None:
    before = key(context)
    assert key(context) == before
    (context / changed).write_text((context / changed).read_text() + "\n# more")
    assert key(context) != before


@pytest.mark.parametrize("changed", ["operator/b.py", "bundle/etcd/x.yaml", "operator/__pycache__/a.pyc"])
def test_a_file_that_is_not_copied_does_not_change_the_key(context: Path, changed: str) -> None:
    before = key(context)
    (context / changed).parent.mkdir(exist_ok=True)
    (context / changed).write_text("other")
    assert key(context) == before


def test_arguments_modes_and_bases_change_the_key(context: Path) -> None:
    before = key(context)
    assert key(context, VERSION="2") != before
    assert (
        dockerfiles.content_key(context / "Dockerfile", context, {"PACKAGE": "flights"}, ["base@1"]) != before
    )
    (context / "operator/a.py").chmod(0o755)
    assert key(context) != before


def test_the_airline_s_stages_share_their_first_layers_with_the_operators() -> None:
    first, second = (
        [stage.splitlines() for stage in (folders.CHECKOUT / name).read_text().split("\nFROM ")[1:]]
        for name in ("Dockerfile", "examples/booking_api/Dockerfile")
    )
    wheels = (("# Builds the framework's wheel", "COPY examples"), ("ARG VERSION", "LABEL"))
    for own, other, (end, other_end) in zip(first, second, wheels, strict=True):
        until = next(number for number, line in enumerate(own) if line.startswith(end))
        assert "/opt/pilothouse/site" in own[until - 1]
        assert other[:until] == own[:until]
        assert other[until].startswith(other_end)
