"""The commands on the model of the API server, with the fixtures of the playbook tests."""

from tests.unit.playbook.conftest import airline, api, start, ticket

__all__ = ["airline", "api", "start", "ticket"]
