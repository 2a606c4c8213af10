"""What the benchmarks share: turns, comparison, the workload."""
