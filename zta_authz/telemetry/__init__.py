"""Spans, metrics and the service's log. Telemetry observes answers and can't change them.

`names` holds every attribute and metric name; `observer` joins `spans` and `metrics` into the port the servicer calls.
"""
