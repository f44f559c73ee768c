"""The reference pages of the framework, generated from the docstrings of its exported names."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

import pilothouse

#: The packages that authors of operators use. Each has a page in docs/reference/runtime.
PACKAGES = (
    "cli",
    "playbook",
    "views",
    "process",
    "kube",
    "api",
    "controller",
    "informer",
    "queue",
    "telemetry",
    "testing",
    "testing.controllers",
)

HEAD = "<!-- Written by `./inv generate` from the docstrings; change those. -->\n"

_SECTION = re.compile(r"^(Args|Attributes|Returns|Yields|Raises):$")
_ENTRY = re.compile(r"^    (\*{0,2}[\w.]+): (.*)$")
_FIELDS = re.compile("Struct|NamedTuple")
_TITLES = {"Args": "Arguments"}
_Function = (ast.FunctionDef, ast.AsyncFunctionDef)


def page(package: str) -> str:
    """Returns the page of a package: its docstring, then the names in `__all__` in alphabetical order.

    Args:
        package: The dotted name, such as "pilothouse.playbook".

    Raises:
        TypeError: An exported name has no docstring of its own.
    """
    module = importlib.import_module(package)
    blocks = [HEAD, f"# `{package}`", "", *_markdown(inspect.getdoc(module) or "")]
    for name in sorted(module.__all__, key=str.lower):
        blocks += _entry(package, name, getattr(module, name))
    return "\n".join(blocks).rstrip() + "\n"


def facade() -> str:
    """Returns the page of `from pilothouse import ...`: a sentence per name, with a link to its entry.

    Raises:
        TypeError: An exported name has no entry on the page of a package.
    """
    names = {name: home for home, names in pilothouse.HOMES.items() for name in names}
    blocks = [HEAD, "# `pilothouse`", "", *_markdown(inspect.getdoc(pilothouse) or "")]
    blocks += ["| name | what it is |", "|---|---|"]
    for name in sorted(names, key=str.lower):
        home = names[name]
        [summary, *_] = _entry_text(f"pilothouse.{home}", name).split(". ")
        blocks.append(f"| [`{name}`]({home}.md#{name.lower()}) | {summary.rstrip('.')}. |")
    return "\n".join(blocks) + "\n"


def _entry_text(package: str, name: str) -> str:
    """Returns the first paragraph of an entry on one line, without its heading and signature."""
    entry = "\n".join(_entry(package, name, getattr(importlib.import_module(package), name)))
    text = re.sub(r"^#[^\n]*$|```.*?```", "", entry, flags=re.DOTALL | re.MULTILINE).strip()
    return _flat(next(each for each in text.split("\n\n") if not each.startswith("`")))


def _entry(package: str, name: str, member: Any) -> list[str]:
    if inspect.ismodule(member):
        return [f"## `{name}`", "", *_documented(name, member)]
    if inspect.isclass(member):
        return _class(name, member)
    if inspect.isfunction(member):
        return [*_heading("##", name, _signature(_definition(member))), *_documented(name, member)]
    return _value(package, name, member)


def _class(name: str, cls: type) -> list[str]:
    definition = _definition(cls)
    if not isinstance(definition, ast.ClassDef):
        raise TypeError(f"the source of {name} is not a class definition")
    made = _methods(definition).get("__init__")
    signature = _signature(made, name=name) if made else _fields_signature(name, definition)
    blocks = [*_heading("##", name, signature), *_documented(name, cls), *_fields(definition)]
    blocks += _entries(name, _public_methods(definition))
    known = set(_methods(definition))
    for base in _hidden_bases(cls):
        body = _definition(base)
        if not isinstance(body, ast.ClassDef):
            raise TypeError(f"the source of {base.__name__} is not a class definition")
        inherited = {each: node for each, node in _public_methods(body).items() if each not in known}
        known |= set(_methods(body))
        if inherited:
            summary = inspect.cleandoc(base.__doc__ or "").partition("\n\n")[0]
            blocks += ["*Inherited*", "", *_markdown(summary)]
            blocks += _entries(name, inherited)
    return blocks


def _hidden_bases(cls: type) -> list[type]:
    """Returns the bases of the framework that no package exports, so that they have no entry of their own."""
    exported = {
        id(getattr(module, name))
        for module in (importlib.import_module(f"pilothouse.{package}") for package in PACKAGES)
        for name in module.__all__
    }
    return [
        base
        for base in cls.__mro__[1:]
        if base.__module__.startswith("pilothouse.") and id(base) not in exported
    ]


def _entries(name: str, methods: dict[str, ast.FunctionDef | ast.AsyncFunctionDef]) -> list[str]:
    """Returns an entry for each method of a class."""
    blocks = []
    for method, node in methods.items():
        blocks += _heading("###", f"{name}.{method}", _member_signature(node))
        blocks += _markdown(ast.get_docstring(node) or "")
    return blocks


def _methods(definition: ast.ClassDef) -> dict[str, ast.FunctionDef | ast.AsyncFunctionDef]:
    return {each.name: each for each in definition.body if isinstance(each, _Function)}


def _public_methods(definition: ast.ClassDef) -> dict[str, ast.FunctionDef | ast.AsyncFunctionDef]:
    """Returns the methods that have a docstring and that the underscore does not hide."""
    return {
        each.name: each
        for each in definition.body
        if isinstance(each, _Function)
        and not each.name.startswith("_")
        and ast.get_docstring(each) is not None
        and not _is_setter(each)
    }


def _value(package: str, name: str, member: Any) -> list[str]:
    """Returns a constant or an alias, with the string below its assignment or the comment above it."""
    for module in _modules(package):
        source = inspect.getsource(module)
        tree = ast.parse(source).body
        for number, node in enumerate(tree):
            if name in _assigned(node):
                below = _text(tree[number + 1]) if number + 1 < len(tree) else ""
                text = inspect.cleandoc(below) or _comment(source.splitlines()[: node.lineno - 1])
                shown = [f"`{member!r}`", ""] if isinstance(member, str | int | float) else []
                if not (text or shown):
                    raise TypeError(f"{name} is exported and has no docstring or comment")
                return [f"## `{name}`", "", *shown, *_markdown(text)]
    raise TypeError(f"{package}.{name} is not assigned in the package")


def _comment(above: Sequence[str]) -> str:
    lines: list[str] = []
    while above and above[-1].startswith("# "):
        lines.insert(0, above[-1].removeprefix("# "))
        above = above[:-1]
    return "\n".join(lines)


def _modules(package: str) -> Iterator[Any]:
    root = importlib.import_module(package)
    for found in pkgutil.iter_modules(root.__path__):
        yield importlib.import_module(f"{package}.{found.name}")


def _fields(definition: ast.ClassDef) -> list[str]:
    """Returns the fields that have their docstring below them: enum members and settings."""
    lines = []
    for node, after in zip(definition.body, definition.body[1:], strict=False):
        text = _text(after)
        if text and (names := _assigned(node)):
            lines.append(f"- `{names[0]}`: {_flat(text)}")
    return [*lines, ""] if lines else []


def _documented(name: str, member: Any) -> list[str]:
    text = member.__doc__
    if not text:
        raise TypeError(f"{name} is exported and has no docstring")
    return _markdown(inspect.cleandoc(text))


def _markdown(text: str) -> list[str]:
    """Returns a Google docstring as Markdown. Its sections become lists."""
    lines: list[str] = []
    section = ""
    # The text after two colons is indented, which Markdown renders as code.
    for line in re.sub(
        r"::$", ":", re.sub(r"^::\n\n", "", text, flags=re.MULTILINE), flags=re.MULTILINE
    ).splitlines():
        if found := _SECTION.match(line):
            section = found[1]
            lines += [f"*{_TITLES.get(section, section)}*", ""]
        elif section and line and not line.startswith(" "):
            section = ""
            lines.append(line)
        elif section and (entry := _ENTRY.match(line)):
            lines.append(f"- `{entry[1]}`: {entry[2]}")
        elif section and line.strip():
            deeper = lines and lines[-1].startswith(("- ", "  "))
            lines.append(f"  {line.strip()}" if deeper else line.strip())
        else:
            lines.append(line)
    return [*lines, ""]


def _heading(level: str, name: str, signature: str) -> list[str]:
    return [f"{level} `{name}`", "", "```python", signature, "```", ""]


def _signature(node: ast.AST, *, name: str = "") -> str:
    if not isinstance(node, _Function):
        raise TypeError("only functions have signatures")
    arguments = ast.unparse(node.args)
    for own in ("self, ", "cls, ", "self", "cls"):
        if arguments.startswith(own) and name:
            arguments = arguments.removeprefix(own)
            break
    word = "async def " if isinstance(node, ast.AsyncFunctionDef) else ""
    result = f" -> {ast.unparse(node.returns)}" if node.returns and not name else ""
    return _wrapped(f"{word}{name or node.name}({arguments}){result}")


def _member_signature(node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    decorators = {ast.unparse(each) for each in node.decorator_list}
    if "property" in decorators:
        result = f": {ast.unparse(node.returns)}" if node.returns else ""
        return f"{node.name}{result}"
    arguments = re.sub(r"^(self|cls)(, )?", "", ast.unparse(node.args))
    word = "async def " if isinstance(node, ast.AsyncFunctionDef) else ""
    result = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return _wrapped(f"{word}{node.name}({arguments}){result}")


def _fields_signature(name: str, definition: ast.ClassDef) -> str:
    bases = ", ".join(ast.unparse(base) for base in definition.bases)
    if bases and not _FIELDS.search(bases) and not any(map(_is_dataclass, definition.decorator_list)):
        return f"class {name}({bases})"
    fields = [
        f"{ast.unparse(node.target)}: {ast.unparse(node.annotation)}"
        + (f" = {ast.unparse(node.value)}" if node.value else "")
        for node in definition.body
        if isinstance(node, ast.AnnAssign) and not ast.unparse(node.target).startswith("_")
    ]
    return _wrapped(f"{name}({', '.join(fields)})")


def _wrapped(signature: str) -> str:
    """Returns the signature on one line, or with an argument per line if it is too long."""
    if len(signature) <= 100:
        return signature
    head, _, rest = signature.partition("(")
    inner, close, tail = rest.rpartition(")")
    parts, depth, part = [], 0, ""
    for character in inner:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and not depth:
            parts.append(part.strip())
            part = ""
        else:
            part += character
    parts.append(part.strip())
    return f"{head}(\n" + "".join(f"    {each},\n" for each in parts if each) + f"{close}{tail}"


def _definition(member: Any) -> ast.AST:
    return ast.parse(textwrap.dedent(inspect.getsource(member))).body[0]


def _assigned(node: ast.stmt) -> list[str]:
    match node:
        case ast.Assign(targets=targets):
            return [ast.unparse(target) for target in targets]
        case ast.AnnAssign(target=target):
            return [ast.unparse(target)]
    return []


def _text(node: ast.stmt) -> str:
    match node:
        case ast.Expr(value=ast.Constant(value=str(text))):
            return text
    return ""


def _is_setter(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any(ast.unparse(each).endswith(".setter") for each in node.decorator_list)


def _is_dataclass(decorator: ast.expr) -> bool:
    return ast.unparse(decorator).startswith("dataclass")


def _flat(text: str) -> str:
    return " ".join(text.split())
