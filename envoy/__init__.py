"""Example Envoy configurations, and the demo, which runs a generated one. This package is not installed."""
