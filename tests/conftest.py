"""Fixtures of `pilothouse.testing` for all tests: virtual time, the model, the API server, a namespace."""

pytest_plugins = ["pilothouse.testing.plugin"]
