"""The decision log: one JSON line for each decision. By default an allow whose record can't be kept becomes a denial.

`record` creates the line without I/O; `sinks` writes it without ever blocking the answer.
"""
