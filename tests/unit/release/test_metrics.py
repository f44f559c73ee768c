"""Alerts use metrics that exist, and each alert is documented."""

import re

from devcluster.folders import CHECKOUT
from release.documents import load
from release.metrics import described

METRIC = re.compile(r"\b(\w+)\{")


def test_alerts_use_existing_metrics_and_are_documented() -> None:
    names = {each.name + ("_bucket" if each.type == "histogram" else "") for each in described()}
    (group,) = load(CHECKOUT / "config" / "base" / "prometheus" / "alerts.yaml")["spec"]["groups"]
    asked = {name for rule in group["rules"] for name in METRIC.findall(rule["expr"])}
    assert len(asked) >= len(group["rules"])
    assert asked - {"up"} <= names
    page = (CHECKOUT / "docs" / "howto" / "alerts.md").read_text()
    explained = re.findall(r"^\| (Pilothouse\w+)", page, re.MULTILINE)
    assert explained == [rule["alert"] for rule in group["rules"]]
