"""Pilothouse: a runtime for Kubernetes operators whose reconcilers are playbooks of Python tasks."""

__version__ = "0.1.0"
