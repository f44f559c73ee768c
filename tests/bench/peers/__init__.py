"""The other controllers of the benchmark: programs that do the same work, each the way of its framework."""
