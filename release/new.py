"""`inv new NAME --group G --kind K`: a new operator, made of the example in examples/greeter.

The example is the template: what CI builds, runs and tests there is what a new operator is, but for names.
"""

from __future__ import annotations

import ast
import keyword
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from invoke.context import Context
from invoke.tasks import task

from devcluster.folders import CHECKOUT, given
from devcluster.shell import ClusterError
from devcluster.tasks import speaking_plainly
from release import projects

TEMPLATE = CHECKOUT / "examples" / "greeter"

#: The longest name whose ClusterServiceVersion, NAME.v0.1.0, and pods' names are valid.
_NAME_LENGTH = 40
#: The longest kind whose list, such as WebSiteList, is named as the API server wants it: 63 at most.
_KIND_LENGTH = 59
#: The template's files whose names begin with a dot; all else of that kind is what tools leave behind.
_HIDDEN = {Path(".dockerignore"), Path(".gitignore")}
_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"


@dataclass(frozen=True)
class Names:
    """What a new operator and its kind are called.

    Attributes:
        name: The operator: "web-sites".
        group: The API group: "example.com".
        kind: The kind: "WebSite".
    """

    name: str
    group: str
    kind: str

    @property
    def module(self) -> str:
        """The Python package: "web_sites_operator"."""
        return f"{self.name.replace('-', '_')}_operator"

    @property
    def constant(self) -> str:
        """The kind as the name of a constant: "WEB_SITE"."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", self.kind).upper()

    def applied(self, text: str) -> str:
        """A text of the template with these names in place of its own."""
        article = "n" if self.kind[0] in "AEIO" else ""
        text = re.sub(r"\b([Aa]) (?=`?Greeting)", rf"\1{article} ", text)
        renamed = {
            "greeter_operator": self.module,
            "greeter": self.name,
            "demo.pilothouse.dev": self.group,
            "GREETING": self.constant,
            "Greetings": _plural(self.kind),
            "Greeting": self.kind,
            "greetings": _plural(self.kind.lower()),
            "greeting": self.kind.lower(),
        }
        return re.sub("|".join(map(re.escape, renamed)), lambda found: renamed[found[0]], text)


@task(
    positional=["name"],
    help={
        "name": "the operator, such as web-sites",
        "group": "the API group of its kind, such as example.com",
        "kind": "its kind, such as WebSite",
        "output": "the new folder; NAME in the present one without it",
    },
)
@speaking_plainly
def new(_: Context, name: str, group: str = "", kind: str = "", output: str = "") -> None:
    """Makes a new operator: types, playbook, test, config and bundle, in a folder of its own."""
    examples = {"--group example.com": group, "--kind WebSite": kind}
    if missing := [example for example, given in examples.items() if not given]:
        options = " and ".join(example.split()[0] for example in missing)
        verb = "is" if len(missing) == 1 else "are"
        raise ClusterError(f"{options} {verb} missing: add {' '.join(missing)}, say")
    folder = given(output or name)
    create(Names(name, group, kind), folder)
    print(f"{folder} holds the new operator; its README.md tells what to do with it")


def create(names: Names, folder: Path) -> None:
    """Writes a new operator, whole or not at all.

    Args:
        names: What it is called.
        folder: Where it goes; must not exist.

    Raises:
        ClusterError: a name cannot be used, the folder exists, or a tool failed.
    """
    if wrong := [*mistakes(names)]:
        raise ClusterError("; ".join(wrong))
    with _draft(folder) as draft:
        root = Path(draft) / folder.name
        for path in _template():
            target = root / names.applied(str(path.relative_to(TEMPLATE)))
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(names.applied(path.read_text()))
        projects.update(root)
        for cache in root.rglob("__pycache__"):
            shutil.rmtree(cache)
        root.rename(folder)


def _draft(folder: Path) -> tempfile.TemporaryDirectory[str]:
    """A folder beside the one that is to be.

    Raises:
        ClusterError: that exists, or nothing can be written there.
    """
    try:
        if folder.exists():
            raise ClusterError(f"{folder} exists: name another folder with --output")
        folder.parent.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryDirectory(prefix=".new-", dir=folder.parent)
    except OSError as error:
        raise ClusterError(
            f"{folder} cannot be written ({error.strerror}): name another folder with --output"
        ) from None


def mistakes(names: Names) -> Iterator[str]:
    """What is wrong with the names, a sentence each."""
    if not re.fullmatch(rf"(?=[a-z]){_LABEL}", names.name) or len(names.name) > _NAME_LENGTH:
        yield (
            f"the name {names.name!r} must be of lower case letters, digits and '-', begin with a letter, "
            f"end with a letter or digit, and have at most {_NAME_LENGTH}: web-sites"
        )
    elif (CHECKOUT / "operator" / names.module).exists():
        yield f"the name {names.name!r} is that of an operator in the runtime's image: take another one"
    domain = re.fullmatch(rf"{_LABEL}(\.{_LABEL})+", names.group) and re.search(r"(^|\.)[a-z]", names.group)
    # With the plural and a dot before it, it names the CRD: 253 at most.
    if not domain or len(f"{_plural(names.kind.lower())}.{names.group}") > 253:
        yield f"the group {names.group!r} must be a domain name of yours, in lower case: example.com"
    if re.search(r"(^|\.)(k8s|kubernetes)\.io$", names.group):
        yield f"the group {names.group!r} belongs to Kubernetes: take a domain name of yours"
    if not re.fullmatch(r"[A-Z][A-Za-z0-9]*", names.kind) or len(names.kind) > _KIND_LENGTH:
        yield (
            f"the kind {names.kind!r} must be in CamelCase, of letters and digits, and have at most "
            f"{_KIND_LENGTH}: WebSite"
        )
    elif keyword.iskeyword(names.kind) or {names.kind, names.constant} & _taken():
        yield f"the kind {names.kind!r} is a name that the operator's code has already: take another one"


def _taken() -> set[str]:
    """The names that the template's code imports or defines at the top."""
    found: set[str] = set()
    for path in TEMPLATE.rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            match node:
                case ast.ImportFrom(names=aliases):
                    found |= {alias.name for alias in aliases}
                case ast.ClassDef(name=name):
                    found.add(name)
                case ast.Assign(targets=[ast.Name(id=name)]):
                    found.add(name)
    return {name for name in found if "greeting" not in name.lower()}


def _template() -> Iterator[Path]:
    """The template's files, without what is generated: under other names that has another order."""
    for path in sorted(TEMPLATE.rglob("*")):
        inner = path.relative_to(TEMPLATE)
        hidden = any(part.startswith((".", "__pycache__")) for part in inner.parts) and inner not in _HIDDEN
        generated = inner.parts[0] == "bundle" or inner.match("crd/demo.*") or inner.name == "generated.yaml"
        if path.is_file() and not hidden and not generated:
            yield path


def _plural(word: str) -> str:
    if re.search("(s|x|z|ch|sh)$", word):
        return f"{word}es"
    return f"{word[:-1]}ies" if re.search("[^aeiou]y$", word) else f"{word}s"
