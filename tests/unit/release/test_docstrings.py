"""The reference pages contain the docstrings."""

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
