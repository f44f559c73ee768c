"""The committed files are what their sources make of them."""

import yaml

from release import generate
from release.documents import check
from release.packages import PACKAGES


def test_the_types_and_the_files_made_from_them_agree() -> None:
    check(generate.files(), "inv generate")


def test_bundle_labels_say_what_the_annotations_say() -> None:
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
