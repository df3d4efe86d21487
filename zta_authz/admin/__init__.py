"""What operators and probes ask: HTTP health and metrics, and the admin API (status, explain)."""
