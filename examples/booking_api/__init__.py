"""The airline: a small booking service with a durable store, for the demo, the tests and the benchmarks."""
