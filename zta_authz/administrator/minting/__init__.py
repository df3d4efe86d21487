"""Tokens that workloads exchange at the administrator, and the events of its signing keys."""
