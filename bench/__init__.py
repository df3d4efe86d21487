"""Benchmarks of throughput and of the CPU time per check. See README.md."""
