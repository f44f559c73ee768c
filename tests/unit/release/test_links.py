"""Every relative link in the documentation leads to a file, and to a heading of it."""

import re
import subprocess
from collections import Counter
from functools import cache
from pathlib import Path
from urllib.parse import unquote

import pytest

from devcluster.folders import CHECKOUT

FILES = subprocess.run(
    ["git", "ls-files", "README.md", "CONTRIBUTING.md", "docs/**.md", "examples/**.md"],
    cwd=CHECKOUT,
    check=True,
    capture_output=True,
    text=True,
).stdout.split()

_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})")
_HEADING = re.compile(r"^ {0,3}#{1,6}[ \t]+(.*?)(?:[ \t]+#+)?[ \t]*$")
_CODE = re.compile(r"(`+)(?!`).+?(?<!`)\1(?!`)")
_LINK = re.compile(r"\]\(\s*<?([^()\s<>]*(?:\([^()\s]*\)[^()\s<>]*)*)>?(?:\s+\"[^\"]*\")?\s*\)")
_DEFINITION = re.compile(r"^ {0,3}\[[^\]^]+\]:\s*(\S+)")
_HTML = re.compile(r"<(?:a|img)\b[^>]*?\b(?:href|src)=[\"']([^\"']+)[\"']")
_ANCHOR = re.compile(r"<a\b[^>]*?\b(?:id|name)=[\"']([^\"']+)[\"']")


def prose(text: str) -> list[str]:
    """Returns the lines outside of fenced code."""
    lines, fence = [], ""
    for line in text.splitlines():
        found = _FENCE.match(line)
        if fence:
            if found and found[1].startswith(fence) and not line.strip().strip(fence[0]):
                fence = ""
        elif found:
            fence = found[1]
        else:
            lines.append(line)
    return lines


def links(text: str) -> list[str]:
    """Returns the targets of the links and images in a Markdown text."""
    found = []
    # A link may be wrapped inside its text, so all lines are searched together.
    whole = _CODE.sub("code", "\n".join(prose(text)))
    found += _LINK.findall(whole)
    found += _HTML.findall(whole)
    found += [each[1] for line in whole.splitlines() if (each := _DEFINITION.match(line))]
    return found


def anchors(text: str) -> set[str]:
    """Returns the anchors of a Markdown text, by GitHub's rules."""
    names, seen = set(_ANCHOR.findall(text)), Counter[str]()
    for line in prose(text):
        if heading := _HEADING.match(line):
            shown = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading[1])
            name = re.sub(r"[^\w\- ]", "", shown.strip().lower()).replace(" ", "-")
            names.add(f"{name}-{seen[name]}" if seen[name] else name)
            seen[name] += 1
    return names


@cache
def anchors_of(path: Path) -> set[str]:
    return anchors(path.read_text())


def broken(file: Path) -> list[str]:
    """Returns the relative links of a file that lead nowhere."""
    wrong = []
    for link in links(file.read_text()):
        if re.match(r"[a-z][a-z0-9+.-]*:", link):
            continue
        name, _, anchor = unquote(link).partition("#")
        path = (file.parent / name).resolve() if name else file
        if not path.exists() or not path.is_relative_to(CHECKOUT):
            wrong.append(f"{link}: there is no such file")
        elif anchor and path.suffix == ".md" and anchor not in anchors_of(path):
            wrong.append(f"{link}: there is no such heading")
        elif anchor and path.is_dir():
            wrong.append(f"{link}: a folder has no headings; link to its README.md")
    return wrong


@pytest.mark.parametrize("file", FILES)
def test_links_resolve(file: str) -> None:
    assert broken(CHECKOUT / file) == []


def test_all_documentation_is_checked() -> None:
    assert {
        "README.md",
        "CONTRIBUTING.md",
        "docs/architecture.md",
        "docs/howto/declare-a-kind.md",
        "docs/reference/runtime/playbook.md",
        "docs/tutorial/README.md",
        "examples/greeter/README.md",
    } <= set(FILES)


def test_anchors_follow_the_rules_of_github() -> None:
    text = """\
# `Play.wait_for`

## What's new? (1.2)

## What's new? (1.2)

## A [link](target.md) & snake_case #

```
# no heading
```
"""
    assert anchors(text) == {
        "playwait_for",
        "whats-new-12",
        "whats-new-12-1",
        "a-link--snake_case",
    }


def test_links_in_code_are_not_links() -> None:
    text = """\
[a](b.md#c "title") `[d](e)` ![f](g.svg)

```
[h](i)
```
[j]: k.md
[a link
of two lines](l.md)
"""
    assert links(text) == ["b.md#c", "g.svg", "l.md", "k.md"]


def test_a_broken_link_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "CHECKOUT", tmp_path)
    (tmp_path / "there.md").write_text("# Here\n")
    file = tmp_path / "page.md"
    file.write_text(
        "[a](there.md#here) [b](there.md#gone) [c](gone.md) [d](#gone) [e](https://example.com/#x)\n"
    )
    assert broken(file) == [
        "there.md#gone: there is no such heading",
        "gone.md: there is no such file",
        "#gone: there is no such heading",
    ]
