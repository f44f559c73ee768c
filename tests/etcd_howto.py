"""The manifests and commands in docs/howto/etcd."""

import re
from functools import cache
from textwrap import dedent
from typing import Any

import yaml

from devcluster.folders import CHECKOUT

FOLDER = CHECKOUT / "docs" / "howto" / "etcd"
PAGES = sorted(each.name for each in FOLDER.glob("*.md"))

_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)


@cache
def _blocks(page: str, section: str) -> list[tuple[str, str]]:
    text = (FOLDER / page).read_text()
    if section:
        _, found, text = text.partition(f"\n## {section}\n")
        assert found, f"{page} has no section {section}"
        text = text.partition("\n## ")[0]
    return [(language, dedent(block)) for _, language, block in _FENCE.findall(text)]


def manifests(page: str, section: str = "") -> list[dict[str, Any]]:
    """Returns the manifests of a page, or of a section of it, in their order."""
    texts = [text for language, text in _blocks(page, section) if language == "yaml"]
    return [document for text in texts for document in yaml.safe_load_all(text)]


def commands(page: str, section: str = "") -> list[str]:
    """Returns the command lines of a page, or of a section. In a block with a prompt, they are after it."""
    lines: list[str] = []
    for language, text in _blocks(page, section):
        if language:
            continue
        prompt = any(line.startswith("$ ") for line in text.splitlines())
        lines += [
            line.removeprefix("$ ").strip()
            for line in text.splitlines()
            if line.startswith("$ ") or not prompt
        ]
    return [line for line in lines if line]


def loops(page: str, section: str = "") -> list[str]:
    """Returns the blocks of a page, or of a section, that are loops of the shell."""
    return [text for language, text in _blocks(page, section) if not language and text.startswith("for ")]
