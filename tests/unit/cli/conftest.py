"""The commands on the model of the API server, with the fixtures of the playbook tests."""

from tests.unit.playbook.conftest import airline, start, ticket

__all__ = ["airline", "start", "ticket"]
