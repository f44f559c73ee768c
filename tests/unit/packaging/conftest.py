"""The fixture of a new project."""

from tests.projects import project

__all__ = ["project"]
