"""The order of semantic versions."""

from __future__ import annotations

import re


def precedence(text: str) -> tuple[tuple[int, ...], bool, list[tuple[bool, int, str]]]:
    """Returns a sort key for a semantic version (semver.org, 11). A pre-release sorts before its release."""
    core, _, pre = text.partition("+")[0].partition("-")
    numbers = tuple(int(part) for part in core.split("."))
    parts = [(not p.isdigit(), int(p) if p.isdigit() else 0, p) for p in re.split(r"\.", pre)] if pre else []
    return numbers, not pre, parts
