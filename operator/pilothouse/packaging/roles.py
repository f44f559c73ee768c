"""The role of a project follows its kinds: a kind that moves to another group takes its permissions along."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pilothouse.api import Kind
from pilothouse.packaging.projects import Project

# The lists of a rule, as a project's role has them: on one line each.
_GROUPS = re.compile(r"(\s*-?\s*apiGroups:\s*\[)([^]]*)(\].*)", re.DOTALL)
_RESOURCES = re.compile(r"\s*resources:\s*\[([^]]*)\]")


def files(project: Project, kinds: Sequence[Kind[Any]], earlier: Sequence[Path]) -> Mapping[Path, str]:
    """Returns the project's role, if kinds have another group than before, with the rules for that group.

    Args:
        project: The project.
        kinds: Its kinds.
        earlier: The generated CRDs of kinds that no longer exist, or that had another group.
    """
    role = project.root / "config" / "rbac" / "role.yaml"
    groups = {kind.resource.plural: kind.resource.group for kind in kinds}
    moved = {
        (group, plural): groups[plural]
        for group, _, plural in (path.stem.rpartition("_") for path in earlier)
        if plural in groups
    }
    if not moved or not role.is_file():
        return {}
    return {role: "".join(_regrouped(role.read_text().splitlines(keepends=True), moved))}


def _regrouped(lines: Sequence[str], moved: Mapping[tuple[str, str], str]) -> Iterator[str]:
    """Yields the lines of a role. A rule is changed if all of its resources have moved to one group."""
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        rule, listed = _GROUPS.fullmatch(line), _RESOURCES.match(following)
        if rule is None or listed is None:
            yield line
            continue
        plurals = {each.partition("/")[0] for each in _words(listed[1])}
        groups = [_group(group, plurals, moved) for group in _words(rule[2])]
        yield f"{rule[1]}{', '.join(groups)}{rule[3]}" if groups != _words(rule[2]) else line


def _group(group: str, plurals: set[str], moved: Mapping[tuple[str, str], str]) -> str:
    found = {moved.get((group.strip("\"'"), plural), "") for plural in plurals}
    return found.pop() if len(found) == 1 and "" not in found else group


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",")]
