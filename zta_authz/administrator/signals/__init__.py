"""Shared Signals: receives security events by push and poll, and puts what they change into the store.

intake          one SET -> one commit: verified, not a replay, recorded, in force
changes         the items and access events of one SET
transmitters    the metadata of a transmitter, and its streams
receiver        push delivery (RFC 8935)
poller          poll delivery (RFC 8936)
service         all sources of the policies in force
"""
