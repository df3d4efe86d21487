"""Envoy configurations to copy, what builds them, and the demo that runs them. Not part of the installed package."""
