"""Rules for the Dockerfiles, and versions that must match."""

import json
import re
from pathlib import Path

from devcluster import toolchain
from devcluster.folders import CHECKOUT
from release.documents import load


def instructions(name: str) -> list[tuple[str, str]]:
    """Returns the instructions of the last stage, each with its arguments on one line."""
    text = re.sub(r"^\s*#.*\n", "", (CHECKOUT / name).read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    lines = [(line.split()[0], line.partition(" ")[2].strip()) for line in text.splitlines() if line.strip()]
    last = max(index for index, (word, _) in enumerate(lines) if word == "FROM")
    return lines[last:]


def test_the_image_runs_as_a_numeric_user_without_a_shell() -> None:
    final = dict(instructions("Dockerfile"))
    assert final["USER"] == "65532:65532"
    assert json.loads(final["ENTRYPOINT"]) == ["python3", "-m"]
    assert json.loads(final["CMD"]) == ["flights_operator"]
    assert "RUN" not in final


def test_the_image_has_labels_and_a_license() -> None:
    (labels,) = [arguments for word, arguments in instructions("Dockerfile") if word == "LABEL"]
    names = set(re.findall(r'(\S+)="', labels))
    assert {"name", "vendor", "version", "release", "summary", "description", "maintainer"} <= names
    assert {
        f"org.opencontainers.image.{name}"
        for name in ("title", "description", "version", "licenses", "source", "url", "vendor")
    } <= names
    assert ("COPY", "LICENSE /licenses/LICENSE") in instructions("Dockerfile")


def test_only_locked_wheels_are_installed() -> None:
    text = (CHECKOUT / "Dockerfile").read_text()
    assert "--require-hashes" in text
    assert "--only-binary=:all:" in text
    assert "--no-deps" in text


def test_the_catalog_is_served_by_the_opm_that_we_build() -> None:
    assert f"opm:{toolchain.TOOLS['opm'].version}\n" in (CHECKOUT / "catalog.Dockerfile").read_text()


def test_the_scorecards_images_are_of_the_operator_sdk_that_we_build() -> None:
    configuration = load(CHECKOUT / "config" / "base" / "scorecard" / "config.yaml")
    tests = [test for stage in configuration["stages"] for test in stage["tests"]]
    assert len(tests) == 6
    assert {test["image"].rpartition(":")[2] for test in tests} == {toolchain.TOOLS["operator-sdk"].version}


def test_the_image_contains_every_operator_without_sources_of_stubs() -> None:
    text = (CHECKOUT / "Dockerfile").read_text()
    [copied] = re.findall(r"cp -r (.+?) /opt/pilothouse/operator/", text)
    assert copied.split() == [f"operator/{each.parent.name}" for each in _operators()]
    assert "rm /opt/pilothouse/operator/etcd_operator/rpc/*.proto" in text
    assert "/opt/pilothouse/operator/etcd_operator/rpc/*.pyi" in text


def _operators() -> list[Path]:
    return sorted((CHECKOUT / "operator").glob("*_operator/__main__.py"))
