"""Webhooks: signed HTTP requests that notify approvers and other systems of changes of access.

service     builds them from the settings and runs them
sender      sends to one receiver, in order and at least once
signing     signatures, as Standard Webhooks defines them
metrics     attempts, the oldest event that waits, failures

Nothing can be approved with a webhook: its body names a request by its ID, and has no link.
"""
