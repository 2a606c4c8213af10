"""What the benchmarks share: turns, comparison, the problem."""
