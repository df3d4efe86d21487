"""Envoy configurations to copy, and the demo, which runs what `zta-authz envoy-config` builds. Never installed."""
