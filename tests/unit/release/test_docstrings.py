"""The reference pages contain the docstrings."""

import importlib
import inspect
import re
from functools import cache

import pytest

from release.docstrings import PACKAGES, page


def test_a_page_has_signature_text_and_sections_of_what_is_exported() -> None:
    text = page("pilothouse.queue")
    assert "## `WorkQueue`" in text
    assert "### `WorkQueue.add_after`" in text
    assert "*Raises*\n\n- `ShutDown`: The queue is shut down." in text
    assert "_enqueue" not in text


def test_fields_with_a_docstring_below_them_are_listed() -> None:
    assert "- `CHANGE`: Objects that have just changed" in page("pilothouse.queue")


@pytest.mark.parametrize("name", PACKAGES)
def test_everything_that_is_exported_is_documented(name: str) -> None:
    module = __import__(f"pilothouse.{name}", fromlist=["__all__"])
    text = page(f"pilothouse.{name}")
    assert [each for each in module.__all__ if f"## `{each}`" not in text] == []


@cache
def listed_methods() -> set[str]:
    """Returns the methods that have an entry on any page."""
    pages = (page(f"pilothouse.{package}") for package in PACKAGES)
    return {found for text in pages for found in re.findall(r"^### `(.+)`$", text, re.MULTILINE)}


def public_methods(cls: type) -> set[str]:
    """Returns the methods and properties of a class that the framework defines, inherited ones included."""
    return {
        name
        for base in cls.__mro__
        if base.__module__.startswith("pilothouse.")
        for name, member in vars(base).items()
        if not name.startswith("_")
        and isinstance(member, property | staticmethod | classmethod | type(public_methods))
        and member.__doc__
        # The default of a field may be a function, too.
        and getattr(member, "__name__", name) == name
    }


def test_inherited_methods_are_listed_with_the_class() -> None:
    """Most modules of Play are methods of a base that is not exported."""
    text = page("pilothouse.playbook").partition("## `Play`")[2].partition("\n## ")[0]
    own, _, inherited = text.partition("*Inherited*\n\nThe methods of `Play` that read and change objects")
    for module in ("apply", "create", "patch", "read", "delete", "scale", "evict", "pod_log", "run_job"):
        assert f"### `Play.{module}`\n\n```python\nasync def {module}(" in inherited
    assert "### `Play.wait_for_rollout`" in inherited
    assert "### `Play.wait_for`" in own
    assert "_report" not in text


def test_an_inherited_method_that_is_overridden_is_listed_once() -> None:
    assert page("pilothouse.playbook").count("### `Play.cluster`\n") == 1


def test_a_property_with_a_setter_is_listed() -> None:
    assert "### `Play.status`\n\n```python\nstatus: S\n```" in page("pilothouse.playbook")


@pytest.mark.parametrize("name", PACKAGES)
def test_every_public_method_is_on_some_page(name: str) -> None:
    """A method is listed with its class or, if the class inherits it, with an exported base."""
    listed = listed_methods()
    module = importlib.import_module(f"pilothouse.{name}")
    missing = [
        f"{export}.{method}"
        for export in module.__all__
        if inspect.isclass(cls := getattr(module, export))
        for method in sorted(public_methods(cls))
        if not any(f"{base.__name__}.{method}" in listed for base in cls.__mro__)
    ]
    assert missing == []
