"""The interfaces for operators and probes: HTTP health and metrics, and the admin API (status, explain)."""
