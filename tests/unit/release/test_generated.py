"""The generated files are up to date with their sources."""

import yaml

from release import generate
from release.documents import check
from release.packages import PACKAGES


def test_generated_files_match_the_types() -> None:
    check(generate.files(), "inv generate")


def test_bundle_labels_match_the_annotations() -> None:
    for package in PACKAGES.values():
        text = (package.bundle.parent.parent / "bundle.Dockerfile").read_text().replace("\\\n", " ")
        labels = dict(
            word.split("=", 1)
            for line in text.replace("${PACKAGE}", package.name).splitlines()
            if line.startswith("LABEL")
            for word in line.split()[1:]
        )
        annotations = yaml.safe_load((package.bundle / "metadata" / "annotations.yaml").read_text())[
            "annotations"
        ]
        assert labels == annotations
