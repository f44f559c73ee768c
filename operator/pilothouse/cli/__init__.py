"""The commands: run an operator, reconcile one object manually, explain a playbook."""

from pilothouse.cli.command_line import main
from pilothouse.cli.operator import Watches, run_operator

__all__ = [
    "Watches",
    "main",
    "run_operator",
]
