"""What people type, on the model of the API server: the fixtures are those of the playbook tests."""

from tests.unit.playbook.conftest import airline, api, start, ticket

__all__ = ["airline", "api", "start", "ticket"]
