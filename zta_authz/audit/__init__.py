"""The decision log: what was decided about whom and why, one JSON line each; what can't be kept stops an allow.

`record` makes the line, purely; `sinks` keeps it without ever blocking the answer.
"""
