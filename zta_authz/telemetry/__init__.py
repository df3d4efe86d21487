"""What the service tells of itself: spans, metrics and logs. It hears of answers and can change none.

`names` holds every attribute and metric name; `observer` joins `spans` and `metrics` into the port the servicer calls.
"""
