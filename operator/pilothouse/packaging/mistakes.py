"""Reports mistakes in an author's code with file and line instead of a traceback."""

import ast
import inspect
import os
import tokenize
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import msgspec

from pilothouse.api.declarations import FieldError


class ProjectError(Exception):
    """A mistake that an author can correct. The text says what is wrong and what to do about it."""


@contextmanager
def mistakes_in(root: Path) -> Iterator[None]:
    """Turns an exception in a project's code into a ProjectError.

    Args:
        root: The project's folder.

    Raises:
        ProjectError: The code raised an exception. The text has the last executed line of the project.
    """
    try:
        yield
    except ProjectError:
        raise
    except SyntaxError as error:
        place = _place(root, error.filename, error.lineno) if error.lineno else ""
        raise ProjectError(_unreadable(root) or f"{place}{error.msg}") from None
    except ModuleNotFoundError as error:
        raise ProjectError(
            f"{_line_of(root, error)}{error}. Correct the name, or add the package to the dependencies in "
            "pyproject.toml, run `pilothouse lock` and install it."
        ) from None
    except SystemExit as error:
        raise ProjectError(f"{_line_of(root, error)}the module exits when it is imported") from None
    except FieldError as error:
        place = _line_in(root, error.struct, error.name) or _line_of(root, error)
        raise ProjectError(f"{place}{error}") from None
    except Exception as error:
        text = " ".join(str(error).split())
        place = _line_of(root, error)
        unreadable = _unreadable(root) if isinstance(error, ValueError) else ""
        raise ProjectError(unreadable or f"{place}{type(error).__name__}: {text}") from None


def _unreadable(root: Path) -> str:
    """Returns what is wrong with the first file of the project that is not Python text; empty if none.

    Python's own errors about such files do not name the file.
    """
    for file in sorted(root.rglob("*.py")):
        if any(part.startswith(".") for part in file.relative_to(root).parts):
            continue
        content = file.read_bytes()
        before, nul, _ = content.partition(b"\0")
        if nul:
            line = before.count(b"\n") + 1
            return f"{_place(root, str(file), line)}the file has a NUL byte. Remove it."
        try:
            encoding, _ = tokenize.detect_encoding(BytesIO(content).readline)
            content.decode(encoding)
        except (SyntaxError, UnicodeDecodeError) as error:
            start = error.start if isinstance(error, UnicodeDecodeError) else _not_utf8(content)
            line = content[:start].count(b"\n") + 1
            return f"{_place(root, str(file), line)}the file is not UTF-8 text. Save it as UTF-8."
    return ""


def _not_utf8(content: bytes) -> int:
    """Returns where the content stops being UTF-8."""
    try:
        content.decode()
    except UnicodeDecodeError as error:
        return error.start
    return 0


def _line_of(root: Path, error: BaseException) -> str:
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if Path(frame.filename).is_relative_to(root):
            return _place(root, frame.filename, frame.lineno)
    return ""


def _place(root: Path, file: str | None, line: int | None) -> str:
    """Returns the start of an error message: "web-sites/web_sites_operator/types.py:12: "."""
    return f"{os.path.relpath(file, root.parent)}:{line}: " if file else ""


def check_declarations(root: Path, file: Path) -> None:
    """Finds mistakes in the structs of a file that Python accepts.

    Args:
        root: The project's folder.
        file: The file with the structs.

    Raises:
        ProjectError: A field has no annotation, has `field(...)` as its default, or is declared twice.
    """
    tree = ast.parse(file.read_text(), str(file))
    classes: dict[str, int] = {}
    for node in tree.body:
        if not isinstance(node, ast.ClassDef):
            continue
        _refuse_second(root, file, classes, node.name, node.lineno, "the class")
        names: dict[str, int] = {}
        for each in node.body:
            match each:
                case ast.Assign(targets=[ast.Name(id=name)], value=ast.Call(func=ast.Name(id="field"))):
                    raise ProjectError(
                        f"{_place(root, str(file), each.lineno)}the field {name} has no type. "
                        f"Write {name}: Annotated[str, field(...)]"
                    )
                case ast.AnnAssign(target=ast.Name(id=name), value=value):
                    _refuse_second(root, file, names, name, each.lineno, f"{node.name}: the field")
                    if isinstance(value, ast.Call) and ast.unparse(value.func) == "field":
                        raise ProjectError(
                            f"{_place(root, str(file), each.lineno)}field(...) is not a default of {name}. "
                            f"Write {name}: Annotated[{ast.unparse(each.annotation)}, field(...)]"
                        )


def _refuse_second(root: Path, file: Path, seen: dict[str, int], name: str, line: int, what: str) -> None:
    if name in seen:
        raise ProjectError(
            f"{_place(root, str(file), line)}{what} {name} is declared twice, first on line {seen[name]}"
        )
    seen[name] = line


def at_field(root: Path, view: type, error: Exception) -> ProjectError:
    """Returns an error of a view's schema as a ProjectError with the line of the field.

    Args:
        root: The project's folder.
        view: The struct of the whole object.
        error: The error. Its text begins with the path of the field: "Greeting.spec.message: ...". Or a
            NameError: the type of a field, as text, has a name that does not exist.
    """
    if isinstance(error, NameError):
        return ProjectError(f"{_line_of_name(root, view, str(error.name))}NameError: {error}")
    path, _, text = str(error).partition(": ")
    return ProjectError(
        f"{_line_of_field(root, view, path.split('.')[1:])}{path}: {text}" if text else str(error)
    )


def at_value(root: Path, view: type, value: str, error: Exception) -> ProjectError:
    """Returns an error about a value in the declaration of a Kind, with the file and line of the value.

    Args:
        root: The project's folder.
        view: The struct of the kind, in whose file the Kind is declared.
        value: The text of the value.
        error: The error.
    """
    file = inspect.getsourcefile(view)
    calls = [
        node
        for node in ast.walk(ast.parse(Path(file).read_text()) if file else ast.Module([], []))
        if isinstance(node, ast.Call)
        and node.args
        and isinstance(node.args[0], ast.Name)
        and node.args[0].id == view.__name__
    ]
    for call in calls:
        constants = (each for each in ast.walk(call) if isinstance(each, ast.Constant))
        line = next((each.lineno for each in constants if each.value == value), call.lineno)
        return ProjectError(f"{_place(root, file, line)}{error}")
    return at_field(root, view, error)


def place_of(root: Path, file: Path, variable: str, value: object) -> str:
    """Returns the file and line where a variable of a module is declared, as the start of a message.

    Args:
        root: The project's folder.
        file: The module's file.
        variable: The name of the variable.
        value: The value that is wrong. If the declaration contains it, the line is that of the value.
    """
    for node in ast.parse(file.read_text(), str(file)).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(each, ast.Name) and each.id == variable for each in targets):
            constants = (each for each in ast.walk(node) if isinstance(each, ast.Constant))
            line = next((each.lineno for each in constants if each.value == value), node.lineno)
            return _place(root, str(file), line)
    return _place(root, str(file), 1)


def _line_of_name(root: Path, view: type, name: str) -> str:
    """Returns the place of the first field in the view's file whose type uses a name."""
    file = inspect.getsourcefile(view)
    if file is None:
        return ""
    for node in ast.walk(ast.parse(Path(file).read_text())):
        if isinstance(node, ast.AnnAssign) and name in _names_in(node.annotation):
            return _place(root, file, node.lineno)
    return _place(root, file, 1)


def _names_in(annotation: ast.AST) -> Iterator[str]:
    """Yields the names in a type, also in a type that is written as text."""
    for node in ast.walk(annotation):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            try:
                yield from _names_in(ast.parse(node.value, mode="eval").body)
            except SyntaxError:
                continue


def _line_of_field(root: Path, view: type, names: list[str]) -> str:
    try:
        owner, name = _declared_in(view, names)
    except LookupError:
        return ""
    return _line_in(root, owner, name)


def _line_in(root: Path, owner: type, name: str) -> str:
    """Returns the place of a field in the struct that declares it, or of the struct if it inherits it."""
    # Not with `inspect`: a module whose import has failed is not in sys.modules.
    file = root.joinpath(*owner.__module__.split(".")).with_suffix(".py")
    try:
        if not file.is_file():
            file = Path(str(inspect.getsourcefile(owner)))
        body = ast.parse(file.read_text()).body
    except (OSError, TypeError, SyntaxError):
        return ""
    for struct in body:
        if isinstance(struct, ast.ClassDef) and struct.name == owner.__name__:
            for each in struct.body:
                if isinstance(each, ast.AnnAssign) and getattr(each.target, "id", "") == name:
                    return _place(root, str(file), each.lineno)
            return _place(root, str(file), struct.lineno)
    return ""


def _declared_in(view: type, names: list[str]) -> tuple[type, str]:
    """Returns the struct that declares the last field of a path, and the field's name in the struct."""
    owner, name = view, ""
    for word in names:
        encoded = word.rstrip("[]{}")
        fields = {each.encode_name: each for each in msgspec.structs.fields(owner)}
        name = fields[encoded].name
        inner = _struct_in(msgspec.inspect.type_info(fields[encoded].type))
        if word is names[-1] or inner is None:
            return owner, name
        owner = inner
    return owner, name


def _struct_in(of: msgspec.inspect.Type) -> type | None:
    """Returns the struct in a type, if any: inside annotations, unions, and the items of lists and maps."""
    match of:
        case msgspec.inspect.Metadata():
            return _struct_in(of.type)
        case msgspec.inspect.StructType():
            return of.cls
        case msgspec.inspect.UnionType():
            return next(filter(None, map(_struct_in, of.types)), None)
        case msgspec.inspect.ListType() | msgspec.inspect.VarTupleType():
            return _struct_in(of.item_type)
        case msgspec.inspect.DictType():
            return _struct_in(of.value_type)
    return None
