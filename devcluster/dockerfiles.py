"""Finds what the image of a Dockerfile depends on, so that an unchanged image is not built again."""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path


def bases(dockerfile: Path, arguments: Mapping[str, str]) -> list[str]:
    """Returns the images that the FROM lines name, except its own stages and `scratch`."""
    found: list[str] = []
    stages = {"scratch"}
    for words in _instructions(dockerfile, arguments):
        if words[0].upper() == "FROM":
            names = [word for word in words[1:] if not word.startswith("--")]
            if names[0] not in stages and names[0] not in found:
                found.append(names[0])
            stages.update(names[2:])
    return found


def content_key(
    dockerfile: Path, context: Path, arguments: Mapping[str, str], more: Iterable[str] = ()
) -> str:
    """Returns a hash of the Dockerfile, its arguments, the files that it copies, and `more`."""
    digest = hashlib.sha256(dockerfile.read_bytes())
    digest.update(repr((sorted(arguments.items()), list(more))).encode())
    for file in _copied_files(dockerfile, context, arguments):
        mode = file.stat().st_mode & 0o777
        digest.update(f"\0{file.relative_to(context)}\0{mode:o}\0".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _copied_files(dockerfile: Path, context: Path, arguments: Mapping[str, str]) -> Iterator[Path]:
    for words in _instructions(dockerfile, arguments):
        if words[0].upper() not in ("COPY", "ADD") or any(word.startswith("--from=") for word in words):
            continue
        sources = [word.strip('[],"') for word in words[1:] if not word.startswith("--")][:-1]
        for source in sources:
            for match in sorted(context.glob(source.removeprefix("./").strip("/") or "*")):
                files = [match] if match.is_file() else sorted(match.rglob("*"))
                yield from (file for file in files if file.is_file() and "__pycache__" not in file.parts)


def _instructions(dockerfile: Path, arguments: Mapping[str, str]) -> Iterator[list[str]]:
    """Yields the words of each FROM, COPY and ADD instruction, with ARG values filled in."""
    values: dict[str, str] = {}
    text = re.sub(r"^\s*#.*\n", "", dockerfile.read_text(), flags=re.MULTILINE)
    for line in re.sub(r"\\\s*\n", " ", text).splitlines():
        if not line.strip():
            continue
        instruction = line.split()[0].upper()
        if instruction == "ARG":
            name, _, default = line.split(maxsplit=1)[1].strip().partition("=")
            values[name] = arguments.get(name, values.get(name, default.strip("\"'")))
        if instruction in ("FROM", "COPY", "ADD"):
            yield shlex.split(_substitute(line, values))


def _substitute(line: str, values: Mapping[str, str]) -> str:
    return re.sub(r"\$\{?(\w+)\}?", lambda match: values.get(match[1], match[0]), line)
