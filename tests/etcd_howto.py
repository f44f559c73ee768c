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
def _blocks(page: str) -> list[tuple[str, str]]:
    found = _FENCE.findall((FOLDER / page).read_text())
    return [(language, dedent(text)) for _, language, text in found]


def manifests(page: str) -> list[dict[str, Any]]:
    """Returns the manifests of a page in their order."""
    texts = [text for language, text in _blocks(page) if language == "yaml"]
    return [document for text in texts for document in yaml.safe_load_all(text)]


def commands(page: str) -> list[str]:
    """Returns the command lines of a page. In a block with a prompt, these are the lines after it."""
    lines: list[str] = []
    for language, text in _blocks(page):
        if language:
            continue
        prompt = any(line.startswith("$ ") for line in text.splitlines())
        lines += [
            line.removeprefix("$ ").strip()
            for line in text.splitlines()
            if line.startswith("$ ") or not prompt
        ]
    return [line for line in lines if line]
