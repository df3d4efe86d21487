"""The administrator (control plane): keeps the state that people and other systems change, and publishes it.

It runs as processes of its own (`zta-authz administer`) and is never on the path of a request. `store/` keeps the
state, `access_events` records every change of it, and `event_log` writes these records into a hash-chained log.
"""
