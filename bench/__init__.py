"""Benchmarks: how many calls the service answers, and what one costs. See README.md."""
